//! What is read back comes from the medium, and what was proven or compared is still there when the power is back.

use super::crash::until_crash;
use super::unflushed::differing;
use super::{SECTORS, initial, scattered, verified};
use crate::apply::Claim;
use crate::testkit::{Bench, Shipped, Then};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::wire::Outcome;

async fn outcome(bench: &Bench, shipped: &Shipped, stream: bool) -> Outcome {
    let mut session = bench.session(&shipped.work).await;
    if stream {
        let work = shipped.ahead();
        // What goes wrong here is left to the commit.
        while session.can_stream(&work)
            && session.stream(&work, &Claim::unrivalled(&work)).await.is_ok_and(|names| names.is_some())
        {}
    }
    session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("an outcome").outcome
}

/// The target lies at operation 0, 1, 2 and so on of one and the same life: it writes something else, or loses what it is to
/// flush. Gives how often the cycle failed for that.
async fn is_found_out(bench: &Bench, shipped: &Shipped, stream: bool) -> u32 {
    let before = bench.moment();
    let mut failed = 0;
    for at in 0.. {
        bench.rewind(&before);
        bench.faults.set(at, Then::Lie);
        let outcome = outcome(bench, shipped, stream).await;
        let has_lied = bench.faults.done() > at;
        bench.target.cut_power();
        match outcome {
            Outcome::Verified { .. } => {
                assert_eq!(bench.target.contents(), bench.source.padded(), "verified, with a lie at operation {at}");
            }
            Outcome::Failed { reason, .. } => {
                assert_eq!(reason, FailReason::DigestMismatch, "a lie at operation {at}");
                failed += 1;
            }
        }
        if !has_lied {
            break;
        }
    }
    bench.rewind(&before);
    failed
}

#[tokio::test(start_paused = true)]
async fn a_medium_that_loses_what_it_flushes_is_found_out_by_a_delta() {
    let mut bench = Bench::new(SECTORS, 180);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    assert!(is_found_out(&bench, &delta, false).await > 1, "the writes and their flush");
}

#[tokio::test(start_paused = true)]
async fn a_medium_that_loses_what_it_flushes_is_found_out_by_a_first_copy() {
    let mut bench = Bench::new(SECTORS, 181);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    assert!(is_found_out(&bench, &shipped, false).await > 1, "the writes and their flush");
    // Here what is found while it arrives is written again at the commit.
    is_found_out(&bench, &shipped, true).await;
}

/// A process that was killed leaves in caches what it wrote: a comparison must not rest on that.
#[tokio::test(start_paused = true)]
async fn what_was_compared_after_a_crash_is_still_there_after_a_power_cut() {
    let mut bench = Bench::new(SECTORS, 182);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    let before = bench.moment();
    for at in 0.. {
        bench.rewind(&before);
        bench.faults.set(at, Then::Crash);
        if until_crash(&bench, &delta, false).await {
            assert!(at > 5, "the crash must have come at {at} operations");
            break;
        }
        bench.faults.set(u64::MAX, Then::Nothing);
        let last = bench.session(&delta.work).await.ledger().verified.map_or(last, |done| done.cycle);
        let grains = differing(&bench, 3, last).await;
        bench.target.cut_power();
        let resync = bench.source.ship(CycleKind::Resync, 3, grains, Some(last)).await;
        verified(&bench, &resync).await;
        assert_eq!(bench.target.contents(), bench.source.padded(), "killed at operation {at}");
    }
}
