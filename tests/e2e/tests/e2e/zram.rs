//! A disk whose driver takes bios without a request queue.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Zram;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn a_bio_based_disk_is_tracked() {
    if !is_root("a_bio_based_disk_is_tracked") {
        return;
    }
    let Some(disk) = Zram::new(192 << 20) else {
        eprintln!("SKIPPED a_bio_based_disk_is_tracked: this kernel has no zram");
        return;
    };
    let replicate = Replicate::new(disk.path(), Format::Vhd, &["--tracker", "ebpf"]);
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity { sector: 4096, ..Intensity::default() });
    load.wait_rounds(1);

    let cycles = replicate.follow_under(&load, 2);
    for delta in &cycles[1..] {
        assert_eq!((delta.kind.as_str(), delta.tracker.as_deref()), ("delta", Some("ebpf")), "{delta:?}");
    }

    load.stop();
    mount.unmount();
    assert_eq!(replicate.must()[0].kind, "delta");
    assert_equal(disk.path(), &replicate.target(), Format::Vhd);
}
