//! Two machines that have the same disk, one of which was stopped in the middle of a cycle: it writes no older state over a newer one.

use super::grown::{GROWN, compared, scene};
use super::{SECTORS, initial};
use crate::apply::{Claim, Environment, Session, Stop};
use crate::driver::Hydrator;
use crate::spool::Spool;
use crate::testkit::{Bench, FakeApi, Remote, Shipped, stored};
use sluice_proto::cycle::CycleKind;
use sluice_proto::wire::{CycleRef, Outcome};
use sluice_proto::{Extent, Generation, SectorBitmap, SectorCount};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Sectors of a disk whose changes are written in three batches.
const LARGE: u64 = 12 * 8192;

/// A target that is what its source was, and a delta of all of it.
async fn changed_wholly(sectors: u64) -> (Bench, Shipped) {
    let mut bench = Bench::new(sectors, 70);
    let last: CycleRef = initial(&mut bench).await;
    let plan: SectorBitmap = bench.source.full();
    bench.source.scribble(&[Extent::new(0, sectors)]);
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    (bench, delta)
}

#[tokio::test(start_paused = true)]
async fn what_was_given_to_another_in_the_middle_of_a_cycle_is_not_written_on() {
    let (bench, delta) = changed_wholly(LARGE).await;
    let (old, new) = (bench.target.contents(), bench.source.padded());
    // Right before the second batch of three.
    lost(&bench, &delta, 2).await;
    let (now, third) = (bench.target.contents(), new.len() / 3);
    assert!(now[..third] == new[..third], "the first batch is written");
    assert!(now[third..] == old[third..], "and nothing else");
    bench.target.cut_power();
    assert!(
        bench.target.contents() == old,
        "nor is that one flushed: the tables of an image would come over the other's"
    );
}

#[tokio::test(start_paused = true)]
async fn what_took_long_to_fetch_is_not_written_where_the_disk_was_given_to_another_meanwhile() {
    let mut bench = Bench::new(SECTORS, 73);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let old = bench.target.contents();
    let store = Arc::new(Remote::slow(bench.source.store.clone(), Duration::from_secs(60)));
    let environment = Environment { spool: Spool::new(store.clone(), None), store, ..bench.environment() };
    let api = Arc::new(FakeApi::default());
    // Before and after the target is noted to be made, before the batch, and, a minute later, before the first write.
    api.be_claimed_by_another(4);
    let mut session = Session::open(environment, &shipped.work).await.expect("the state opens");
    let result = session.apply(&shipped.work, &Claim::of(&api, &shipped.work)).await;
    assert!(matches!(result, Err(Stop::Lost)), "{result:?}");
    assert!(bench.target.contents() == old);
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_that_was_given_to_another_is_not_written_on() {
    for committed in [false, true] {
        let mut bench = Bench::new(SECTORS, 71);
        let plan = bench.source.full();
        let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
        let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
        work.stored = shipped.manifest.segments.iter().map(stored).collect();
        let old = bench.target.contents();
        let api = Arc::new(FakeApi::default());
        api.be_claimed_by_another(1);
        let claim = Claim::of(&api, &work);
        let mut session = bench.session(&work).await;
        let result = match committed {
            true => session.apply(&shipped.work, &claim).await.map(|_| ()),
            false => session.stream(&work, &claim).await.map(|_| ()),
        };
        assert!(matches!(result, Err(Stop::Lost)), "{result:?}");
        assert!(bench.target.contents() == old);
    }
}

/// Applies the cycle; another claims the disk right before the lease is asked after for the `nth` time.
async fn lost(bench: &Bench, shipped: &Shipped, nth: u32) {
    let api = Arc::new(FakeApi::default());
    api.be_claimed_by_another(nth);
    let claim = Claim::of(&api, &shipped.work);
    let result = bench.session(&shipped.work).await.apply(&shipped.work, &claim).await;
    assert!(matches!(result, Err(Stop::Lost)), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_was_given_to_another_neither_grows_nor_loses_what_the_other_grew_it_by() {
    let (mut bench, resync, _) = scene(72).await;
    let old = bench.target.contents();
    lost(&bench, &resync, 1).await;
    assert!(bench.target.contents() == old, "not grown");
    // The other grows it, and ends its cycle there.
    bench.target.grow(SectorCount(GROWN));
    bench.target.tamper(|bytes| bytes[SECTORS as usize * 512..].fill(3));
    let others = bench.target.contents();
    // Behind the growing, before what is new is made zeros.
    lost(&bench, &resync, 2).await;
    assert!(bench.target.contents() == others);
    // Nor once the disk is ours again, for another cycle.
    let ours = bench.moment();
    compared(&bench, 3).await;
    assert!(bench.target.contents() == others);
    // Nor where the other has grown it further since, with the source.
    bench.rewind(&ours);
    bench.target.grow(SectorCount(GROWN + 999));
    bench.target.tamper(|bytes| bytes[GROWN as usize * 512..].fill(4));
    let others = bench.target.contents();
    bench.source.bytes.resize((GROWN + 999) as usize * 512, 0);
    bench.source.generation = Generation(3);
    compared(&bench, 4).await;
    assert!(bench.target.contents() == others);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nobody_says_whose_the_disk_is() {
    let (bench, delta) = changed_wholly(SECTORS).await;
    let (old, new) = (bench.target.contents(), bench.source.padded());
    let api = Arc::new(FakeApi::default());
    api.be_unreachable(u32::MAX);
    let environment = bench.environment();
    let mut troubles = environment.progress.troubles();
    let mut claim = Claim::of(&api, &delta.work);
    claim.progress = environment.progress.clone();
    let mut session = Session::open(environment, &delta.work).await.expect("the state opens");
    let applying = session.apply(&delta.work, &claim);
    let watching = async {
        let troubled = troubles.wait_for(|disks| disks.contains_key(&delta.work.disk)).await;
        assert!(troubled.expect("it runs")[&delta.work.disk].why.contains("whose the disk is"));
        assert!(bench.target.contents() == old, "not yet");
        api.be_unreachable(0);
    };
    let (report, ()) = tokio::join!(applying, watching);
    assert!(matches!(report.expect("an outcome").outcome, Outcome::Verified { .. }));
    assert!(bench.target.contents() == new);
    assert!(troubles.borrow().is_empty(), "it gets on");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_given_to_another_is_left_alone_for_a_minute() {
    let (bench, delta) = changed_wholly(LARGE).await;
    let api = Arc::new(FakeApi::default());
    api.be_claimed_by_another(2);
    let (stop, stopped) = watch::channel(false);
    let hydrator = tokio::spawn(Hydrator::new(bench.environment(), api.clone()).run(stopped));
    let begun = Instant::now();
    api.give(delta.work.clone());
    let verdict = api.verdict_of(delta.work.disk, delta.work.cycle).await;
    assert!(begun.elapsed() >= Duration::from_secs(60), "the other may be at work");
    assert!(matches!(verdict.outcome, Outcome::Verified { .. }), "as the other has done nothing: {verdict:?}");
    assert!(bench.target.contents() == bench.source.padded());
    stop.send_replace(true);
    hydrator.await.expect("it ended by itself");
}
