//! A source that means harm, to a hydrator with real files: of its target, of another's and of the host's own not a byte
//! changes.

use super::*;
use crate::testkit::Frame;
use sluice_cache_store::CacheStore;
use sluice_proto::header::{Header, ObjectKind};
use sluice_proto::keys::{DataKey, Part};
use sluice_proto::manifest::Manifest;
use sluice_proto::segment::{EncodedBlock, SegmentWriter};
use sluice_proto::stream::{BlockCv, Blocks};
use sluice_proto::{ByteCount, SectorBitmap};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// What all files below a folder hold, but those in the folders `without`.
fn contents(folder: &Path, without: &[PathBuf]) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true if without.contains(&path) => {}
            true => found.extend(contents(&path, without)),
            false => _ = found.insert(path.clone(), Digest::of(&std::fs::read(&path).expect("readable"))),
        }
    }
    found
}

/// What each of its deltas is said to bring: two segments.
fn changed_sectors() -> [Extent; 2] {
    [Extent::new(8, 1500), Extent::new(9000, 1500)]
}

/// What takes the place of a cycle's last segment.
enum Last {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These frames, made of the segment's first sector, sealed and indexed as by one who has all the keys.
    Frames(fn(u64) -> Vec<Frame>),
}

/// A segment of one block with `frames` in it.
fn sealed(key: &DataKey, manifest: &Manifest, first: BlockNo, salt: Digest, frames: &[Frame]) -> Vec<u8> {
    let header = Header {
        kind: ObjectKind::Segment,
        suite: manifest.suite,
        disk: manifest.disk,
        generation: manifest.generation,
        cycle: manifest.cycle,
        salt: salt.0,
        fields: [0; 3],
    };
    let object = key.object_key(&header);
    let mut bytes = Vec::new();
    for (number, frame) in (0_u32..).zip(frames) {
        let head = frame.head(number, frame.payload.len() + object.overhead());
        let mut body = frame.payload.clone();
        object.seal(Part { block: first.0, frame: number }, &head, &mut body, 0);
        bytes.extend_from_slice(&[head, body].concat());
    }
    let mut writer = SegmentWriter::new(key, &header, first);
    writer.push(&EncodedBlock { block: first, bytes, frames: frames.len() as u32, cv: BlockCv([0; 32]) });
    writer.finish()
}

fn bomb(at: u64) -> Vec<Frame> {
    vec![Frame::bomb(Extent::new(at, 4))]
}

/// Two frames, each in itself as it should be, that share sectors.
fn overlapping(at: u64) -> Vec<Frame> {
    [Extent::new(at, 3), Extent::new(at + 2, 3)].map(Frame::stored).into()
}

/// Ships a cycle of several segments whose manifest is changed before it is sealed, and whose last segment is then another.
async fn forged(
    source: &mut Source,
    (kind, cycle, last): (CycleKind, u64, Option<CycleRef>),
    segment: Option<Last>,
    change: impl FnOnce(&mut Manifest),
) -> Shipped {
    let plan = match kind {
        CycleKind::Initial => source.full(),
        _ => source.scribble(&changed_sectors()),
    };
    let (key, mut replaced) = (source.key.clone(), None);
    let changed = |manifest: &mut Manifest| {
        let (first, salt) = manifest.segments.last().map(|entry| (entry.first, entry.salt)).expect("a segment");
        let start = Blocks::of(&manifest.plan).last().map(|(_, extents)| extents[0].start.0).expect("a block");
        replaced = segment.map(|segment| match segment {
            Last::Bytes(bytes) => bytes,
            Last::Frames(frames) => sealed(&key, manifest, first, salt, &frames(start)),
        });
        if let (Some(bytes), Some(last)) = (&replaced, manifest.segments.last_mut()) {
            last.len = ByteCount(bytes.len() as u64);
            last.hash = Digest::of(bytes);
        }
        change(manifest);
    };
    let shipped = source.ship_with(kind, cycle, plan, last, changed).await;
    if let Some(bytes) = replaced {
        let [.., _, name] = &shipped.segments[..] else { panic!("a good one comes before") };
        source.store.put(name, bytes.into()).await.expect("stored");
    }
    shipped
}

/// A hydrator on real files, with the target of somebody else on the same host.
struct Scene {
    folder: TempDir,
    store: Arc<MemoryStore>,
    harmful: Source,
    others: Shipped,
    api: Arc<FakeApi>,
}

