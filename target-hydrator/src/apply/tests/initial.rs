//! Initial cycles that are applied while they arrive.

use super::{SECTORS, initial, reason, verified};
use crate::apply::{Claim, Session};
use crate::ledger::{AppliedGroup, State};
use crate::testkit::{Bench, Then, stored};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::wire::{Outcome, Work};
use sluice_proto::{BlockNo, Extent, SectorBitmap};

/// Applies all that can be applied ahead; gives how many segments were proven.
pub(super) async fn stream(session: &mut Session, work: &Work) -> usize {
    let mut proven = 0;
    while let Some(names) = session.stream(work, &Claim::unrivalled(work)).await.expect("no fault") {
        proven += names.len();
    }
    proven
}

#[tokio::test(start_paused = true)]
async fn segments_are_applied_as_they_arrive_and_not_again_at_the_commit() {
    let mut bench = Bench::new(SECTORS, 20);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    let mut session = bench.session(&work).await;
    assert!(!session.can_stream(&work));
    // The second one comes first: nothing can be done with it yet.
    work.stored = vec![stored(&shipped.manifest.segments[1])];
    assert!(session.can_stream(&work));
    assert_eq!(session.stream(&work, &Claim::unrivalled(&work)).await.expect("no error"), None);
    for entry in &shipped.manifest.segments {
        work.stored.push(stored(entry));
    }
    assert_eq!(stream(&mut session, &work).await, shipped.manifest.segments.len());
    assert_eq!(bench.target.contents(), bench.source.padded());
    bench.faults.set(u64::MAX, Then::Nothing);
    session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("an outcome");
    // Nothing was read or written again: a flush, the ledger, the leftover's removal.
    assert_eq!(bench.faults.done(), 3);
    assert_eq!(session.ledger().state, State::Idle);
    assert_eq!(session.ledger().verified.map(|v| v.cycle), Some(shipped.reference()));
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_behind_what_was_applied() {
    let mut bench = Bench::new(SECTORS, 21);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = vec![stored(&shipped.manifest.segments[0])];
    assert!(stream(&mut bench.session(&work).await, &work).await > 0);
    work.stored.push(stored(&shipped.manifest.segments[1]));
    let mut session = bench.session(&work).await;
    let State::Initial { applied, .. } = &session.ledger().state else { panic!("{:?}", session.ledger().state) };
    assert_eq!(AppliedGroup::end(applied), BlockNo(1));
    assert!(stream(&mut session, &work).await > 0);
    drop(session);
    verified(&bench, &shipped).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_another_attempt_replaced_is_applied_again() {
    let mut bench = Bench::new(SECTORS, 22);
    let plan = bench.source.full();
    let old = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = old.manifest.segments.iter().map(stored).collect();
    assert!(stream(&mut bench.session(&work).await, &work).await > 0);
    bench.source.scribble(&[Extent::new(9000, 100)]);
    let new = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    verified(&bench, &new).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_spoilt_segment_stops_streaming_and_fails_the_commit_only() {
    let mut bench = Bench::new(SECTORS, 23);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = shipped.manifest.segments.iter().map(stored).collect();
    work.stored[1].hash = work.stored[0].hash;
    let mut session = bench.session(&work).await;
    session.stream(&work, &Claim::unrivalled(&work)).await.expect_err("the hash is another");
    assert!(!session.can_stream(&work));
    session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("an outcome");
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_initial_is_no_base_for_a_delta() {
    let mut bench = Bench::new(SECTORS, 24);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = vec![stored(&shipped.manifest.segments[0])];
    assert!(stream(&mut bench.session(&work).await, &work).await > 0);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan.clone(), None).await;
    assert_eq!(reason(&super::apply(&bench, &delta).await).0, FailReason::TargetChanged);
    // A new initial is.
    let again = bench.source.ship(CycleKind::Initial, 3, plan, None).await;
    verified(&bench, &again).await;
}

#[tokio::test(start_paused = true)]
async fn an_initial_must_bring_the_whole_disk() {
    let mut bench = Bench::new(SECTORS, 25);
    let plan = SectorBitmap::from_extents([Extent::new(0, SECTORS - 1)]);
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let (why, detail) = reason(&super::apply(&bench, &shipped).await);
    assert_eq!(why, FailReason::ManifestCorrupt, "{detail}");
    initial(&mut bench).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_may_be_gone_from_the_store_also_after_a_restart() {
    for ahead in 1..=3 {
        let mut bench = Bench::new(SECTORS, 26);
        let plan = bench.source.full();
        let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
        let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
        work.stored = shipped.manifest.segments.iter().take(ahead).map(stored).collect();
        let mut session = bench.session(&work).await;
        assert_eq!(stream(&mut session, &work).await, ahead);
        for segment in &work.stored {
            bench.source.remove(&shipped, &segment.name).await;
        }
        // Another run of the hydrator has nothing to compare these with but the digest of the whole stream.
        drop(session);
        let mut end = shipped.clone();
        end.work.applied = BlockNo(work.stored.iter().map(|s| s.blocks).sum());
        verified(&bench, &end).await;
        assert_eq!(bench.target.contents(), bench.source.padded());
    }
}

/// After a power cut the agent, or the cache store, may have lost what it knew of a segment that was applied.
#[tokio::test(start_paused = true)]
async fn a_segment_that_is_sent_again_does_not_need_its_neighbours_to_be() {
    let mut bench = Bench::new(SECTORS, 30);
    let plan = bench.source.full();
    let old = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = old.manifest.segments.iter().take(3).map(stored).collect();
    assert_eq!(stream(&mut bench.session(&work).await, &work).await, 3);
    bench.source.scribble(&[Extent::new(3000, 100)]);
    let kept = old.manifest.segments.clone();
    let mut new = bench
        .source
        .ship_with(CycleKind::Initial, 1, plan, None, |manifest| {
            for position in [0, 2] {
                manifest.segments[position] = kept[position].clone();
            }
        })
        .await;
    for position in [0, 2] {
        bench.source.remove(&old, &kept[position].name()).await;
    }
    new.work.applied = BlockNo(kept.iter().take(3).map(|s| s.blocks).sum());
    verified(&bench, &new).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_and_then_changed_is_found_without_its_segments() {
    let mut bench = Bench::new(SECTORS, 27);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = vec![stored(&shipped.manifest.segments[0])];
    assert_eq!(stream(&mut bench.session(&work).await, &work).await, 1);
    bench.source.remove(&shipped, &work.stored[0].name).await;
    bench.target.tamper(|disk| disk[99] ^= 1);
    let report = super::apply(&bench, &shipped).await;
    let Outcome::Failed { reason, bitmaps_equal, .. } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!((reason, bitmaps_equal), (FailReason::DigestMismatch, Some(false)));
}

#[tokio::test(start_paused = true)]
async fn what_another_hydrator_applied_is_not_taken_for_ours() {
    let mut bench = Bench::new(SECTORS, 28);
    let plan = bench.source.full();
    let mut shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = shipped.manifest.segments.iter().skip(1).map(stored).collect();
    work.applied = BlockNo(1);
    assert!(!bench.session(&work).await.can_stream(&work));
    shipped.work.applied = BlockNo(1);
    let (why, detail) = reason(&super::apply(&bench, &shipped).await);
    assert_eq!(why, FailReason::TargetChanged);
    assert!(detail.contains("applied by a hydrator whose state is not here"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn blocks_of_zeros_are_proven_as_holes_and_as_data() {
    for there in [false, true] {
        let mut bench = Bench::new(SECTORS, 29);
        bench.source.bytes[1 << 20..3 << 20].fill(0);
        let plan = bench.source.full();
        let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
        let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
        work.stored = shipped.manifest.segments.iter().map(stored).collect();
        let mut session = bench.session(&work).await;
        // The first step writes, the second one reads back; in between a block may come to hold something.
        assert_eq!(session.stream(&work, &Claim::unrivalled(&work)).await.expect("written"), Some(Vec::new()));
        if there {
            bench.target.tamper(|disk| disk[(1 << 20) + 5] = 1);
            session.stream(&work, &Claim::unrivalled(&work)).await.expect_err("it is not what was written");
        } else {
            assert_eq!(stream(&mut session, &work).await, work.stored.len());
        }
        drop(session);
        verified(&bench, &shipped).await;
        assert_eq!(bench.target.contents(), bench.source.padded());
    }
}
