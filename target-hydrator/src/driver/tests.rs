//! The whole hydrator on real files, with an appliance that a test plays.

mod claimed;
mod exchanged;
mod foreign;
mod grown;
mod harmful;
mod released;
mod targets;

use super::*;
use crate::apply::{Claim, TargetFactory};
use crate::compute::Compute;
use crate::formats::Format;
use crate::progress::Progress;
use crate::spool::Spool;
use crate::targets::{LocalTargets, Place};
use crate::testkit::{Bench, FakeApi, Shipped, Source, Then, stored};
use crate::verify::compare;
use sluice_cache_store::MemoryStore;
use sluice_platform::system::{OsEntropy, SystemClock};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::digests::{grain_digest, open_part};
use sluice_proto::wire::{CycleRef, Outcome, VerdictRequest};
use sluice_proto::{BlockNo, Digest, Extent, GRAIN_BYTES};
use std::path::{Path, PathBuf};

/// Not a whole number of MiB nor of sectors.
const SIZE: u64 = (9 << 20) + 5 * 512 + 300;

fn place(path: PathBuf, format: Format) -> Place {
    Place { path, format, state: None, overwrite: false, source: None }
}

fn local(place: Place) -> Arc<dyn TargetFactory> {
    Arc::new(LocalTargets::one(place, Arc::new(SystemClock), Arc::new(OsEntropy::new())))
}

fn environment(source: &Source, targets: Arc<dyn TargetFactory>) -> Environment {
    Environment { compute: Compute::Threads, ..crate::testkit::environment(source.store.clone(), source, targets) }
}

/// A running hydrator; it ends when this is dropped, as a killed process does.
struct Running {
    task: tokio::task::JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    fn start(environment: Environment, api: &Arc<FakeApi>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { task: tokio::spawn(Hydrator::new(environment, api.clone()).run(stopped)), stop }
    }
    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("it ended by itself");
    }
}

async fn verdict(api: &FakeApi, shipped: &Shipped) -> VerdictRequest {
    api.give(shipped.work.clone());
    api.verdict_of(shipped.work.disk, shipped.work.cycle).await
}

