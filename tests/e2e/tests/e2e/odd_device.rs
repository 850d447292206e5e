//! A device whose size is not a whole MiB: the VHD is padded with zeros.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};

#[test]
fn a_device_of_an_odd_size_is_padded() {
    if !is_root("a_device_of_an_odd_size_is_padded") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sectors = (24_u64 << 11) + 5;
    let disk = Loop::new(folder.path(), "disk", sectors * 512, 512);
    let of = format!("of={}", text(disk.path()));
    let write = |seek: u64, count: u64| {
        let (seek, count) = (format!("seek={seek}"), format!("count={count}"));
        run("dd", &["if=/dev/urandom", &of, "bs=512", &seek, &count, "oflag=direct", "status=none"]);
    };
    write(0, sectors);
    let replicate = Replicate::new(disk.path(), Format::Vhd, &["--tracker", "ebpf"]);
    assert_eq!(replicate.must()[0].dirty_sectors, sectors);
    assert_eq!(std::fs::metadata(replicate.target()).expect("the target").len(), (25 << 20) + 512);
    assert_equal(disk.path(), &replicate.target(), Format::Vhd);

    write(sectors - 1, 1);
    let delta = replicate.must();
    assert_eq!((delta[0].kind.as_str(), delta[0].dirty_sectors > 0), ("delta", true), "{delta:?}");
    assert_equal(disk.path(), &replicate.target(), Format::Vhd);
}
