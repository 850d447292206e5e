//! What somebody who can write to the cache can do: damage, cut, exchange, replay and remove objects. Every one of these
//! is noticed before a byte of the cycle reaches the target, and the next cycle brings what was lost.

use sluice_e2e::Apart;
use sluice_proto::DiskId;
use sluice_proto::cycle::{FailReason, State};
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;
use std::fs;
use std::path::{Path, PathBuf};

/// A name, the damage, and the reason with which the cycle must fail.
type Damage = (&'static str, fn(&Scene), FailReason);

const DAMAGES: &[Damage] = &[
    ("a bit of a segment is flipped", |scene| flip(&scene.segments()[1], 2), FailReason::SegmentCorrupt),
    ("a segment is cut short", |scene| cut(&scene.segments()[0]), FailReason::SegmentCorrupt),
    ("a segment is removed", |scene| remove(&scene.segments()[1]), FailReason::SegmentCorrupt),
    ("two segments are exchanged", exchange, FailReason::SegmentCorrupt),
    ("a segment of an earlier cycle is put in", replay_segment, FailReason::SegmentCorrupt),
    ("a bit of the manifest is flipped", |scene| flip(&scene.manifest(), 2), FailReason::ManifestCorrupt),
    ("the manifest is cut short", |scene| cut(&scene.manifest()), FailReason::ManifestCorrupt),
    ("an earlier cycle's manifest is put in", replay_manifest, FailReason::ManifestCorrupt),
    ("the manifest is of a newer version", newer_manifest, FailReason::ManifestCorrupt),
];

#[test]
fn objects_that_somebody_tampered_with_are_noticed() {
    if !is_root("objects_that_somebody_tampered_with_are_noticed") {
        return;
    }
    let mut apart = Apart::prepare(|_| {});
    let disk = apart.in_step();
    let earlier = tempfile::tempdir().expect("a folder");
    let cycle = committed(&mut apart, disk, 100);
    copy_all(&apart.cycle_folder(disk, cycle), earlier.path());
    apart.cluster.start_part(Part::Hydrator);
    apart.cluster.operator().wait_verified(disk, cycle - 1);

    for (seed, (what, damage, reason)) in DAMAGES.iter().enumerate() {
        eprintln!("{what}");
        let cycle = committed(&mut apart, disk, 200 + seed as u64);
        let before = fs::read(apart.cluster.target(disk)).expect("the target");
        damage(&Scene { folder: apart.cycle_folder(disk, cycle), earlier: earlier.path().to_owned() });
        apart.cluster.start_part(Part::Hydrator);
        let ended = apart.wait_end(disk, cycle);
        assert_eq!(
            (ended.cycle.0, ended.state, ended.reason),
            (cycle, State::Failed, Some(*reason)),
            "{what}: {ended:?}"
        );
        assert!(ended.detail.is_some_and(|words| !words.is_empty()), "{what}: it says what happened");
        let after = fs::read(apart.cluster.target(disk)).expect("the target");
        assert!(before == after, "{what}: the target was written to");
        let mended = apart.mend(disk);
        assert_eq!(mended.kind, sluice_proto::cycle::CycleKind::Delta, "{what}: nothing is in doubt: {mended:?}");
    }
}

/// Writes 12 MiB and lets a cycle come to its commit with no hydrator there; its number.
fn committed(apart: &mut Apart, disk: DiskId, seed: u64) -> u64 {
    let ended = apart.cluster.take(Part::Hydrator).terminate();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    apart.write(seed % 7 * 512 + (1 << 20), 12 << 20, seed);
    let cycle = apart.order(disk);
    apart.cluster.operator().wait_cycle(disk, "the cycle is committed", |view| {
        assert_ne!(view.state, State::Failed, "{view:?}");
        (view.cycle.0 == cycle && view.state == State::Committed).then_some(())
    });
    cycle
}

/// A committed cycle's objects, and those of an earlier one.
struct Scene {
    folder: PathBuf,
    earlier: PathBuf,
}

impl Scene {
    fn segments(&self) -> Vec<PathBuf> {
        segments(&self.folder)
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join("manifest")
    }
}

/// A folder's segments, in the order of their blocks.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "seg"));
    paths.sort();
    assert!(paths.len() >= 2, "{} holds {} segments, too few for these damages", folder.display(), paths.len());
    paths
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Flips a bit in the middle (`part` 2) or elsewhere.
fn flip(path: &Path, part: usize) {
    let mut bytes = fs::read(path).expect("an object");
    let at = bytes.len() / part;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

fn cut(path: &Path) {
    let bytes = fs::read(path).expect("an object");
    fs::write(path, &bytes[..bytes.len() - 1]).expect("written");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("removed");
}

fn exchange(scene: &Scene) {
    let segments = scene.segments();
    let [one, other] = [&segments[0], &segments[1]].map(|path| fs::read(path).expect("a segment"));
    fs::write(&segments[0], other).expect("written");
    fs::write(&segments[1], one).expect("written");
}

fn replay_segment(scene: &Scene) {
    fs::copy(&segments(&scene.earlier)[0], &scene.segments()[0]).expect("a copy");
}

fn replay_manifest(scene: &Scene) {
    fs::copy(scene.earlier.join("manifest"), scene.manifest()).expect("a copy");
}

/// The version stands behind the eight bytes of magic.
fn newer_manifest(scene: &Scene) {
    let mut bytes = fs::read(scene.manifest()).expect("a manifest");
    bytes[8] = bytes[8].wrapping_add(1);
    fs::write(scene.manifest(), bytes).expect("written");
}
