//! A source that is mounted read-write, with `scan`: allowed, and labelled for what it is.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn scanning_a_mounted_disk_is_allowed_and_labelled() {
    if !is_root("scanning_a_mounted_disk_is_allowed_and_labelled") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 128 << 20, 512);
    let replicate = Replicate::new(disk.path(), Format::Raw, &["--tracker", "scan"]).with_cache_folder();
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity { fio_rate: "1m", ..Intensity::default() });
    load.wait_rounds(1);
    let ended = replicate.run();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("mounted") && ended.stderr.contains("fuzzy"), "says what it is: {}", ended.stderr);
    let cycle = ended.stdout.lines().find_map(sluice_e2e::Cycle::read).expect("a cycle");
    cycle.assert_verified();
    assert_eq!((cycle.tracker.as_deref(), cycle.consistency.as_deref()), (Some("scan"), Some("fuzzy")), "{cycle:?}");
    let again = replicate.follow_under(&load, 1);
    assert!(again.iter().all(|cycle| cycle.consistency.as_deref() == Some("fuzzy")), "{again:?}");
    load.stop();
    mount.unmount();
    replicate.must();
    assert_equal(disk.path(), &replicate.target(), Format::Raw);
}
