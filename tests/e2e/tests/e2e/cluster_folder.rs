//! The main job with its three parts apart: agent, appliance and hydrator as processes over TLS, a cache in a folder,
//! a mounted ext4 under load, up to the final cycle.

use sluice_e2e::{Format, assert_equal};
use sluice_proto::cycle::{Consistency, CycleKind};
use sluice_proto::disk::State as Phase;
use sluice_test_support::cluster::{Cluster, Setup};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn three_processes_over_a_folder() {
    if !is_root("three_processes_over_a_folder") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 320 << 20, 512);
    let mount = Mount::format(disk.path(), FileSystem::Ext4);
    let load = Load::start(mount.path(), Intensity::default());
    let cluster = Cluster::start(Setup::of(disk.path()));
    cluster.operator().set_policy(1_000, None);
    let id = cluster.operator().only_disk();

    let mut last = 0;
    for round in 0..4 {
        let cycle = cluster.operator().wait_verified(id, last);
        let kind = if round == 0 { CycleKind::Initial } else { CycleKind::Delta };
        assert_eq!((cycle.kind, cycle.bitmaps_equal), (kind, Some(true)), "{cycle:?}");
        assert!(cycle.source_digest.is_some() && cycle.source_digest == cycle.target_digest, "{cycle:?}");
        assert!(cycle.sectors.0 > 0, "under load there is something to ship: {cycle:?}");
        last = cycle.cycle.0;
        load.wait_rounds(1);
    }

    load.stop();
    mount.unmount();
    cluster.operator().order_final(id);
    let end = cluster.operator().wait_phase(id, Phase::CutOver);
    let last = end.cycle.expect("the final cycle");
    assert_eq!((last.kind, last.consistency), (CycleKind::Final, Some(Consistency::Crash)), "{last:?}");
    let target = cluster.target(id);
    // The disks are compared while all three still run, and once more when they have ended in good order.
    assert_equal(disk.path(), &target, Format::Vhd);
    let kept = folder.path().join("kept.vhd");
    std::fs::copy(&target, &kept).expect("a copy of the target");
    cluster.end();
    assert_equal(disk.path(), &kept, Format::Vhd);
}
