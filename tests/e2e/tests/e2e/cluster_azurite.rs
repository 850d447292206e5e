//! The three processes with their cache at Azure's blob service, as its emulator has it; XFS under load to a VHDX.

use sluice_e2e::{Format, assert_equal};
use sluice_proto::cycle::CycleKind;
use sluice_proto::disk::State as Phase;
use sluice_test_support::Azurite;
use sluice_test_support::cluster::{Cluster, Setup};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn three_processes_over_azurite() {
    if !is_root("three_processes_over_azurite") {
        return;
    }
    let azurite = Azurite::start();
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 304 << 20, 512);
    let mount = Mount::format(disk.path(), FileSystem::Xfs);
    let load = Load::start(mount.path(), Intensity { fio_rate: "1m", ..Intensity::default() });
    let setup = Setup {
        format: "vhdx",
        cache: Some(azurite.url()),
        environment: azurite.environment().to_vec(),
        ..Setup::of(disk.path())
    };
    let cluster = Cluster::start(setup);
    cluster.operator().set_policy(1_000, None);
    let id = cluster.operator().only_disk();
    let mut last = 0;
    for kind in [CycleKind::Initial, CycleKind::Delta, CycleKind::Delta] {
        let cycle = cluster.operator().wait_verified(id, last);
        assert_eq!((cycle.kind, cycle.bitmaps_equal), (kind, Some(true)), "{cycle:?}");
        last = cycle.cycle.0;
        load.wait_rounds(1);
    }
    load.stop();
    mount.unmount();
    cluster.operator().order_final(id);
    cluster.operator().wait_phase(id, Phase::CutOver);
    assert_equal(disk.path(), &cluster.target(id), Format::Vhdx);
    cluster.end();
}
