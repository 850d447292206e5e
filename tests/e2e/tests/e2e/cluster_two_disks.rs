//! One agent with two disks, one of which grows under its feet: its target follows, and the other is not concerned.

use sluice_e2e::{Format, assert_equal};
use sluice_proto::cycle::{CycleKind, FailReason, State};
use sluice_test_support::cluster::{Cluster, Setup};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The size that the other disk grows to, in bytes.
const GROWN: u64 = 40 << 20;

/// Writes past the page cache's delay: it is on the disk when this returns.
fn write(disk: &Path, at: u64, bytes: &[u8]) {
    let written = File::options().write(true).open(disk).and_then(|file| {
        file.write_all_at(bytes, at)?;
        file.sync_all()
    });
    written.unwrap_or_else(|e| panic!("{}: {e}", disk.display()));
}

#[test]
fn a_disk_that_grows_goes_on_and_does_not_stop_the_other() {
    if !is_root("a_disk_that_grows_goes_on_and_does_not_stop_the_other") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (size, other_size) = (512 << 20, 32 << 20);
    let disk = Loop::new(folder.path(), "disk", size, 512);
    let other = Loop::new(folder.path(), "other", other_size, 512);
    let contents: Vec<u8> =
        (0..other_size as u32 / 4).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    write(other.path(), 0, &contents);
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

    other.resize(GROWN);
    write(other.path(), 5 << 20, &[7; 10_000]);
    write(other.path(), GROWN - 4096, &[8; 4096]);
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

    // With nobody's help: what differs and the new end are shipped, most of the disk is not.
    let compared = operator.wait_verified(other_id, failed.cycle.0);
    assert_eq!(compared.kind, CycleKind::Resync, "{compared:?}");
    assert!((1..=4 * 128).contains(&compared.sectors.0) && compared.bytes_sent.0 < other_size / 32, "{compared:?}");
    write(other.path(), GROWN - 9000, &[9; 9000]);
    let delta = operator.wait_cycle(other_id, "a delta ships what was written since", |view| {
        (view.cycle > compared.cycle && view.sectors.0 > 0 && view.state == State::Verified).then(|| view.clone())
    });
    assert_eq!(delta.kind, CycleKind::Delta, "{delta:?}");
    assert!(delta.sectors.0 <= 24, "of that alone: {delta:?}");
    operator.order_final(other_id);
    operator.wait_phase(other_id, sluice_proto::disk::State::CutOver);
    assert_equal(other.path(), &cluster.target(other_id), Format::Raw);
}