impl Scene {
    async fn new() -> (Self, Running) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(MemoryStore::new());
        let [harmful, mut other] = [91, 92].map(|seed| Source::new(SIZE, seed, store.clone()));
        other.hydrator = harmful.hydrator.clone();
        std::fs::create_dir(folder.path().join("targets")).expect("a folder");
        std::fs::write(folder.path().join("precious.raw"), b"precious").expect("written");
        let api = Arc::new(FakeApi::default());
        let targets = Self::targets(folder.path(), &harmful);
        let running = Running::start(environment(&harmful, targets), &api);
        let plan = other.full();
        let others = other.ship(CycleKind::Initial, 1, plan, None).await;
        verified(&api, &others).await;
        let scene = Self { folder, store, harmful, others, api };
        assert_equal(&other, &scene.others_target(), Format::VhdDynamic).await;
        (scene, running)
    }

    /// The harmful one's is a raw file, and all others are dynamic VHDs.
    fn targets(folder: &Path, harmful: &Source) -> Arc<LocalTargets> {
        let below = folder.join("targets");
        let named = [(harmful.disk, place(below.join("harmful.raw"), Format::Raw))];
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy::new()));
        let one = LocalTargets::one(place(PathBuf::new(), Format::Raw), clock, entropy);
        let folder = Some((below, Format::VhdDynamic));
        Arc::new(LocalTargets { named: named.into(), any: None, folder, ..one })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("targets").join(name)
    }

    fn others_target(&self) -> PathBuf {
        let found = std::fs::read_dir(self.at("")).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut found = found.filter(|path| path.is_file() && path.extension().is_some_and(|word| word == "vhd"));
        found.next().expect("the other's target")
    }

    /// All but the notes that are kept of the harmful one.
    fn contents(&self) -> BTreeMap<PathBuf, Digest> {
        contents(self.folder.path(), &[self.at("harmful.raw.sluice")])
    }

    /// The same without its target.
    fn contents_of_others(&self) -> BTreeMap<PathBuf, Digest> {
        let mut all = self.contents();
        all.remove(&self.at("harmful.raw"));
        all
    }

    /// Gives the cycle, which must fail for this reason.
    async fn refused(&self, shipped: &Shipped, why: FailReason, words: &str) {
        let Outcome::Failed { reason, detail, .. } = verdict(&self.api, shipped).await.outcome else {
            panic!("it was verified: not {words:?}")
        };
        assert_eq!(reason, why, "{detail}");
        assert!(detail.contains(words), "{detail:?} does not say {words:?}");
    }

    async fn foreign_segment(&self) -> Last {
        Last::Bytes(self.store.get(&self.others.segments[0], 1 << 30).await.expect("stored").to_vec())
    }
}

