//! A process that ends at any operation on target or state, with or without the machine's power, and the one that comes after it.

use super::{SECTORS, scattered};
use crate::apply::Claim;
use crate::testkit::{Bench, Shipped, Then};
use sluice_proto::cycle::CycleKind;
use sluice_proto::wire::Outcome;

/// Applies until the crash that is set, or to the end; true where the end came first.
pub(super) async fn until_crash(bench: &Bench, shipped: &Shipped, stream: bool) -> bool {
    let life = async {
        let mut session = bench.session(&shipped.work).await;
        if stream {
            let work = shipped.ahead();
            while session.can_stream(&work)
                && session.stream(&work, &Claim::unrivalled(&work)).await.expect("no fault but the crash").is_some()
            {
            }
        }
        session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("no fault but the crash")
    };
    tokio::select! {
        biased;
        () = bench.faults.crashed() => false,
        report = life => {
            assert!(matches!(report.outcome, Outcome::Verified { .. }), "{:?}", report.outcome);
            true
        }
    }
}

/// Crashes at operation 0, 1, 2 and so on of one and the same life, each time starting again until it is done: the process
/// is killed, or the machine loses its power.
pub(super) async fn survives(bench: &Bench, shipped: &Shipped, stream: bool) {
    let before = bench.moment();
    for at in 0.. {
        for power_cut in [false, true] {
            bench.rewind(&before);
            bench.faults.set(at, Then::Crash);
            if until_crash(bench, shipped, stream).await {
                assert!(at > 5, "the crash must have come at {at} operations");
                bench.rewind(&before);
                return;
            }
            if power_cut {
                bench.target.cut_power();
            }
            // And once more, in the second life.
            bench.faults.set(at / 2, Then::Crash);
            let done = until_crash(bench, shipped, stream).await;
            if power_cut {
                bench.target.cut_power();
            }
            bench.faults.set(u64::MAX, Then::Nothing);
            assert!(done || until_crash(bench, shipped, stream).await);
            let when = format!("after a crash at operation {at}, with the power cut: {power_cut}");
            bench.target.cut_power();
            assert_eq!(bench.target.contents(), bench.source.padded(), "{when}");
            assert_ne!(bench.target.snapshot().writer, before.0.writer, "{when}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delta_survives_a_crash_at_every_operation() {
    let mut bench = Bench::new(SECTORS, 30);
    let last = super::initial(&mut bench).await;
    let plan = bench.source.scribble(&scattered());
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    survives(&bench, &delta, false).await;
}

#[tokio::test(start_paused = true)]
async fn an_initial_survives_a_crash_at_every_operation() {
    let mut bench = Bench::new(SECTORS, 31);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    survives(&bench, &shipped, false).await;
    survives(&bench, &shipped, true).await;
}
