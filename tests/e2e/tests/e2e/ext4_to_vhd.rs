//! The main job on one machine: a mounted ext4 under load becomes a VHD and stays in step, its cycles sealed and stored
//! as between machines.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::files_below;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn a_mounted_ext4_becomes_a_vhd_and_stays_in_step() {
    if !is_root("a_mounted_ext4_becomes_a_vhd_and_stays_in_step") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 320 << 20, 512);
    let replicate = Replicate::new(disk.path(), Format::Vhd, &["--tracker", "ebpf"]).with_cache_folder();
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity::default());
    load.wait_rounds(1);

    let cycles = replicate.follow_under(&load, 3);
    assert_eq!(cycles[0].kind, "initial");
    assert_eq!(cycles[0].dirty_sectors, (320 << 20) / 512);
    for delta in &cycles[1..] {
        assert_eq!((delta.kind.as_str(), delta.tracker.as_deref()), ("delta", Some("ebpf")), "{delta:?}");
        // What a delta costs follows from what changed.
        assert!(delta.bytes_read < cycles[0].bytes_read / 2, "{delta:?}");
    }

    load.stop();
    mount.unmount();
    let last = replicate.must();
    assert_eq!((last.len(), last[0].kind.as_str()), (1, "delta"), "tracking was unbroken since the last run: {last:?}");
    assert_eq!(last[0].consistency.as_deref(), Some("crash"), "nobody writes any more: {last:?}");
    assert_equal(disk.path(), &replicate.target(), Format::Vhd);
    let left = files_below(&replicate.cache());
    assert!(left.is_empty(), "what is applied is deleted from the cache: {left:?}");
}
