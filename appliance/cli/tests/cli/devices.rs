//! `sluice replicate` to block devices.

use crate::support::{Scene, sluice, text};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A state folder below `/var/lib/sluice`; it goes with the test.
struct Kept(PathBuf);

impl Kept {
    /// That of a target in a folder of the test's own, by whose name it can be told.
    fn of(folder: &Path) -> Self {
        let own = text(folder).trim_start_matches('/').replace('/', "-");
        let all = fs::read_dir("/var/lib/sluice").expect("a folder").flatten().map(|entry| entry.path());
        let found: Vec<_> = all.filter(|path| text(path).contains(&own)).collect();
        let [one] = &found[..] else { panic!("one folder of {own} expected: {found:?}") };
        Self(one.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_device_s_state_outlives_the_folder_of_devices() {
    if !is_root("a_device_s_state_outlives_the_folder_of_devices") {
        return;
    }
    let scene = Scene::new(8 << 20);
    let device = Loop::new(scene.folder.path(), "disk", 8 << 20, 512);
    // As udev makes them; the name is the test's own.
    let target = scene.at("by-id");
    symlink(device.path(), &target).expect("a link");
    scene.replicate(&target, &[]).must(2, &["--yes"]);
    scene.replicate(&target, &["--yes"]).must(0, &["verified"]);
    let kept = Kept::of(scene.folder.path());
    assert!(!scene.at("by-id.sluice").exists() && kept.0.join("hydrator/ledger").exists());
    scene.scribble(0, 4096);
    assert_eq!(scene.replicate(&target, &["--json"]).must(0, &[]).json()["kind"], "delta");
    sluice(&["verify", text(&scene.source), text(&target)]).must(0, &["equal"]);
    // A device that is not there is not made up for by a file in memory.
    scene.replicate(Path::new("/dev/sluice-none"), &["--format", "raw"]).must(2, &["attach it"]);
    assert!(!Path::new("/dev/sluice-none").exists());
}
