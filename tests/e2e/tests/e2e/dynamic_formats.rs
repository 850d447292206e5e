//! Formats that grow with what is written, in one process.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn dynamic_images_hold_what_the_disk_holds() {
    if !is_root("dynamic_images_hold_what_the_disk_holds") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 256 << 20, 512);
    let targets = [Format::VhdDynamic, Format::VhdxDynamic];
    let replicates = targets.map(|format| Replicate::new(disk.path(), format, &["--tracker", "ebpf"]));
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity::default());
    load.wait_rounds(1);
    for replicate in &replicates {
        replicate.follow_under(&load, 1);
    }
    load.stop();
    mount.unmount();
    for (replicate, format) in replicates.iter().zip(targets) {
        replicate.must();
        assert_equal(disk.path(), &replicate.target(), format);
        let length = std::fs::metadata(replicate.target()).expect("the target").len();
        assert!(length < 200 << 20, "{format:?} grew to {length} bytes for a disk that is nearly empty");
    }
}
