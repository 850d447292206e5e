//! Writes that the tracker did not mark, and cycles for which it does not vouch.

use super::*;
use crate::testing::Fault;
use sluice_proto::wire::Verdict;

/// A disk with writes that nobody marked, of which the tracker knows only that there may be some.
async fn unmarked() -> World {
    let world = in_step().await;
    world.disk.scribble(20, &mut Dice::new(8));
    world.disk.forget_tracking();
    world.disk.doubt(Doubt::Passthrough);
    world.order(&[Delta, Delta]);
    world
}

/// Runs the agent, and does something to its disk while it reads for the first time.
async fn meanwhile(world: &mut World, deed: impl FnOnce(&MemDisk)) {
    world.disk.set_read_delay(Duration::from_secs(1));
    let disk = world.disk.clone();
    let other = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        deed(&disk);
    };
    let (result, ()) = tokio::join!(world.run(), other);
    result.unwrap();
}

fn consistency(world: &World, cycle: usize) -> Consistency {
    world.api.inner.lock().done[cycle].consistency
}

/// The tracker says it once: where the comparison is begun anew, nobody but the journal knows why.
#[tokio::test(start_paused = true)]
async fn doubt_at_a_swap_is_compared_whichever_call_is_lost() {
    for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Busy] {
        for call in 1.. {
            let mut world = unmarked().await;
            let before = world.api.inner.lock().calls;
            world.api.inner.lock().faults.insert(before + call, fault);
            world.run().await.unwrap();
            assert_eq!(world.kinds()[2..], [Resync, Delta], "{fault:?} at call {call}");
            world.check_equal();
            if !world.api.inner.lock().faults.is_empty() {
                assert!(call > 10, "two cycles are many calls, not {call}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn doubt_at_a_swap_is_compared_wherever_the_process_dies() {
    for after in [false, true] {
        for change in 0.. {
            let mut world = unmarked().await;
            let agent = world.agent(None).unwrap();
            world.records.die_at(change, after);
            let ended = agent.run().await;
            if ended.is_ok() {
                assert!(change > 10, "two cycles have many changes, not {change}");
                break;
            }
            assert!(matches!(ended, Err(DiskError::Journal { .. })), "{ended:?}");
            let when = format!("dead at change {change}, after it: {after}");
            world.check_nothing_is_lost(&when);
            world.run().await.unwrap();
            // Where the doubt outlived its plan, the second is a comparison too.
            assert_eq!((world.kinds().len(), world.kinds()[2]), (4, Resync), "{when}");
            world.check_equal();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cycle_in_which_marks_may_be_missing_is_not_one_instant() {
    let doubts: [(fn(&MemDisk), _); 2] =
        [(|disk| disk.doubt(Doubt::Passthrough), Resync), (MemDisk::miss_start, Delta)];
    for (doubt, next) in doubts {
        let mut world = in_step().await;
        world.disk.scribble(3, &mut Dice::new(8));
        world.order(&[Delta, Delta]);
        meanwhile(&mut world, doubt).await;
        assert_eq!(world.kinds()[2..], [Delta, next]);
        assert_eq!(consistency(&world, 2), Consistency::Fuzzy, "before a {next}");
        world.check_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_cycle_in_which_marks_may_be_missing_is_given_up() {
    let doubts: [fn(&MemDisk); 2] = [|disk| disk.doubt(Doubt::Passthrough), MemDisk::miss_start];
    for doubt in doubts {
        let mut world = in_step().await;
        world.order(&[Final]);
        meanwhile(&mut world, doubt).await;
        let verdicts = world.api.inner.lock().verdicts.clone();
        let failed = verdicts.values().filter_map(|verdict| match verdict {
            Verdict::Failed { reason, .. } => Some(*reason),
            Verdict::Verified { .. } => None,
        });
        assert_eq!(failed.collect::<Vec<_>>(), [FailReason::SourceNotAtRest]);
        assert_eq!(world.kinds()[2..], [Final], "ordered again, it succeeds");
        world.check_equal();
    }
}

/// What the tracker says once it works again says nothing of the time in between.
#[tokio::test(start_paused = true)]
async fn a_cycle_in_which_the_tracker_failed_is_not_one_instant_at_a_second_attempt() {
    let mut world = in_step().await;
    world.disk.scribble(3, &mut Dice::new(8));
    world.order(&[Delta, Delta]);
    let calls = world.api.inner.lock().calls;
    let puts = world.api.inner.lock().puts;
    // The disk is registered, the order taken, the cycle opened, its one segment sent; the commit finds that gone.
    world.api.inner.lock().faults.insert(calls + 5, Fault::SegmentsGone);
    let (disk, api) = (world.disk.clone(), world.api.clone());
    let mender = async {
        while !api.inner.lock().faults.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        disk.break_tracker(false);
    };
    tokio::join!(meanwhile(&mut world, |disk| disk.break_tracker(true)), mender);
    assert_eq!(world.api.inner.lock().puts, puts + 2, "the segment was sent again");
    assert_eq!(world.kinds()[2..], [Delta, Resync]);
    assert_eq!(consistency(&world, 2), Consistency::Fuzzy);
    world.check_equal();
}

/// Nothing is in doubt, and nothing was written: but who knows what the agent before this one read?
#[tokio::test(start_paused = true)]
async fn a_cycle_that_an_earlier_run_began_is_not_one_instant() {
    let mut world = in_step().await;
    world.disk.scribble(3, &mut Dice::new(8));
    world.order(&[Delta, Delta]);
    world.api.inner.lock().put_delay = Duration::from_secs(3600);
    let agent = world.agent(None).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
    world.api.inner.lock().put_delay = Duration::ZERO;
    world.run().await.unwrap();
    assert_eq!(world.kinds()[2..], [Delta, Delta]);
    assert_eq!([consistency(&world, 2), consistency(&world, 3)], [Consistency::Fuzzy, Consistency::Crash]);
    world.check_equal();
}
