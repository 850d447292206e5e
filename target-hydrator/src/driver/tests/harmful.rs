//! A source that means harm, to a hydrator with real files: of its target, of another's and of the host's own not a byte
//! changes.

use super::*;
use sluice_cache_store::CacheStore;
use sluice_proto::manifest::Manifest;
use sluice_proto::{ByteCount, SectorBitmap};
use std::collections::BTreeMap;

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

/// Ships a delta of two segments whose manifest is changed before it is sealed, and whose last segment is then another.
async fn forged(
    source: &mut Source,
    cycle: u64,
    last: CycleRef,
    segment: Option<Vec<u8>>,
    change: impl FnOnce(&mut Manifest),
) -> Shipped {
    let plan = source.scribble(&changed_sectors());
    let changed = |manifest: &mut Manifest| {
        if let (Some(bytes), Some(last)) = (&segment, manifest.segments.last_mut()) {
            last.len = ByteCount(bytes.len() as u64);
            last.hash = Digest::of(bytes);
        }
        change(manifest);
    };
    let shipped = source.ship_with(CycleKind::Delta, cycle, plan, Some(last), changed).await;
    if let Some(bytes) = segment {
        assert_eq!(shipped.segments.len(), 2, "a good one comes before");
        source.store.put(&shipped.segments[1], bytes.into()).await.expect("stored");
    }
    shipped
}

#[tokio::test]
async fn a_source_that_means_harm_changes_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(MemoryStore::new());
    let [mut harmful, mut other, mut climber] = [91, 92, 93].map(|seed| Source::new(SIZE, seed, store.clone()));
    (other.hydrator, climber.hydrator) = (harmful.hydrator.clone(), harmful.hydrator.clone());
    std::fs::create_dir(folder.path().join("targets")).expect("a folder");
    std::fs::write(folder.path().join("precious.raw"), b"precious").expect("written");
    let at = |name: &str| folder.path().join("targets").join(name);
    let named = [
        (harmful.disk, place(at("harmful.raw"), Format::Raw)),
        (other.disk, place(at("other.vhd"), Format::VhdDynamic)),
    ];
    let one = LocalTargets::one(place(PathBuf::new(), Format::Raw), Arc::new(SystemClock), Arc::new(OsEntropy::new()));
    let below = Some((folder.path().join("targets"), Format::Raw));
    let targets = LocalTargets { named: named.into(), any: None, folder: below, ..one };
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&harmful, Arc::new(targets)), &api);
    let plan = other.full();
    let others = other.ship(CycleKind::Initial, 1, plan, None).await;
    verified(&api, &others).await;
    let plan = harmful.full();
    let first = harmful.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;

    let notes = [at("harmful.raw.sluice")];
    let before = contents(folder.path(), &notes);
    assert!(before.contains_key(&at("harmful.raw")) && before.contains_key(&at("other.vhd")), "{before:?}");
    let foreign = store.get(&others.segments[0], 1 << 30).await.expect("stored").to_vec();
    let sectors = harmful.sectors().0;
    let mut cycles = vec![
        (forged(&mut harmful, 2, last, Some(foreign), |_| {}).await, FailReason::SegmentCorrupt, "belongs elsewhere"),
        (
            forged(&mut harmful, 3, last, Some(vec![0; 9999]), |_| {}).await,
            FailReason::SegmentCorrupt,
            "not a record of this kind",
        ),
        (
            forged(&mut harmful, 4, last, None, |manifest| {
                manifest.plan = SectorBitmap::from_extents([Extent::new(sectors - 8, 3000)]);
            })
            .await,
            FailReason::ManifestCorrupt,
            "bitmap",
        ),
    ];
    let mut elsewhere = forged(&mut harmful, 5, last, None, |_| {}).await;
    let manifest = store.get(&others.manifest_key(), 1 << 20).await.expect("stored");
    store.put(&elsewhere.manifest_key(), manifest).await.expect("stored");
    elsewhere.work.manifest = others.work.manifest;
    cycles.push((elsewhere, FailReason::ManifestCorrupt, "was due"));
    for (shipped, why, words) in cycles {
        let Outcome::Failed { reason, detail, .. } = verdict(&api, &shipped).await.outcome else {
            panic!("it was verified")
        };
        assert_eq!(reason, why, "{detail}");
        assert!(detail.contains(words), "{detail:?} does not say {words:?}");
        assert_eq!(contents(folder.path(), &notes), before, "after {detail}");
    }

    // Its disk's name is the agent's to choose.
    let plan = climber.full();
    let mut climbing = climber.ship(CycleKind::Initial, 1, plan, None).await;
    climbing.work.name = "../precious".into();
    verified(&api, &climbing).await;
    let mut after = contents(folder.path(), &notes);
    let new: Vec<PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
    assert!(!new.is_empty() && new.iter().all(|path| path.starts_with(at(""))), "{new:?}");
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before);

    // And it is taken at its word again.
    let plan = harmful.scribble(&changed_sectors());
    let honest = harmful.ship(CycleKind::Delta, 6, plan, Some(last)).await;
    verified(&api, &honest).await;
    assert_equal(&harmful, &at("harmful.raw"), Format::Raw).await;
    running.end().await;
}
