//! Somebody writes to the target while a cycle is on its way to it.

use super::{SECTORS, apply, initial, reason, scattered, verified};
use crate::apply::{Claim, Environment, Session};
use crate::ledger::State;
use crate::spool::Spool;
use crate::testkit::{Bench, Remote, Shipped, Then};
use sluice_cache_store::MemoryStore;
use sluice_platform::system::OsEntropy;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::manifest::Manifest;
use sluice_proto::wire::{CycleRef, Work};
use sluice_proto::{CycleNo, Extent, SectorBitmap, SectorCount};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Applies the cycle; a byte of the target changes as its second segment is read to be checked.
async fn meddled(bench: &Bench, shipped: &Shipped) -> (FailReason, String) {
    let (target, second, done) = (bench.target.clone(), shipped.segments[1].clone(), AtomicBool::new(false));
    let meddle = move |key: &str| {
        if key == second && !done.swap(true, Ordering::Relaxed) {
            target.tamper(|disk| disk[99] ^= 1);
        }
    };
    let store = Arc::new(Remote::meanwhile(bench.store.clone(), meddle));
    let mut environment = bench.environment();
    environment.store = store.clone();
    environment.spool = Spool::new(store, Some(Arc::new(MemoryStore::new())));
    let mut session = crate::apply::Session::open(environment, &shipped.work).await.expect("the state opens");
    reason(&session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("an outcome"))
}

/// Work of a resync that wants the target's digests.
fn comparison(bench: &Bench, cycle: u64) -> Work {
    let mut work = bench.source.work(CycleKind::Resync, cycle, SectorCount(0), None);
    work.digests_wanted = true;
    work
}

