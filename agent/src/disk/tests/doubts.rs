//! Whatever makes a record of changes doubtful ends in a comparison, and in nothing else.

use super::*;
use crate::testing::Fault;
use sluice_proto::Digest;
use sluice_proto::wire::Verdict;

#[tokio::test(start_paused = true)]
async fn writes_that_nobody_tracked_are_found() {
    let mut world = in_step().await;
    world.disk.scribble(20, &mut Dice::new(8));
    world.disk.forget_tracking();
    world.order(&[Delta, Delta]);
    world.agent(Some(Doubt::OtherEpoch)).unwrap().run().await.unwrap();
    assert_eq!(world.kinds()[2..], [Resync, Delta]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn doubt_survives_until_a_comparison_was_planned() {
    let mut world = in_step().await;
    world.disk.scribble(20, &mut Dice::new(8));
    world.disk.forget_tracking();
    drop(world.agent(Some(Doubt::OtherEpoch)).unwrap());
    // The next start finds the tracking unbroken: that says nothing of what was before.
    world.order(&[Delta]);
    world.run().await.unwrap();
    assert_eq!(world.kinds()[2..], [Resync]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn an_agent_put_back_to_an_older_state_compares() {
    let mut world = in_step().await;
    world.disk.scribble(20, &mut Dice::new(8));
    let older = world.records.copy();
    world.api.inner.lock().put_delay = Duration::from_secs(3600);
    world.order(&[Delta, Delta]);
    let agent = world.agent(None).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
    // The tracker has let go of what the cycle's plan holds. Then the plan is gone.
    world.records = older;
    world.api.inner.lock().put_delay = Duration::ZERO;
    world.run().await.unwrap();
    assert_eq!(world.kinds()[2..], [Resync, Delta]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn doubt_in_the_middle_of_a_cycle_is_settled_after_it() {
    let mut world = in_step().await;
    world.disk.scribble(20, &mut Dice::new(8));
    world.api.inner.lock().put_delay = Duration::from_secs(3600);
    world.order(&[Delta, Delta]);
    let agent = world.agent(None).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
    assert!(testing::journal(&world.records, &world.disk).unwrap().plan().is_some());
    // A reboot: writes that nobody saw.
    world.disk.scribble(20, &mut Dice::new(9));
    world.disk.forget_tracking();
    world.api.inner.lock().put_delay = Duration::ZERO;
    world.agent(Some(Doubt::OtherEpoch)).unwrap().run().await.unwrap();
    assert_eq!(world.kinds()[2..], [Delta, Resync]);
    assert_eq!(world.api.inner.lock().done[2].consistency, Consistency::Fuzzy);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn doubt_at_the_first_start_is_settled_by_the_initial_cycle() {
    let mut world = World::new(&[Initial, Delta]);
    world.agent(Some(Doubt::Begun)).unwrap().run().await.unwrap();
    assert_eq!(world.kinds(), [Initial, Delta]);
}

#[tokio::test(start_paused = true)]
async fn doubt_at_a_swap_is_compared_at_once() {
    let mut world = in_step().await;
    world.disk.scribble(3, &mut Dice::new(8));
    world.disk.doubt(Doubt::Passthrough);
    world.go_on(&[Delta, Delta]).await.unwrap();
    assert_eq!(world.kinds()[2..], [Resync, Delta]);
    let inner = world.api.inner.lock();
    assert_eq!(inner.done[2].consistency, Consistency::Crash, "nothing was written since the swap");
    drop(inner);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_fails_is_doubted() {
    let mut world = in_step().await;
    world.disk.scribble(3, &mut Dice::new(8));
    world.disk.break_tracker(true);
    world.order(&[Delta, Delta]);
    let disk = world.disk.clone();
    let mender = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        disk.break_tracker(false);
    };
    let (result, ()) = tokio::join!(world.run(), mender);
    result.unwrap();
    assert_eq!(world.kinds()[2..], [Resync, Delta]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_doubt_is_followed_by_a_comparison_with_the_target() {
    for reason in [FailReason::BitmapMismatch, FailReason::DigestMismatch, FailReason::TargetChanged] {
        let mut world = in_step().await;
        world.api.inner.lock().failures.insert(3, reason);
        // Someone wrote to the target.
        world.api.inner.lock().target[100_000..200_000].fill(0x77);
        world.disk.scribble(3, &mut Dice::new(8));
        world.go_on(&[Delta]).await.unwrap();
        assert_eq!(world.kinds()[2..], [Resync], "{reason:?}");
        world.check_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_of_another_manifest_proves_nothing() {
    let mut world = in_step().await;
    world.disk.scribble(3, &mut Dice::new(8));
    world.order(&[Delta]);
    world.api.inner.lock().put_delay = Duration::from_secs(3600);
    let agent = world.agent(None).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
    // The appliance says of the cycle that is being shipped that it is verified.
    let cycle = CycleNo(3);
    let (manifest, target_digest) = (Digest([1; 32]), Digest([2; 32]));
    {
        let mut inner = world.api.inner.lock();
        inner.fail(cycle, FailReason::Other, "");
        let proof = Some(crate::testing::key().proof(manifest));
        inner.verdicts.insert(cycle, Verdict::Verified { cycle, manifest, target_digest, proof });
        inner.put_delay = Duration::ZERO;
    }
    world.run().await.unwrap();
    assert_eq!(world.kinds()[2..], [Resync]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn an_appliance_that_lies_about_a_verdict_makes_the_agent_let_go_of_nothing() {
    let other = sluice_proto::keys::DataKey::new([0x4c; 32]).proof(Digest([1; 32]));
    for proof in [None, Some(Digest([0; 32])), Some(other)] {
        let mut world = in_step().await;
        world.disk.scribble(3, &mut Dice::new(8));
        world.api.inner.lock().forged = Some(proof);
        world.go_on(&[Delta, Delta]).await.unwrap();
        assert!(world.api.inner.lock().forged.is_none(), "it has lied");
        assert_eq!(world.kinds()[2..], [Resync], "{proof:?}");
        world.check_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn a_comparison_does_not_give_way_to_itself() {
    let mut world = in_step().await;
    world.disk.scribble(3, &mut Dice::new(8));
    let mut seconds = Vec::new();
    for kind in [Delta, Resync] {
        let begun = tokio::time::Instant::now();
        world.go_on(&[kind]).await.unwrap();
        seconds.push(begun.elapsed().as_secs_f64());
    }
    assert_eq!(world.kinds()[2..], [Delta, Resync]);
    assert!(seconds[1] < seconds[0] + 0.5, "simulated seconds of a delta and of a comparison: {seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_can_t_be_read_fails_the_cycle_and_only_that() {
    let mut world = in_step().await;
    world.disk.write(Extent::new(2000, 200), &mut Dice::new(8));
    world.disk.set_bad(Some(Extent::new(2010, 1)));
    world.order(&[Delta]);
    let (disk, api) = (world.disk.clone(), world.api.clone());
    let mender = async {
        while api.inner.lock().verdicts.len() < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        disk.set_bad(None);
    };
    let (result, ()) = tokio::join!(world.run(), mender);
    result.unwrap();
    assert_eq!(world.kinds()[2..], [Delta]);
    world.check_equal();
    let verdicts = world.api.inner.lock().verdicts.clone();
    let failed = verdicts.values().filter_map(|verdict| match verdict {
        Verdict::Failed { reason, detail, .. } => Some((*reason, detail.contains("can't be read"))),
        Verdict::Verified { .. } => None,
    });
    assert!(failed.clone().count() >= 3 && failed.into_iter().all(|f| f == (FailReason::SourceRead, true)));
}

#[tokio::test(start_paused = true)]
async fn a_comparison_whose_source_can_t_be_read_is_given_up() {
    let mut world = in_step().await;
    world.disk.set_bad(Some(Extent::new(2010, 1)));
    world.order(&[Resync]);
    let (disk, api) = (world.disk.clone(), world.api.clone());
    let mender = async {
        while api.inner.lock().verdicts.len() < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        disk.set_bad(None);
    };
    let (result, ()) = tokio::join!(world.run(), mender);
    result.unwrap();
    assert_eq!(world.kinds()[2..], [Resync]);
}

#[tokio::test(start_paused = true)]
async fn a_source_of_another_size_is_refused() {
    let mut world = in_step().await;
    world.disk.set_size_now(SIZE - 512);
    world.order(&[Delta]);
    let agent = world.agent(None).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
    let verdicts = world.api.inner.lock().verdicts.clone();
    let last = verdicts.values().next_back().unwrap();
    let Verdict::Failed { reason, detail, .. } = last else { panic!("{last:?}") };
    assert_eq!(*reason, FailReason::SourceChangedSize);
    assert!(detail.contains("remove its state folder"), "{detail}");
    assert_eq!(world.kinds().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_vanishes_is_left_alone_until_it_is_back() {
    let mut world = in_step().await;
    world.disk.set_size_now(0);
    world.order(&[Delta]);
    let ended = world.run().await;
    let Err(DiskError::Source { detail, .. }) = ended else { panic!("{ended:?}") };
    assert!(detail.contains("vanished"), "{detail}");
    let verdicts = world.api.inner.lock().verdicts.clone();
    let last = verdicts.values().next_back().unwrap();
    assert!(matches!(last, Verdict::Failed { reason: FailReason::SourceRead, .. }), "{last:?}");

    world.disk.set_size_now(SIZE);
    world.disk.scribble(20, &mut Dice::new(8));
    world.disk.forget_tracking();
    world.order(&[Delta]);
    world.stop = world.api.again();
    let doubt = Doubt::DiskChanged("another disk under the same name".into());
    world.agent(Some(doubt)).unwrap().run().await.unwrap();
    // What was ordered while it was away, and the order after that.
    assert_eq!(world.kinds()[2..], [Resync, Delta]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn an_appliance_that_forgets_the_disk_or_its_generation_is_told_again() {
    for forgotten in [Fault::Unknown, Fault::OfOld] {
        let mut world = in_step().await;
        let registered = {
            let mut inner = world.api.inner.lock();
            let next = inner.calls + 2;
            inner.faults.insert(next, forgotten);
            inner.registered
        };
        world.disk.scribble(3, &mut Dice::new(8));
        world.go_on(&[Delta]).await.unwrap();
        // Once by the agent that begins, and once more.
        assert_eq!(world.api.inner.lock().registered, registered + 2, "{forgotten:?}");
        world.check_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_first_copy_has_brought_is_not_shipped_again() {
    for scans in [false, true] {
        let mut world = World::new(&[Initial]);
        world.scans = scans;
        world.api.inner.lock().busy = None;
        world.api.inner.lock().failures.insert(1, FailReason::SegmentCorrupt);
        world.run().await.unwrap();
        assert_eq!(world.kinds(), [Resync]);
        world.check_equal();
        // Half of the target was spoilt.
        let (planned, disk) = (world.api.inner.lock().done[0].plan.count(), world.disk.sectors());
        assert!(planned.0 < disk.0 * 2 / 3, "{planned} of {disk} sectors are shipped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delta_that_a_new_key_cuts_off_needs_no_comparison() {
    let mut verified = 0;
    for call in 1.. {
        let mut world = in_step().await;
        world.disk.scribble(20, &mut Dice::new(8));
        world.order(&[Delta, Delta]);
        let first = world.api.inner.lock().calls;
        world.api.inner.lock().faults.insert(first + call, Fault::LostAnswer);
        let (agent, api) = (world.agent(None).unwrap(), world.api.clone());
        // Stopped while it does not know what has become of its call.
        let lost = async move {
            while !api.inner.lock().faults.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            result = agent.run() => {
                result.unwrap();
                break;
            }
            () = lost => {}
        }
        let mut journal = testing::journal(&world.records, &world.disk).unwrap();
        journal.rotate(&testing::key(), testing::envelope(journal.identity().generation.next())).unwrap();
        verified += usize::from(journal.identity().cut_off.is_some());
        drop(journal);
        world.disk.scribble(20, &mut Dice::new(9));
        world.go_on(&[Delta]).await.unwrap();
        assert!(!world.kinds().contains(&Resync), "after call {call}: {:?}", world.kinds());
        world.check_equal();
    }
    assert!(verified > 0, "no delta was cut off behind its commit");
}

#[tokio::test(start_paused = true)]
async fn tracking_that_was_taken_away_is_compared_and_begins_anew() {
    let mut world = in_step().await;
    let epoch = |world: &World| testing::journal(&world.records, &world.disk).unwrap().identity().epoch;
    let before = epoch(&world);
    world.disk.scribble(20, &mut Dice::new(8));
    world.disk.forget_tracking();
    world.disk.detach_tracker();
    world.go_on(&[Delta, Delta]).await.unwrap();
    assert_eq!(world.kinds()[2..], [Resync, Delta]);
    assert_ne!(epoch(&world), before, "the new run is known, so that the next agent goes on with it");
    world.check_equal();
}

/// The new run of tracking must not be known without the doubt.
#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_as_tracking_begins_anew_compares() {
    for (change, after) in [(0, false), (0, true), (1, false), (1, true), (2, false), (2, true)] {
        let mut world = in_step().await;
        world.disk.scribble(20, &mut Dice::new(8));
        world.disk.forget_tracking();
        world.disk.detach_tracker();
        world.order(&[Delta, Delta]);
        let agent = world.agent(None).unwrap();
        world.records.die_at(change, after);
        assert!(matches!(agent.run().await, Err(DiskError::Journal { .. })), "at change {change}");
        world.records.revive();
        let known = testing::journal(&world.records, &world.disk).unwrap().identity().epoch;
        let found = MemTracker::new(&world.disk, 1).epoch();
        let doubt = (known != Some(found)).then_some(Doubt::OtherEpoch);
        assert_eq!(doubt.is_some(), (change, after) == (0, false));
        world.agent(doubt).unwrap().run().await.unwrap();
        assert_eq!(world.kinds()[2..], [Resync, Delta], "died at change {change}");
        world.check_equal();
    }
}
