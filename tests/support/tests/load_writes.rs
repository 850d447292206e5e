//! The load runs on every file system that it is used on, in sectors of both sizes, and leaves nothing behind.
#![forbid(unsafe_code)]

use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::images::{assert_bytes_equal, assert_qemu_finds_equal, qemu_finds_different};
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

const DISK_BYTES: u64 = 320 << 20;

#[test]
fn the_load_writes_to_every_file_system() {
    if !is_root("the_load_writes_to_every_file_system") {
        return;
    }
    for (fs, sector) in [(FileSystem::Ext4, 512), (FileSystem::Xfs, 4096), (FileSystem::Btrfs, 512)] {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Loop::new(folder.path(), "disk", DISK_BYTES, sector);
        let mount = Mount::format(disk.path(), fs);
        let copy = folder.path().join("copy");
        run("cp", &["--sparse=always", text(disk.path()), text(&copy)]);
        let load = Load::start(mount.path(), Intensity { sector, ..Intensity::default() });
        load.wait_rounds(3);
        assert!(load.stop() >= 3, "{fs:?}");
        let mapped = mount.path().join("fio");
        assert!(std::fs::read_dir(&mapped).expect("fio's folder").count() >= 3, "{fs:?}: fio wrote three files");
        mount.unmount();
        assert!(qemu_finds_different(disk.path(), &copy, "raw"), "{fs:?}: the load changed nothing");
        run("blockdev", &["--flushbufs", text(disk.path())]);
        run("cp", &["--sparse=always", text(disk.path()), text(&copy)]);
        assert_qemu_finds_equal(disk.path(), &copy, "raw");
        assert_bytes_equal(disk.path(), &copy, 0);
        drop(disk);
        let left = run("losetup", &["--associated", text(&folder.path().join("disk"))]);
        assert!(left.is_empty(), "a loop device was left: {left}");
    }
}
