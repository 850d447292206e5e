//! One partition of a disk is protected; what is written to its neighbour does not concern it.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn a_partition_is_a_disk_of_its_own() {
    if !is_root("a_partition_is_a_disk_of_its_own") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut whole = Loop::new(folder.path(), "disk", 256 << 20, 512);
    // Neither start nor length is a multiple of what the tracker counts in.
    let source = whole.add_partition(2_049, (160 << 11) - 3);
    let neighbour = whole.add_partition(161 << 11, 64 << 11);
    let replicate = Replicate::new(&source, Format::Vhdx, &["--tracker", "ebpf"]);
    let mount = Mount::format(&source, FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity::default());
    load.wait_rounds(1);
    let cycles = replicate.follow_under(&load, 2);
    assert!(cycles[1..].iter().all(|delta| delta.kind == "delta"), "{cycles:?}");
    load.stop();
    mount.unmount();
    assert_eq!(replicate.must()[0].kind, "delta");
    assert_equal(&source, &replicate.target(), Format::Vhdx);

    run(
        "dd",
        &["if=/dev/urandom", &format!("of={}", text(&neighbour)), "bs=1M", "count=32", "oflag=direct", "status=none"],
    );
    let quiet = replicate.must();
    assert_eq!((quiet[0].kind.as_str(), quiet[0].dirty_sectors), ("delta", 0), "{quiet:?}");
}
