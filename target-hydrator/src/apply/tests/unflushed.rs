//! Flushes that fail: what they covered is written again, whatever is read from the target.

use super::{SECTORS, apply, initial, reason, verified};
use crate::apply::Claim;
use crate::testkit::{Bench, FakeApi};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::digests::{grain_digest, open_part};
use sluice_proto::wire::CycleRef;
use sluice_proto::{CycleNo, Extent, GRAIN_BYTES, GRAIN_SECTORS, SectorBitmap, SectorCount};
use std::sync::Arc;

/// The grains that a comparison finds to differ from the source.
pub(super) async fn differing(bench: &Bench, cycle: u64, last: CycleRef) -> SectorBitmap {
    let mut work = bench.source.work(CycleKind::Resync, cycle, SectorCount(0), Some(last));
    work.digests_wanted = true;
    let api = Arc::new(FakeApi::default());
    bench.session(&work).await.digests(&work, &Claim::of(&api, &work)).await.expect("compared");
    let part = api.part_of(work.disk, work.cycle, 0).await;
    let (_, digests) = open_part(&part, &bench.source.key, 0, bench.source.sectors()).expect("a part");
    let mut plan = SectorBitmap::new();
    for (number, grain) in bench.source.padded().chunks(GRAIN_BYTES as usize).enumerate() {
        if grain_digest(grain) != digests[number] {
            plan.set(Extent::new(number as u64 * GRAIN_SECTORS, grain.len() as u64 / 512));
        }
    }
    plan
}

#[tokio::test(start_paused = true)]
async fn a_comparison_after_a_failed_flush_brings_what_it_covered_again() {
    let mut bench = Bench::new(SECTORS, 170);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&[Extent::new(1000, 300), Extent::new(SECTORS - 1, 1)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    // Once for the cycle; what settles it afterwards works, as fsync(2) tells of a failure once.
    bench.faults.fail_flushes(1);
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetWrite);
    assert_eq!(bench.target.contents(), bench.source.padded(), "a reader sees what the medium may never get");
    let grains = plan.round_to_grains(bench.source.sectors());
    // After a restart too, and as often as it is asked.
    for cycle in 3..5 {
        assert_eq!(differing(&bench, cycle, last).await, grains);
    }
    let resync = bench.source.ship(CycleKind::Resync, 4, grains, Some(last)).await;
    let last = verified(&bench, &resync).await;
    assert!(differing(&bench, 5, last).await.is_empty(), "it was written again and flushed");
}

#[tokio::test(start_paused = true)]
async fn a_delta_that_brings_the_sectors_again_settles_it_too() {
    let mut bench = Bench::new(SECTORS, 171);
    let last = initial(&mut bench).await;
    let plan = bench.source.scribble(&[Extent::new(1000, 300)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    bench.faults.fail_flushes(2);
    assert_eq!(reason(&apply(&bench, &delta).await).0, FailReason::TargetWrite);
    let session = bench.session(&delta.work).await;
    assert_eq!(session.unflushed.lost(), plan);
    drop(session);
    let again = bench.source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    let last = verified(&bench, &again).await;
    assert_eq!(last.cycle, CycleNo(3));
    assert!(differing(&bench, 4, last).await.is_empty());
}