async fn verified(api: &FakeApi, shipped: &Shipped) -> CycleRef {
    let verdict = verdict(api, shipped).await;
    let Outcome::Verified { target_digest, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert_eq!(target_digest, shipped.manifest.digest);
    assert_eq!(verdict.manifest, shipped.work.manifest);
    shipped.reference()
}

async fn assert_equal(source: &Source, target: &Path, format: Format) {
    let copy = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(copy.path(), &source.bytes).expect("written");
    let result = compare((copy.path(), Some(Format::Raw)), (target, Some(format)), |_, _| {}).await.expect("compared");
    assert!(result.equal, "{:?}", result.differing);
}

async fn a_disk_follows_its_source(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target");
    let mut source = Source::new(SIZE, 70 + format as u64, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let targets = || local(place(path.clone(), format));
    let mut running = Running::start(environment(&source, targets()), &api);

    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let ahead = first.ahead();
    api.give(ahead);
    let mut last = verified(&api, &first).await;
    assert_equal(&source, &path, format).await;
    // What it told of applied segments, it told in their order, each once.
    let told: Vec<String> = api.applied().into_iter().flat_map(|(_, _, request)| request.names).collect();
    let all: Vec<String> = first.manifest.segments.iter().map(|entry| stored(entry).name).collect();
    assert!(all.starts_with(&told), "{told:?}");

    let sectors = source.sectors().0;
    for cycle in 2..5 {
        let plan =
            source.scribble(&[Extent::new(cycle, 3), Extent::new(1000 * cycle, 700), Extent::new(sectors - 2, 2)]);
        let delta = source.ship(CycleKind::Delta, cycle, plan, Some(last)).await;
        last = verified(&api, &delta).await;
        assert_equal(&source, &path, format).await;
        running.end().await;
        running = Running::start(environment(&source, targets()), &api);
    }
    let end = source.ship(CycleKind::Final, 5, sluice_proto::SectorBitmap::new(), Some(last)).await;
    let verdict = verdict(&api, &end).await;
    let Outcome::Verified { whole_disk, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert_eq!(whole_disk, Some(Digest::of(&source.padded())));
    running.end().await;
}

#[tokio::test]
async fn a_raw_image_follows_its_source() {
    a_disk_follows_its_source(Format::Raw).await;
}

#[tokio::test]
async fn a_fixed_vhd_follows_its_source() {
    a_disk_follows_its_source(Format::Vhd).await;
}

#[tokio::test]
async fn a_dynamic_vhd_follows_its_source() {
    a_disk_follows_its_source(Format::VhdDynamic).await;
}

#[tokio::test]
async fn a_fixed_vhdx_follows_its_source() {
    a_disk_follows_its_source(Format::Vhdx).await;
}

#[tokio::test]
async fn a_dynamic_vhdx_follows_its_source() {
    a_disk_follows_its_source(Format::VhdxDynamic).await;
}

#[tokio::test]
async fn a_target_that_somebody_wrote_to_is_compared_and_healed() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target.vhd");
    let mut source = Source::new(SIZE, 80, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&source, local(place(path.clone(), Format::Vhd))), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    let file = std::fs::File::options().write(true).open(&path).expect("there");
    file.write_all_at(b"not yours", 3 << 20).expect("written");
    drop(file);
    let plan = source.scribble(&[Extent::new(1, 1)]);
    let delta = source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    let verdict = verdict(&api, &delta).await;
    let Outcome::Failed { reason, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert_eq!(reason, FailReason::TargetChanged);

    // The agent asks for the digests and ships what differs.
    let mut wanted = source.work(CycleKind::Resync, 3, sluice_proto::SectorCount(0), Some(last));
    wanted.digests_wanted = true;
    api.give(wanted.clone());
    let part = api.part_of(source.disk, wanted.cycle, 0).await;
    let (_, digests) = open_part(&part, &source.key, 0, source.sectors()).expect("ours");
    let padded = source.padded();
    let mut plan = sluice_proto::SectorBitmap::new();
    for (number, grain) in padded.chunks(GRAIN_BYTES as usize).enumerate() {
        if grain_digest(grain) != digests[number] {
            plan.set(Extent::new(number as u64 * 128, grain.len() as u64 / 512));
        }
    }
    assert_eq!(plan.count().0, 2 * 128, "the grain that was written to, and that which changed at the source");
    let resync = source.ship(CycleKind::Resync, 3, plan, Some(last)).await;
    verified(&api, &resync).await;
    assert_equal(&source, &path, Format::Vhd).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn digests_come_in_parts_skip_holes_and_keep_to_their_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.raw");
    let source = Source::new(4096, 91, Arc::new(MemoryStore::new()));
    let mut work = source.work(CycleKind::Resync, 1, sluice_proto::SectorCount(0), None);
    work.size = sluice_proto::ByteCount(9 << 30);
    work.read_rate = Some(1 << 20);
    let mut environment = environment(&source, local(place(path.clone(), Format::Raw)));
    environment.compute = Compute::Inline;
    let mut session = crate::apply::Session::open(environment, &work).await.expect("opened");
    // The first time makes the target, all of it a hole.
    let api = Arc::new(FakeApi::default());
    let start = tokio::time::Instant::now();
    session.digests(&work, &Claim::of(&api, &work)).await.expect("delivered");
    assert_eq!(start.elapsed(), Duration::ZERO);
    let data = vec![5; GRAIN_BYTES as usize];
    let file = std::fs::File::options().write(true).open(&path).expect("there");
    std::os::unix::fs::FileExt::write_all_at(&file, &data, (8 << 30) + GRAIN_BYTES).expect("written");
    session.digests(&work, &Claim::of(&api, &work)).await.expect("delivered");
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    let sectors = work.size.sectors_ceil();
    let mut table = Vec::new();
    for part in 0..2 {
        let bytes = api.part_of(work.disk, work.cycle, part).await;
        table.extend(open_part(&bytes, &source.key, part, sectors).expect("ours").1);
    }
    assert_eq!(table.len() as u64, (9 << 30) / GRAIN_BYTES);
    let at = ((8 << 30) / GRAIN_BYTES + 1) as usize;
    assert_eq!(table[at], grain_digest(&data));
    assert!(table.iter().enumerate().all(|(number, digest)| number == at || digest.0 == [0; 32]));
    assert_eq!(session.ledger().compared, Some(work.cycle));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_repeated_until_the_appliance_has_it() {
    let mut bench = Bench::new(9000, 85);
    let api = Arc::new(FakeApi::default());
    api.be_unreachable(3);
    api.lose_answers(2);
    let running = Running::start(bench.environment(), &api);
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    api.give(first.work.clone());
    let verdict = api.verdict_of(first.work.disk, first.work.cycle).await;
    assert!(matches!(verdict.outcome, Outcome::Verified { .. }));
    api.answered().await;
    assert_eq!(api.verdicts().len(), 1, "each repetition was the same");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_cycle_is_reported_once_and_not_applied_again() {
    let mut bench = Bench::new(9000, 86);
    let api = Arc::new(FakeApi::default());
    let running = Running::start(bench.environment(), &api);
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    verified(&api, &first).await;
    bench.faults.set(3, Then::Fail(crate::target::TargetErrorKind::Io));
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
    let verdict = verdict(&api, &delta).await;
    assert!(matches!(verdict.outcome, Outcome::Failed { reason: FailReason::TargetWrite, .. }));
    let done = bench.faults.done();
    api.give(delta.work.clone());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.faults.done(), done);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_is_told_until_it_is_heard() {
    let mut bench = Bench::new(9000, 88);
    let api = Arc::new(FakeApi::default());
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let ahead = first.ahead();
    let names: Vec<String> = ahead.stored.iter().map(|segment| segment.name.clone()).collect();
    // The appliance's state is full when it is told, and nothing new arrives afterwards.
    api.have_no_room(3);
    let running = Running::start(bench.environment(), &api);
    api.give(ahead);
    let told = tokio::time::timeout(Duration::from_secs(600), api.told(names.len())).await.expect("it is told");
    assert_eq!(told, names);
    running.end().await;
}

/// A power cut took the agent's notes and the appliance's word, but not what the hydrator had made durable.
#[tokio::test(start_paused = true)]
async fn a_second_attempt_is_not_taken_for_the_one_that_was_applied() {
    let mut bench = Bench::new(9000, 89);
    let api = Arc::new(FakeApi::default());
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let running = Running::start(bench.environment(), &api);
    api.give(first.ahead());
    api.told(first.manifest.segments.len()).await;
    running.end().await;
    api.forget_applied();
    bench.source.scribble(&[Extent::new(3, 5000)]);
    let second = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    assert_ne!(second.manifest.segments, first.manifest.segments);
    let running = Running::start(bench.environment(), &api);
    api.give(second.ahead());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told: Vec<_> = api.applied().into_iter().map(|(_, _, request)| (request.end, request.names)).collect();
    let blocks = first.manifest.segments.iter().map(|segment| segment.blocks).sum();
    assert_eq!(told, [(BlockNo(blocks), Vec::new())], "up to where it was applied; the commit needs what lies there");
    verified(&api, &second).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_appliance_has_forgotten_need_not_be_told() {
    let mut bench = Bench::new(9000, 90);
    let api = Arc::new(FakeApi::default());
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let mut ahead = first.work.clone();
    ahead.manifest = None;
    let mut all: Vec<_> = first.manifest.segments.iter().map(stored).collect();
    let rest = all.split_off(1);
    assert!(!rest.is_empty(), "more than one segment");
    ahead.stored = all;
    let running = Running::start(bench.environment(), &api);
    api.give(ahead.clone());
    api.told(1).await;
    running.end().await;
    api.forget_applied();
    // It neither knows that the first was applied nor has it any more.
    ahead.stored = rest.clone();
    let running = Running::start(bench.environment(), &api);
    api.give(ahead);
    let told = api.told(rest.len()).await;
    assert_eq!(told, rest.into_iter().map(|segment| segment.name).collect::<Vec<_>>());
    verified(&api, &first).await;
    running.end().await;
}

#[test]
fn progress_is_shared_by_clones() {
    let progress = Progress::new();
    let watch = progress.watch();
    let disk = sluice_proto::DiskId([1; 16]);
    progress.clone().begin(
        disk,
        sluice_proto::CycleNo(2),
        crate::progress::Phase::Writing,
        sluice_proto::ByteCount(10),
    );
    progress.add(disk, sluice_proto::ByteCount(90));
    assert_eq!(watch.borrow()[&disk].done.0, 10);
}

#[tokio::test(start_paused = true)]
async fn a_remote_store_is_asked_once_for_each_segment() {
    let mut bench = Bench::new(30000, 87);
    let remote = Arc::new(crate::testkit::Remote::new(bench.store.clone()));
    let local: Arc<MemoryStore> = Arc::new(MemoryStore::new());
    let mut environment = bench.environment();
    environment.store = remote.clone();
    environment.spool = Spool::new(remote.clone(), Some(local.clone()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment, &api);
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    let before = remote.gets();
    // Too much to be held in memory between checking and writing.
    bench.source.bytes.resize(30000 * 512, 0);
    let plan = bench.source.scribble(&[Extent::new(0, 30000)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    verified(&api, &delta).await;
    assert_eq!(remote.gets() - before, delta.segments.len() as u64 + 1);
    running.end().await;
    use sluice_cache_store::CacheStore;
    assert!(local.list("").await.expect("listed").is_empty(), "the copies are gone");
}
