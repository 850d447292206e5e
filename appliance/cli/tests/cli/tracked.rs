//! `--tracker ebpf` on a loop device.

use crate::support::{folder, noise, sluice, text};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Takes the pins of the disk away, whose journal lies in `state`.
struct Pins<'a>(&'a Path);

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let text = fs::read_to_string(self.0.join("agent/disk.json")).unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(disk) = json["disk"].as_str() {
            drop(fs::remove_dir_all(Path::new("/sys/fs/bpf/sluice").join(disk)));
        }
    }
}

#[test]
fn the_next_run_ships_what_the_kernel_noted() {
    if !is_root("the_next_run_ships_what_the_kernel_noted") {
        return;
    }
    let folder = folder();
    let disk = Loop::new(folder.path(), "disk", 64 << 20, 512);
    let (target, state) = (folder.path().join("t.vhd"), folder.path().join("t.vhd.sluice"));
    let _pins = Pins(&state);
    let device = File::options().write(true).open(disk.path()).expect("the device");
    let write = |at: u64, len: u64| {
        device.write_all_at(&noise(len, at + 1), at).and_then(|()| device.sync_all()).expect("written");
    };
    write(0, 8 << 20);
    let run = || sluice(&["replicate", text(disk.path()), text(&target), "--tracker", "ebpf", "--json"]);
    let first = run();
    let json = first.must(0, &["noted in the kernel"]).json();
    assert_eq!(
        (&json["kind"], &json["tracker"], &json["consistency"]),
        (&"initial".into(), &"ebpf".into(), &"crash".into())
    );

    write(40 << 20, 4096);
    let json = run().must(0, &[]).json();
    assert_eq!((&json["kind"], &json["tracker"]), (&"delta".into(), &"ebpf".into()), "{json}");
    let sectors = json["dirty_sectors"].as_u64().expect("a number");
    assert!((8..4096).contains(&sectors), "{json}");
    assert!(json["bytes_read"].as_u64().expect("a number") < 4 << 20, "the disk is not read: {json}");

    let json = run().must(0, &[]).json();
    assert_eq!((&json["dirty_sectors"], &json["consistency"]), (&0.into(), &"crash".into()), "{json}");
    sluice(&["verify", text(disk.path()), text(&target)]).must(0, &["equal"]);

    // Without its pins nothing is known of what was written meanwhile: the disks are compared.
    drop(Pins(&state));
    write(20 << 20, 512);
    let ended = run();
    let json = ended.must(0, &["compared"]).json();
    assert_eq!((&json["kind"], &json["verified"]), (&"resync".into(), &true.into()), "{json}");
    sluice(&["verify", text(disk.path()), text(&target)]).must(0, &["equal"]);
}
