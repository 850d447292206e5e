//! One agent with two disks: the one that grows under its feet is in trouble, and does not stop the other.

use sluice_e2e::{Format, assert_equal};
use sluice_proto::cycle::{FailReason, State};
use sluice_test_support::cluster::{Cluster, Setup};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};

#[test]
fn a_disk_in_trouble_does_not_stop_the_other() {
    if !is_root("a_disk_in_trouble_does_not_stop_the_other") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (size, other_size) = (160 << 20, 32 << 20);
    let disk = Loop::new(folder.path(), "disk", size, 512);
    let other = Loop::new(folder.path(), "other", other_size, 512);
    let mount = Mount::format(disk.path(), FileSystem::Btrfs);
    let load = Load::start(mount.path(), Intensity { fio_rate: "1m", ..Intensity::default() });
    let sources = vec![(disk.path().to_owned(), "ebpf"), (other.path().to_owned(), "ebpf")];
    let cluster = Cluster::start(Setup { sources, format: "raw", ..Setup::of(disk.path()) });
    let operator = cluster.operator();
    // Both share what there is.
    operator.set_policy(1_000, Some("400Mbit/s"));
    let views = operator.wait_disks(2);
    let id_of = |bytes: u64| views.iter().find(|view| view.size.0 == bytes).expect("a disk of this size").disk;
    let (id, other_id) = (id_of(size), id_of(other_size));
    let before = operator.wait_verified(id, 1);
    operator.wait_verified(other_id, 1);

    other.resize(40 << 20);
    let failed = operator.wait_cycle(other_id, "the grown disk's cycle fails", |view| {
        (view.state == State::Failed).then(|| view.clone())
    });
    assert_eq!(failed.reason, Some(FailReason::SourceChangedSize), "{failed:?}");
    let words = failed.detail.unwrap_or_default();
    assert!(words.contains("33554432") && words.contains("41943040"), "it says which sizes: {words}");
    let after = operator.wait_verified(id, before.cycle.0 + 1);
    assert!(after.start_ms >= before.start_ms, "{after:?}");

    load.stop();
    mount.unmount();
    let settled = operator.wait_verified(id, after.cycle.0 + 1);
    operator.order_final(id);
    operator.wait_verified(id, settled.cycle.0);
    operator.wait_phase(id, sluice_proto::disk::State::CutOver);
    assert_equal(disk.path(), &cluster.target(id), Format::Raw);
}
