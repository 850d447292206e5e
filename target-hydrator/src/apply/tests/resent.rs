//! A segment that is sent again after it was applied, its neighbours gone from the store, and a process that ends meanwhile.

use super::crash::until_crash;
use super::initial::stream;
use crate::testkit::{Bench, Then, stored};
use sluice_proto::BlockNo;
use sluice_proto::cycle::CycleKind;

#[tokio::test(start_paused = true)]
async fn what_was_told_as_applied_stays_known_wherever_the_commit_is_cut_off() {
    // More segments than one batch has, all of which one group holds.
    let blocks = 40;
    let mut bench = Bench::new(blocks * sluice_proto::BLOCK_SECTORS, 61);
    let plan = bench.source.full();
    let old = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = old.manifest.segments.iter().map(stored).collect();
    assert_eq!(stream(&mut bench.session(&work).await, &work).await, blocks as usize);
    let kept = old.manifest.segments.clone();
    let again = |manifest: &mut sluice_proto::manifest::Manifest| manifest.segments[1..].clone_from_slice(&kept[1..]);
    let mut new = bench.source.ship_with(CycleKind::Initial, 1, plan, None, again).await;
    for segment in &kept {
        bench.source.remove(&old, &segment.name()).await;
    }
    new.work.applied = BlockNo(blocks);
    let before = bench.moment();
    for at in 0.. {
        bench.rewind(&before);
        bench.faults.set(at, Then::Crash);
        let done = until_crash(&bench, &new, false).await;
        bench.faults.set(u64::MAX, Then::Nothing);
        // The next life finds it all, and no reason to compare.
        assert!(done || until_crash(&bench, &new, false).await);
        assert_eq!(bench.target.contents(), bench.source.padded(), "after a crash at operation {at}");
        if done {
            assert!(at > 3, "the crash must have come at {at} operations");
            return;
        }
    }
}
