//! A source that has grown: compared with the target as it is, which grows when the cycle is applied.

use super::crash::{survives, until_crash};
use super::{SECTORS, apply, initial, reason, scattered, verified};
use crate::apply::{Claim, Report};
use crate::ledger::State;
use crate::target::TargetErrorKind;
use crate::testkit::{Bench, FakeApi, Shipped, Then};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::digests::{ZERO_GRAIN, grain_count, grain_digest, open_part};
use sluice_proto::keys::DataKey;
use sluice_proto::wire::{CycleRef, Outcome, Work};
use sluice_proto::{ByteCount, CycleNo, Digest, Extent, GRAIN_BYTES, Generation, SectorBitmap, SectorCount};
use std::sync::Arc;

/// Sectors after the growth: it does not begin with a grain.
pub(super) const GROWN: u64 = SECTORS + 3 * 8192 + 33;

fn tail() -> [Extent; 3] {
    [Extent::new(7, 70), Extent::new(SECTORS - 2, 5), Extent::new(GROWN - 9, 9)]
}

/// The source grows and is written to, in the generation that belongs to the new size; what differs from the target.
fn grow(bench: &mut Bench) -> SectorBitmap {
    bench.source.bytes.resize(GROWN as usize * 512, 0);
    bench.source.generation = Generation(2);
    bench.source.key = DataKey::new([11; 32]);
    bench.source.scribble(&tail())
}

fn comparison(bench: &Bench, cycle: u64) -> Work {
    let mut work = bench.source.work(CycleKind::Resync, cycle, SectorCount(0), None);
    work.digests_wanted = true;
    work
}

pub(super) async fn compared(bench: &Bench, cycle: u64) -> Vec<Digest> {
    let (work, api) = (comparison(bench, cycle), Arc::new(FakeApi::default()));
    bench.session(&work).await.digests(&work, &Claim::of(&api, &work)).await.expect("delivered");
    let part = api.part_of(work.disk, work.cycle, 0).await;
    let disk = bench.source.sectors();
    open_part(&part, &bench.source.key, 0, disk).expect("a part").1
}

/// A target that holds a cycle, and the comparison after its source has grown.
pub(super) async fn scene(seed: u64) -> (Bench, Shipped, CycleRef) {
    let mut bench = Bench::new(SECTORS, seed);
    let last = initial(&mut bench).await;
    let plan = grow(&mut bench);
    compared(&bench, 2).await;
    let resync = bench.source.ship(CycleKind::Resync, 2, plan, Some(last)).await;
    (bench, resync, last)
}

#[tokio::test(start_paused = true)]
async fn the_target_grows_with_its_source_and_goes_on() {
    let mut bench = Bench::new(SECTORS, 110);
    let last = initial(&mut bench).await;
    let before = bench.target.contents();
    let plan = grow(&mut bench);
    let digests = compared(&bench, 2).await;
    assert_eq!(bench.target.contents(), before, "a comparison changes nothing");
    assert_eq!(digests.len() as u64, grain_count(SectorCount(GROWN)));
    let mut padded = before;
    padded.resize(GROWN as usize * 512, 0);
    let expected: Vec<_> = padded.chunks(GRAIN_BYTES as usize).map(grain_digest).collect();
    assert!(digests == expected && digests.ends_with(&[ZERO_GRAIN]), "what it lacks is zeros");

    let resync = bench.source.ship(CycleKind::Resync, 2, plan, Some(last)).await;
    let last = verified(&bench, &resync).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
    let session = bench.session(&resync.work).await;
    let ledger = session.ledger();
    assert_eq!((ledger.source_size, ledger.growing), (ByteCount(GROWN * 512), None));
    assert_eq!((&ledger.state, &ledger.doubt), (&State::Idle, &None));
    drop(session);
    let plan = bench.source.scribble(&[Extent::new(GROWN - 1, 1)]);
    let delta = bench.source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    let last = verified(&bench, &delta).await;
    let end = bench.source.ship(CycleKind::Final, 4, SectorBitmap::new(), Some(last)).await;
    let Report { outcome: Outcome::Verified { whole_disk, .. }, .. } = apply(&bench, &end).await else {
        panic!("not verified")
    };
    assert_eq!(whole_disk, Some(Digest::of(&bench.source.padded())), "of the whole new size");
}

