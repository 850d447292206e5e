//! A disk with sectors of 4096 bytes: XFS under load, to a VHDX.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn an_xfs_on_large_sectors_becomes_a_vhdx() {
    if !is_root("an_xfs_on_large_sectors_becomes_a_vhdx") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 320 << 20, 4096);
    let replicate = Replicate::new(disk.path(), Format::Vhdx, &["--tracker", "ebpf"]).with_cache_folder();
    let mount = Mount::format(disk.path(), FileSystem::Xfs);
    let load = Load::start(mount.path(), Intensity { sector: 4096, ..Intensity::default() });
    load.wait_rounds(1);

    let cycles = replicate.follow_under(&load, 2);
    assert!(cycles[1..].iter().all(|delta| delta.kind == "delta"), "{cycles:?}");
    assert!(cycles.iter().all(|cycle| cycle.dirty_sectors % 8 == 0), "whole sectors of this disk: {cycles:?}");

    load.stop();
    mount.unmount();
    assert_eq!(replicate.must()[0].kind, "delta");
    assert_equal(disk.path(), &replicate.target(), Format::Vhdx);
}
