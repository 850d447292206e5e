//! Btrfs under load to a raw image, without a cache: agent and hydrator pass segments on in memory.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn a_mounted_btrfs_becomes_a_raw_image() {
    if !is_root("a_mounted_btrfs_becomes_a_raw_image") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 256 << 20, 512);
    let replicate = Replicate::new(disk.path(), Format::Raw, &["--tracker", "ebpf"]);
    let mount = Mount::format(disk.path(), FileSystem::Btrfs);
    let load = Load::start(mount.path(), Intensity { fio_rate: "1m", ..Intensity::default() });
    load.wait_rounds(1);

    let cycles = replicate.follow_under(&load, 2);
    assert!(cycles[1..].iter().all(|delta| delta.kind == "delta"), "{cycles:?}");

    load.stop();
    mount.unmount();
    assert_eq!(replicate.must()[0].kind, "delta");
    assert_equal(disk.path(), &replicate.target(), Format::Raw);
}
