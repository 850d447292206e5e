//! `sluice replicate` killed at random moments, over and over, under load.

use sluice_crash::{Noise, moment};
use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};
use std::time::Duration;

const KILLS: u32 = 10;

#[test]
fn replicate_killed_at_random_moments() {
    if !is_root("replicate_killed_at_random_moments") {
        return;
    }
    let mut noise = Noise::announced("replicate_killed_at_random_moments");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 192 << 20, 512);
    let replicate = Replicate::new(disk.path(), Format::Vhd, &["--tracker", "ebpf"]).with_cache_folder();
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity::default());
    load.wait_rounds(1);
    for kill in 0..KILLS {
        let mut sluice = replicate.start(&["--follow", "--min-interval", "1s", "--max-interval", "1s"]);
        let after = moment(&mut noise, Duration::from_millis(2_500));
        eprintln!("kill {kill} after {after:?}");
        assert!(sluice.runs_for(after), "ended by itself:\n{}", sluice.tail());
        sluice.kill();
    }
    load.stop();
    mount.unmount();
    replicate.must();
    assert_equal(disk.path(), &replicate.target(), Format::Vhd);
}