/// A comparison and its resync settle what was done to the target.
async fn heals(bench: &mut Bench, cycle: u64) {
    let work = comparison(bench, cycle);
    bench.session(&work).await.digests(&work, &Claim::unrivalled(&work)).await.expect("delivered");
    let plan = bench.source.full();
    let resync = bench.source.ship(CycleKind::Resync, cycle, plan, None).await;
    verified(bench, &resync).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_changed_while_segments_are_checked_is_noticed() {
    let mut bench = Bench::new(SECTORS, 90);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    let mut before = bench.target.contents();
    let (why, detail) = meddled(&bench, &delta).await;
    assert_eq!(why, FailReason::TargetChanged, "{detail}");
    before[99] ^= 1;
    assert_eq!(bench.target.contents(), before, "the cycle has written nothing");
    let session = bench.session(&delta.work).await;
    assert_eq!(session.ledger().state, State::Idle);
    assert!(session.ledger().doubt.is_some());
    drop(session);
    let again = bench.source.ship(CycleKind::Delta, 3, delta.manifest.plan.clone(), Some(last)).await;
    assert_eq!(reason(&apply(&bench, &again).await).0, FailReason::TargetChanged);
    heals(&mut bench, 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_changed_while_the_ledger_is_written_is_noticed() {
    let mut bench = Bench::new(SECTORS, 91);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&[Extent::new(1000, 3)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    let mut before = bench.target.contents();
    // The first operation notes the sectors, the second that the cycle is begun.
    let target = bench.target.clone();
    bench.faults.aside(1, move || target.tamper(|disk| disk[99] ^= 1));
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetChanged);
    before[99] ^= 1;
    assert_eq!(bench.target.contents(), before, "the cycle has written nothing");
    bench.faults.set(0, Then::Nothing);
    heals(&mut bench, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_changed_after_its_comparison_is_noticed() {
    let mut bench = Bench::new(SECTORS, 92);
    initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    for (cycle, meddle_before) in [(2, true), (3, false)] {
        let work = comparison(&bench, cycle);
        bench.session(&work).await.digests(&work, &Claim::unrivalled(&work)).await.expect("delivered");
        let resync = bench.source.ship(CycleKind::Resync, cycle, plan.clone(), None).await;
        let why = match meddle_before {
            true => {
                bench.target.tamper(|disk| disk[99] ^= 1);
                reason(&apply(&bench, &resync).await).0
            }
            false => meddled(&bench, &resync).await.0,
        };
        assert_eq!(why, FailReason::TargetChanged, "cycle {cycle}");
    }
    heals(&mut bench, 4).await;
}

/// A delta that a crash cuts short in the middle of its writes.
async fn cut_short(bench: &mut Bench, last: CycleRef) -> Shipped {
    let plan = SectorBitmap::from_extents(scattered());
    bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    bench.faults.set(5, Then::Crash);
    let mut session = bench.session(&delta.work).await;
    let claim = Claim::unrivalled(&delta.work);
    tokio::select! {
        biased;
        () = bench.faults.crashed() => {}
        _ = session.apply(&delta.work, &claim) => panic!("the crash did not come"),
    }
    bench.faults.set(0, Then::Nothing);
    delta
}

/// A hydrator that was cut short in the middle of this delta, which is based on `last`; a clone of it, from before, has compared
/// and brought the target further.
async fn another_has_written(bench: &mut Bench, last: CycleRef) -> Shipped {
    let clone = bench.state.snapshot();
    let delta = cut_short(bench, last).await;
    let first = bench.state.snapshot();
    bench.state.restore(&clone);
    bench.source.scribble(&[Extent::new(7000, 40)]);
    heals(bench, 3).await;
    bench.state.restore(&first);
    delta
}

#[tokio::test(start_paused = true)]
async fn a_cycle_is_not_gone_on_with_where_another_hydrator_has_written_since() {
    let mut bench = Bench::new(SECTORS, 96);
    let last = initial(&mut bench).await;
    let delta = another_has_written(&mut bench, last).await;
    let further = bench.target.contents();
    for _ in 0..2 {
        assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetChanged);
    }
    assert_eq!(bench.target.contents(), further, "nothing of the old cycle was written");
    heals(&mut bench, 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_leads_to_nothing_does_not_hide_what_another_has_written() {
    let mut bench = Bench::new(SECTORS, 97);
    let last = initial(&mut bench).await;
    let delta = another_has_written(&mut bench, last).await;
    let work = comparison(&bench, 4);
    bench.session(&work).await.digests(&work, &Claim::unrivalled(&work)).await.expect("delivered");
    // The appliance is put back to before it, and gives the old cycle again, or one like it.
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetChanged);
    let like = bench.source.ship(CycleKind::Delta, 5, delta.manifest.plan.clone(), Some(last)).await;
    assert_eq!(reason(&apply(&bench, &like).await).0, FailReason::TargetChanged);
    heals(&mut bench, 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_fails_for_another_reason_does_not_hide_what_another_has_written() {
    let mut bench = Bench::new(SECTORS, 98);
    let last = initial(&mut bench).await;
    let delta = another_has_written(&mut bench, last).await;
    let other = |manifest: &mut Manifest| manifest.cycle = CycleNo(99);
    let plan = delta.manifest.plan.clone();
    let wrong = bench.source.ship_with(CycleKind::Delta, 4, plan.clone(), Some(last), other).await;
    assert_eq!(reason(&apply(&bench, &wrong).await).0, FailReason::ManifestCorrupt);
    let right = bench.source.ship(CycleKind::Delta, 5, plan, Some(last)).await;
    assert_eq!(reason(&apply(&bench, &right).await).0, FailReason::TargetChanged);
    heals(&mut bench, 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_a_crash_cut_short_is_gone_on_with_whatever_it_has_written() {
    let mut bench = Bench::new(SECTORS, 93);
    let last = initial(&mut bench).await;
    let delta = cut_short(&mut bench, last).await;
    let session = bench.session(&delta.work).await;
    assert!(matches!(session.ledger().state, State::Applying { cycle } if cycle.cycle == CycleNo(2)));
    assert_eq!(session.ledger().fingerprint, None);
    drop(session);
    verified(&bench, &delta).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_lost_says_nothing_of_a_target_that_was_changed_since() {
    let mut bench = Bench::new(SECTORS, 93);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    verified(&bench, &delta).await;
    bench.target.tamper(|disk| disk[99] ^= 1);
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetChanged);
    heals(&mut bench, 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_final_cycle_is_made_again_whatever_was_written_since() {
    let mut bench = Bench::new(SECTORS, 94);
    let last = initial(&mut bench).await;
    let end = bench.source.ship(CycleKind::Final, 2, SectorBitmap::new(), Some(last)).await;
    verified(&bench, &end).await;
    // It was booted from.
    bench.target.tamper(|disk| disk[99] ^= 1);
    verified(&bench, &end).await;
}

#[tokio::test(start_paused = true)]
async fn a_comparison_keeps_its_number_while_the_target_is_what_it_was() {
    let mut bench = Bench::new(SECTORS, 95);
    initial(&mut bench).await;
    let work = comparison(&bench, 2);
    let number = async |bench: &Bench| {
        // By a hydrator that was just started, with random numbers.
        let environment = Environment { entropy: Arc::new(OsEntropy::new()), ..bench.environment() };
        let mut session = Session::open(environment, &work).await.expect("the state opens");
        session.digests(&work, &Claim::unrivalled(&work)).await.expect("delivered");
        session.ledger().comparison.as_ref().expect("noted").number
    };
    let first = number(&bench).await;
    assert_eq!(number(&bench).await, first, "an agent that has some of its digests goes on with the others");
    bench.target.tamper(|disk| disk[99] ^= 1);
    let second = number(&bench).await;
    assert_ne!(second, first);
    // Planned by what was there before: what was changed since is in no plan.
    let plan = bench.source.scribble(&scattered());
    let planned_by = |number| move |manifest: &mut Manifest| manifest.comparison = Some(number);
    let old = bench.source.ship_with(CycleKind::Resync, 2, plan, None, planned_by(first)).await;
    assert_eq!(reason(&apply(&bench, &old).await).0, FailReason::TargetChanged);
    heals(&mut bench, 3).await;
}