#[tokio::test(start_paused = true)]
async fn growing_survives_a_crash_at_every_operation() {
    let (bench, resync, _) = scene(111).await;
    survives(&bench, &resync, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_growth_that_was_cut_short_is_finished_before_anything_else() {
    let (mut bench, resync, _) = scene(112).await;
    // The target is marked; the ledger says that it grows; then the target has grown, and then the ledger would say so.
    for (cycle, at) in [(3, 3), (5, 4)] {
        let before = bench.moment();
        bench.faults.set(at, Then::Crash);
        assert!(!until_crash(&bench, &resync, false).await);
        bench.faults.set(u64::MAX, Then::Nothing);
        let session = bench.session(&resync.work).await;
        assert_eq!(session.ledger().growing, Some(ByteCount(GROWN * 512)), "after operation {at}");
        assert_eq!(session.ledger().source_size, ByteCount(SECTORS * 512));
        drop(session);
        // Another cycle comes first: it is compared with the target in its new size.
        compared(&bench, cycle).await;
        assert_eq!(bench.target.contents().len() as u64, GROWN * 512);
        let plan = bench.source.full();
        let next = bench.source.ship(CycleKind::Resync, cycle, plan, None).await;
        verified(&bench, &next).await;
        assert_eq!(bench.target.contents(), bench.source.padded());
        bench.rewind(&before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_grows_again_while_its_target_grows() {
    let (mut bench, resync, _) = scene(113).await;
    bench.faults.set(4, Then::Crash);
    assert!(!until_crash(&bench, &resync, false).await);
    bench.faults.set(u64::MAX, Then::Nothing);
    bench.source.bytes.resize((GROWN as usize + 5000) * 512, 7);
    bench.source.generation = Generation(3);
    compared(&bench, 3).await;
    let mut plan = resync.manifest.plan.clone();
    plan.set(Extent::new(GROWN, 5000));
    let next = bench.source.ship(CycleKind::Resync, 3, plan, None).await;
    verified(&bench, &next).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_cycle_of_the_old_size_is_not_applied_to_the_new_one() {
    let mut bench = Bench::new(SECTORS, 114);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let old = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    grow(&mut bench);
    compared(&bench, 3).await;
    let resync = bench.source.ship(CycleKind::Resync, 3, SectorBitmap::full(SectorCount(GROWN)), None).await;
    verified(&bench, &resync).await;
    let before = bench.target.contents();
    let (why, detail) = reason(&apply(&bench, &old).await);
    assert_eq!(why, FailReason::Abandoned, "{detail}");
    // The same with the word of an appliance that mixes them up.
    let shorter = |m: &mut sluice_proto::manifest::Manifest| m.disk_bytes = ByteCount(SECTORS * 512);
    let plan = SectorBitmap::from_extents([Extent::new(7, 70)]);
    let mixed = bench.source.ship_with(CycleKind::Delta, 4, plan, Some(resync.reference()), shorter).await;
    assert_eq!(reason(&apply(&bench, &mixed).await).0, FailReason::SourceChangedSize);
    assert_eq!(bench.target.contents(), before);
}

#[tokio::test(start_paused = true)]
async fn a_target_grows_on_nothing_but_the_agent_s_own_word() {
    let mut bench = Bench::new(SECTORS, 115);
    let last = initial(&mut bench).await;
    let before = bench.moment();
    let plan = bench.source.scribble(&[Extent::new(7, 70)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    // The appliance names another size than the sealed manifest.
    let mut lie = delta.clone();
    lie.work.size = ByteCount(GROWN * 512);
    assert_eq!(reason(&apply(&bench, &lie).await).0, FailReason::SourceChangedSize);
    let mut work = comparison(&bench, 3);
    work.size = ByteCount(GROWN * 512);
    bench.session(&work).await.digests(&work, &Claim::unrivalled(&work)).await.expect("delivered");
    let session = bench.session(&work).await;
    assert_eq!((session.ledger().source_size, session.ledger().growing), (ByteCount(SECTORS * 512), None));
    drop(session);
    assert_eq!(bench.moment().0, before.0, "the target is as it was");
    // And the manifest of another cycle, though it is sealed.
    let plan = grow(&mut bench);
    let other = |m: &mut sluice_proto::manifest::Manifest| m.cycle = CycleNo(9);
    let other = bench.source.ship_with(CycleKind::Resync, 4, plan, Some(last), other).await;
    assert_eq!(reason(&apply(&bench, &other).await).0, FailReason::ManifestCorrupt);
    assert_eq!(bench.target.contents().len() as u64, SECTORS * 512);
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_was_half_applied_when_its_source_grew_stays_marked() {
    let mut bench = Bench::new(SECTORS, 116);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    bench.faults.set(6, Then::Crash);
    assert!(!until_crash(&bench, &delta, false).await);
    bench.faults.set(u64::MAX, Then::Nothing);
    grow(&mut bench);
    // Not compared: the cycle follows from nothing, but its target grows.
    let mut plan = SectorBitmap::from_extents(tail());
    plan.union_with(&delta.manifest.plan);
    let next = bench.source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    let (why, detail) = reason(&apply(&bench, &next).await);
    assert_eq!(why, FailReason::TargetChanged);
    assert!(detail.contains("the source has grown"), "{detail}");
    let session = bench.session(&next.work).await;
    assert_eq!(session.ledger().state, State::Torn { cycle: CycleNo(2) });
    drop(session);
    compared(&bench, 4).await;
    let plan = bench.source.full();
    let resync = bench.source.ship(CycleKind::Resync, 4, plan, Some(last)).await;
    verified(&bench, &resync).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_can_t_grow_fails_the_cycle_and_grows_later() {
    let (mut bench, resync, last) = scene(117).await;
    // The target is marked between two operations of the ledger.
    bench.faults.set(3, Then::Fail(TargetErrorKind::Full));
    assert_eq!(reason(&apply(&bench, &resync).await).0, FailReason::TargetFull);
    assert!(bench.session(&resync.work).await.ledger().growing.is_some());
    compared(&bench, 3).await;
    let plan = resync.manifest.plan.clone();
    let again = bench.source.ship(CycleKind::Resync, 3, plan, Some(last)).await;
    verified(&bench, &again).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_somebody_changed_is_not_grown_over_that() {
    let (bench, resync, _) = scene(118).await;
    bench.target.tamper(|disk| disk[99] ^= 1);
    assert_eq!(reason(&apply(&bench, &resync).await).0, FailReason::TargetChanged);
    assert_eq!(bench.target.contents().len() as u64, SECTORS * 512);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_shrank_is_refused_and_nothing_lost() {
    let (mut bench, resync, _) = scene(119).await;
    let last = verified(&bench, &resync).await;
    let before = bench.target.contents();
    let mut work = comparison(&bench, 3);
    work.size.0 -= 512;
    let error = bench.session(&work).await.digests(&work, &Claim::unrivalled(&work)).await.expect_err("it shrank");
    let text = format!("{error:?}");
    assert!(text.contains("never shrinks") && text.contains("SourceChangedSize"), "{text}");
    let plan = bench.source.scribble(&[Extent::new(5, 5)]);
    let delta = bench.source.ship(CycleKind::Delta, 4, plan, Some(last)).await;
    assert_ne!(bench.target.contents(), bench.source.padded());
    assert_eq!(bench.target.contents(), before);
    verified(&bench, &delta).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

/// A hydrator that was cloned from another, and met the disk again after that one had grown its target.
#[tokio::test(start_paused = true)]
async fn what_another_hydrator_has_grown_is_compared_as_it_is() {
    let (mut bench, resync, _) = scene(120).await;
    let old = bench.moment();
    let last = verified(&bench, &resync).await;
    bench.state.restore(&old.1);
    let digests = compared(&bench, 3).await;
    let expected: Vec<_> = bench.source.padded().chunks(GRAIN_BYTES as usize).map(grain_digest).collect();
    assert!(digests == expected, "nothing differs, also not behind the old size");
    let plan = bench.source.scribble(&[Extent::new(9, 2)]);
    let next = bench.source.ship(CycleKind::Resync, 3, plan, Some(last)).await;
    verified(&bench, &next).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
    assert_eq!(bench.session(&next.work).await.ledger().source_size, ByteCount(GROWN * 512));
}

#[tokio::test(start_paused = true)]
async fn what_another_hydrator_writes_while_a_target_grows_is_compared() {
    let (mut bench, resync, _) = scene(121).await;
    let before = bench.moment();
    // It has grown, which the ledger does not say yet.
    bench.faults.set(4, Then::Crash);
    assert!(!until_crash(&bench, &resync, false).await);
    bench.faults.set(u64::MAX, Then::Nothing);
    let first = bench.state.snapshot();
    bench.state.restore(&before.1);
    let whole = async |bench: &mut Bench, cycle| {
        compared(bench, cycle).await;
        let plan = bench.source.full();
        let next = bench.source.ship(CycleKind::Resync, cycle, plan, None).await;
        verified(bench, &next).await;
        assert_eq!(bench.target.contents(), bench.source.padded());
    };
    bench.source.scribble(&[Extent::new(500, 4), Extent::new(GROWN - 30, 2)]);
    whole(&mut bench, 3).await;
    bench.state.restore(&first);
    assert_eq!(reason(&apply(&bench, &resync).await).0, FailReason::TargetChanged);
    whole(&mut bench, 4).await;
}
