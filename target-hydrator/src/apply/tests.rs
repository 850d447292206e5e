//! Cycles made by the real codecs, applied to a disk in memory.

mod ahead;
mod claimed;
mod crash;
mod flushed;
mod forged;
mod grown;
mod hostile;
mod impostor;
mod initial;
mod meddled;
mod resent;
mod unflushed;
mod unsaved;

use crate::apply::{Claim, Report};
use crate::ledger::State;
use crate::target::TargetErrorKind;
use crate::testkit::{Bench, Shipped, Then};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::wire::{CycleRef, Outcome};
use sluice_proto::{CycleNo, Digest, Extent, SectorBitmap};

/// Sectors of a small disk: three blocks and a bit, so that the last block is short.
const SECTORS: u64 = 3 * 8192 + 700;

async fn apply(bench: &Bench, shipped: &Shipped) -> Report {
    bench
        .session(&shipped.work)
        .await
        .apply(&shipped.work, &Claim::unrivalled(&shipped.work))
        .await
        .expect("an outcome")
}

async fn verified(bench: &Bench, shipped: &Shipped) -> CycleRef {
    let report = apply(bench, shipped).await;
    let Outcome::Verified { target_digest, proof, .. } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(target_digest, shipped.manifest.digest);
    let key = &bench.source.key;
    assert!(
        proof.is_some_and(|proof| key.is_proof(shipped.reference().manifest, proof)),
        "the agent can tell who says so"
    );
    assert_eq!(report.source_digest, Some(shipped.manifest.digest));
    shipped.reference()
}

fn reason(report: &Report) -> (FailReason, String) {
    match &report.outcome {
        Outcome::Failed { reason, detail, .. } => (*reason, detail.clone()),
        Outcome::Verified { .. } => panic!("it was verified"),
    }
}

async fn initial(bench: &mut Bench) -> CycleRef {
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    verified(bench, &first).await
}

fn scattered() -> [Extent; 5] {
    [
        Extent::new(0, 8),
        Extent::new(100, 1),
        Extent::new(1000, 300),
        Extent::new(9000, 9000),
        Extent::new(SECTORS - 1, 1),
    ]
}

#[tokio::test(start_paused = true)]
async fn initial_deltas_and_final_leave_the_source_on_the_target() {
    let mut bench = Bench::new(SECTORS, 1);
    let mut last = initial(&mut bench).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
    for cycle in 2..5 {
        let plan = bench.source.scribble(&scattered());
        let delta = bench.source.ship(CycleKind::Delta, cycle, plan, Some(last)).await;
        last = verified(&bench, &delta).await;
        assert_eq!(bench.target.contents(), bench.source.padded());
    }
    let plan = bench.source.scribble(&[Extent::new(5, 3)]);
    let end = bench.source.ship(CycleKind::Final, 5, plan, Some(last)).await;
    let report = apply(&bench, &end).await;
    let Outcome::Verified { whole_disk, .. } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(whole_disk, Some(Digest::of(&bench.target.contents())));
}

#[tokio::test(start_paused = true)]
async fn a_cycle_without_changes_is_verified_too() {
    let mut bench = Bench::new(SECTORS, 2);
    let last = initial(&mut bench).await;
    let empty = bench.source.ship(CycleKind::Delta, 2, SectorBitmap::new(), Some(last)).await;
    verified(&bench, &empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_lost_is_made_again_without_touching_the_target() {
    let mut bench = Bench::new(SECTORS, 3);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    verified(&bench, &delta).await;
    bench.faults.set(0, Then::Fail(TargetErrorKind::Io));
    verified(&bench, &delta).await;
    assert_eq!(bench.faults.done(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_lies_fails_the_cycle_and_names_the_sectors() {
    let mut bench = Bench::new(SECTORS, 4);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&[Extent::new(1000, 300)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    // The first two operations are the ledger's, then the target is marked.
    bench.faults.set(3, Then::Lie);
    let report = apply(&bench, &delta).await;
    let (why, detail) = reason(&report);
    assert_eq!(why, FailReason::DigestMismatch);
    assert!(detail.contains("sectors 1000..1300"), "{detail}");
    let Outcome::Failed { bitmaps_equal, target_digest, .. } = report.outcome else { unreachable!() };
    assert_eq!(bitmaps_equal, Some(false));
    assert!(target_digest.is_some_and(|d| d != delta.manifest.digest));
    // It is doubted now: a delta, even one that brings the sectors again, is no longer enough.
    let again = bench.source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    assert_eq!(reason(&apply(&bench, &again).await).0, FailReason::TargetChanged);
}

#[tokio::test(start_paused = true)]
async fn a_full_target_fails_the_cycle_and_the_next_one_that_brings_its_sectors_heals_it() {
    let mut bench = Bench::new(SECTORS, 5);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    bench.faults.set(5, Then::Fail(TargetErrorKind::Full));
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetFull);
    let session = bench.session(&delta.work).await;
    assert_eq!(session.ledger().state, State::Torn { cycle: CycleNo(2) });
    assert_eq!(session.ledger().verified.map(|v| v.cycle), Some(last));
    drop(session);

    let other = bench.source.scribble(&[Extent::new(50, 4)]);
    let without = bench.source.ship(CycleKind::Delta, 3, other.clone(), Some(last)).await;
    let (why, detail) = reason(&apply(&bench, &without).await);
    assert_eq!(why, FailReason::TargetChanged);
    assert!(detail.contains("sectors that a failed cycle wrote are not in this one"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_carries_the_torn_sectors_is_taken() {
    let mut bench = Bench::new(SECTORS, 6);
    let last = initial(&mut bench).await;
    let mut plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    bench.faults.set(6, Then::Fail(TargetErrorKind::Io));
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetWrite);
    plan.union_with(&bench.source.scribble(&[Extent::new(50, 4)]));
    let carried = bench.source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    verified(&bench, &carried).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_somebody_changed_is_noticed() {
    let mut bench = Bench::new(SECTORS, 7);
    let last = initial(&mut bench).await;
    bench.target.tamper(|disk| disk[99] ^= 1);
    let plan = bench.source.scribble(&[Extent::new(1000, 3)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    let before = bench.target.contents();
    let (why, detail) = reason(&apply(&bench, &delta).await);
    assert_eq!(why, FailReason::TargetChanged);
    assert!(detail.contains("somebody changed the target"), "{detail}");
    assert_eq!(bench.target.contents(), before);
}
