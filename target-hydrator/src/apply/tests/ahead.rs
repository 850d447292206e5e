//! Cycles whose segments are checked while they arrive.

use super::{SECTORS, reason, scattered};
use crate::apply::{Claim, Session};
use crate::testkit::{Bench, Shipped, stored};
use sluice_cache_store::CacheStore;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::wire::{Outcome, Work};
use sluice_proto::{Extent, SectorBitmap};

/// A hydrator with an initial cycle behind it.
async fn scene(seed: u64) -> (Bench, Session, Shipped) {
    let mut bench = Bench::new(SECTORS, seed);
    let plan = bench.source.full();
    let first = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let mut session = bench.session(&first.work).await;
    session.apply(&first.work, &Claim::unrivalled(&first.work)).await.expect("an outcome");
    (bench, session, first)
}

/// The work as it was before the commit, with all segments stored.
fn before_commit(shipped: &Shipped) -> Work {
    let stored = shipped.manifest.segments.iter().map(stored).collect();
    Work { manifest: None, state: sluice_proto::cycle::State::Shipping, stored, ..shipped.work.clone() }
}

async fn check(session: &mut Session, work: &Work) {
    while session.can_check(work) {
        session.check_ahead(work).await.expect("the store is there");
    }
}

async fn applied(session: &mut Session, shipped: &Shipped) -> Outcome {
    session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("an outcome").outcome
}

#[tokio::test(start_paused = true)]
async fn what_was_checked_and_held_is_not_fetched_again() {
    let (mut bench, mut session, first) = scene(130).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
    let work = before_commit(&delta);
    let before = bench.target.contents();
    check(&mut session, &work).await;
    assert_eq!(bench.target.contents(), before, "nothing is written before the commit");
    for segment in &work.stored {
        bench.source.remove(&delta, &segment.name).await;
    }
    let outcome = applied(&mut session, &delta).await;
    assert!(matches!(outcome, Outcome::Verified { .. }), "{outcome:?}");
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_segment_of_another_attempt_is_checked_at_the_commit() {
    let (mut bench, mut session, first) = scene(131).await;
    let plan = bench.source.scribble(&scattered());
    let old = bench.source.ship(CycleKind::Delta, 2, plan.clone(), Some(first.reference())).await;
    check(&mut session, &before_commit(&old)).await;
    // The same sectors, read anew.
    bench.source.scribble(&scattered());
    let new = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
    let outcome = applied(&mut session, &new).await;
    assert!(matches!(outcome, Outcome::Verified { .. }), "{outcome:?}");
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn checked_sectors_that_the_manifest_does_not_plan_are_refused() {
    let (mut bench, mut session, first) = scene(132).await;
    let plan = bench.source.scribble(&[Extent::new(1000, 300)]);
    let other = SectorBitmap::from_extents([Extent::new(1001, 300)]);
    let change = |manifest: &mut sluice_proto::manifest::Manifest| manifest.plan = other;
    let delta = bench.source.ship_with(CycleKind::Delta, 2, plan, Some(first.reference()), change).await;
    let before = bench.target.contents();
    check(&mut session, &before_commit(&delta)).await;
    let report = session.apply(&delta.work, &Claim::unrivalled(&delta.work)).await.expect("an outcome");
    assert_eq!(reason(&report).0, FailReason::SegmentCorrupt);
    assert_eq!(bench.target.contents(), before);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_is_spoilt_or_gone_is_left_to_the_commit() {
    for gone in [false, true] {
        let (mut bench, mut session, first) = scene(133).await;
        let plan = bench.source.scribble(&scattered());
        let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
        let work = before_commit(&delta);
        let key = &delta.segments[0];
        let good = bench.store.get(key, 1 << 20).await.expect("stored");
        let spoilt: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
        match gone {
            true => bench.store.delete(key).await.expect("deleted"),
            false => bench.store.put(key, spoilt.into()).await.expect("stored"),
        }
        check(&mut session, &work).await;
        assert!(!session.can_check(&work), "it is looked at once");
        let report = session.apply(&delta.work, &Claim::unrivalled(&delta.work)).await.expect("an outcome");
        assert_eq!(reason(&report).0, FailReason::SegmentCorrupt);
    }
}

#[tokio::test(start_paused = true)]
async fn the_room_of_a_cycle_that_never_came_is_given_back() {
    const ALL: u64 = 32 << 20;
    let (mut bench, mut session, first) = scene(134).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
    let work = before_commit(&delta);
    let budget = session.env.budget.clone();
    check(&mut session, &work).await;
    session.forget_ahead(Some(&work));
    assert!(budget.hold(ALL).is_none(), "it is held for the commit");
    let mut next = work.clone();
    next.cycle.0 += 1;
    session.forget_ahead(Some(&next));
    assert!(budget.hold(ALL).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_key_or_a_target_that_is_not_known_waits_for_the_commit() {
    let (mut bench, session, first) = scene(135).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
    let work = before_commit(&delta);
    assert!(session.can_check(&work));
    assert!(!bench.session(&work).await.can_check(&work), "its target is not open");
    let mut rotated = work.clone();
    rotated.generation.0 += 1;
    assert!(!session.can_check(&rotated));
    assert!(!session.can_check(&Work { kind: CycleKind::Initial, ..work.clone() }));
    assert!(!session.can_check(&Work { manifest: delta.work.manifest, ..work.clone() }));
    assert!(!session.can_check(&Work { stored: Vec::new(), ..work }));
}

#[tokio::test(start_paused = true)]
async fn data_between_zeros_takes_the_memory_of_its_block_and_no_more() {
    let (mut bench, mut session, first) = scene(136).await;
    // By turns data and zeros: 96 runs of each in one block.
    let extents: Vec<Extent> = (0..192).map(|i| Extent::new(i * 128, 8)).collect();
    let plan = bench.source.scribble(&extents);
    for extent in extents.iter().step_by(2) {
        bench.source.bytes[extent.start.offset() as usize..extent.end().offset() as usize].fill(0);
    }
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(first.reference())).await;
    let work = before_commit(&delta);
    let memory = crate::apply::ahead::memory_of(&mut session, &work).await;
    assert!(memory <= 2 << 20, "{memory} bytes for a block of {}", delta.work.sectors.bytes());
    let outcome = applied(&mut session, &delta).await;
    assert!(matches!(outcome, Outcome::Verified { .. }), "{outcome:?}");
    assert_eq!(bench.target.contents(), bench.source.padded());
}