#[tokio::test]
async fn a_source_that_means_harm_changes_no_file() {
    let (mut scene, running) = Scene::new().await;
    let plan = scene.harmful.full();
    let first = scene.harmful.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&scene.api, &first).await;

    let before = scene.contents();
    assert!(before.contains_key(&scene.at("harmful.raw")), "{before:?}");
    let foreign = scene.foreign_segment().await;
    let sectors = scene.harmful.sectors().0;
    let delta = |cycle| (CycleKind::Delta, cycle, Some(last));
    use FailReason::{ManifestCorrupt, SegmentCorrupt};
    let harmful = &mut scene.harmful;
    let mut cycles = vec![
        (forged(harmful, delta(2), Some(foreign), |_| {}).await, SegmentCorrupt, "belongs elsewhere"),
        (
            forged(harmful, delta(3), Some(Last::Bytes(vec![0; 9999])), |_| {}).await,
            SegmentCorrupt,
            "not a record of this kind",
        ),
        (
            forged(harmful, delta(4), None, |manifest| {
                manifest.plan = SectorBitmap::from_extents([Extent::new(sectors - 8, 3000)]);
            })
            .await,
            ManifestCorrupt,
            "bitmap",
        ),
        (forged(harmful, delta(6), Some(Last::Frames(bomb)), |_| {}).await, SegmentCorrupt, "zstd can't read it"),
        (forged(harmful, delta(7), Some(Last::Frames(overlapping)), |_| {}).await, SegmentCorrupt, "do not ascend"),
    ];
    let mut elsewhere = forged(harmful, delta(5), None, |_| {}).await;
    let manifest = scene.store.get(&scene.others.manifest_key(), 1 << 20).await.expect("stored");
    scene.store.put(&elsewhere.manifest_key(), manifest).await.expect("stored");
    elsewhere.work.manifest = scene.others.work.manifest;
    cycles.push((elsewhere, ManifestCorrupt, "was due"));
    // Of two cycles the second one first.
    let skipped = forged(harmful, delta(8), None, |_| {}).await.reference();
    let mut early = forged(harmful, (CycleKind::Delta, 9, Some(skipped)), None, |_| {}).await;
    early.work.verified = Some(last);
    cycles.push((early, ManifestCorrupt, "out of turn"));
    for (shipped, why, words) in cycles {
        scene.refused(&shipped, why, words).await;
        assert_eq!(scene.contents(), before, "after {words:?}");
    }

    // Its disk's name is the agent's to choose.
    let mut climber = Source::new(SIZE, 93, scene.store.clone());
    climber.hydrator = scene.harmful.hydrator.clone();
    let plan = climber.full();
    let mut climbing = climber.ship(CycleKind::Initial, 1, plan, None).await;
    climbing.work.name = "../precious".into();
    verified(&scene.api, &climbing).await;
    let mut after = scene.contents();
    let new: Vec<PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
    assert!(!new.is_empty() && new.iter().all(|path| path.starts_with(scene.at(""))), "{new:?}");
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before);

    // And it is taken at its word again.
    let plan = scene.harmful.scribble(&changed_sectors());
    let honest = scene.harmful.ship(CycleKind::Delta, 10, plan, Some(last)).await;
    verified(&scene.api, &honest).await;
    assert_equal(&scene.harmful, &scene.at("harmful.raw"), Format::Raw).await;
    running.end().await;
}

/// An initial cycle is written while it arrives: its own target may hold anything then, but never counts.
#[tokio::test]
async fn a_first_cycle_that_means_harm_verifies_nothing_and_changes_no_other_file() {
    let (mut scene, running) = Scene::new().await;
    let before = scene.contents_of_others();
    let sectors = scene.harmful.sectors();
    let initial = |cycle| (CycleKind::Initial, cycle, None);
    let foreign = scene.foreign_segment().await;
    use FailReason::{ManifestCorrupt, SegmentCorrupt};
    let harmful = &mut scene.harmful;
    // It says that it ships the whole disk, and commits more.
    let mut beyond = forged(harmful, initial(4), None, |manifest| {
        manifest.plan = SectorBitmap::from_extents([Extent::new(0, sectors.0 + 3000)]);
    })
    .await;
    beyond.work.sectors = sectors;
    let cycles = [
        (forged(harmful, initial(1), Some(Last::Frames(bomb)), |_| {}).await, SegmentCorrupt, "zstd can't read it"),
        (forged(harmful, initial(2), Some(Last::Frames(overlapping)), |_| {}).await, SegmentCorrupt, "do not ascend"),
        (forged(harmful, initial(3), Some(foreign), |_| {}).await, SegmentCorrupt, "belongs elsewhere"),
        (beyond, ManifestCorrupt, "bitmap"),
    ];
    let mut applied = 0;
    for (shipped, why, words) in cycles {
        // All but the last segment are good, and are applied before anybody knows what the last is.
        let mut ahead = shipped.ahead();
        ahead.stored.pop();
        applied += ahead.stored.len();
        scene.api.give(ahead);
        scene.api.told(applied).await;
        scene.api.give(shipped.ahead());
        scene.refused(&shipped, why, words).await;
        assert_eq!(scene.contents_of_others(), before, "after {words:?}");
        assert!(scene.at("harmful.raw").exists(), "it was written to");
    }

    running.end().await;
    let environment = || environment(&scene.harmful, Scene::targets(scene.folder.path(), &scene.harmful));
    let work = scene.harmful.work(CycleKind::Initial, 5, scene.harmful.sectors(), None);
    let session = crate::apply::Session::open(environment(), &work).await.expect("opened");
    assert_eq!(session.ledger().verified, None);
    drop(session);
    let running = Running::start(environment(), &scene.api);
    let plan = scene.harmful.full();
    let honest = scene.harmful.ship(CycleKind::Initial, 5, plan, None).await;
    verified(&scene.api, &honest).await;
    assert_equal(&scene.harmful, &scene.at("harmful.raw"), Format::Raw).await;
    assert_eq!(scene.contents_of_others(), before);
    running.end().await;
}
