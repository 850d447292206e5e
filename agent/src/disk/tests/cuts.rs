//! Cut connections, lost segments and dead processes, at every point of a disk's life.

use super::*;
use crate::testing::Fault;

const LIFE: [CycleKind; 5] = [Initial, Delta, Delta, Resync, Final];

fn world() -> World {
    let mut world = World::new(&LIFE);
    world.suite = Suite::Plain;
    // The first delta fails, half written.
    world.api.inner.lock().failures.insert(2, FailReason::TargetWrite);
    world
}

async fn calls_of_a_life() -> u64 {
    let mut world = world();
    world.run().await.unwrap();
    world.api.inner.lock().calls
}

#[tokio::test(start_paused = true)]
async fn any_call_may_be_lost_or_answered_in_vain() {
    let calls = calls_of_a_life().await;
    assert!(calls > 20, "{calls}");
    for call in 1..=calls {
        for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Busy] {
            let mut world = world();
            world.api.inner.lock().faults.insert(call, fault);
            world.run().await.unwrap();
            assert_eq!(world.kinds(), LIFE, "{fault:?} at call {call}");
            world.check_equal();
        }
    }
}

/// A life is the same whichever of its calls that befalls.
async fn bears_at_any_call(fault: Fault) {
    let calls = calls_of_a_life().await;
    for call in 1..=calls {
        let mut world = world();
        world.api.inner.lock().faults.insert(call, fault);
        world.run().await.unwrap();
        assert_eq!(world.kinds(), LIFE, "{fault:?} at call {call}");
        world.check_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn segments_that_the_appliance_lost_are_sent_again() {
    bears_at_any_call(Fault::SegmentsGone).await;
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_the_appliance_forgot_is_opened_again() {
    bears_at_any_call(Fault::PlanForgotten).await;
}

/// A state that is put back from between the two would be trusted.
#[tokio::test(start_paused = true)]
async fn a_release_that_was_cut_off_and_the_next_have_two_numbers() {
    let mut cut_off = 0;
    for change in 0.. {
        let mut world = in_step().await;
        world.disk.scribble(20, &mut Dice::new(8));
        world.order(&[Delta]);
        world.records.die_at(change, true);
        if !world.agent_dies().await {
            break;
        }
        let released = |world: &World| MemTracker::new(&world.disk, 1).released();
        world.records.revive();
        let between = world.records.copy();
        let noted = testing::journal(&between, &world.disk).unwrap().identity().released;
        cut_off += u64::from(noted > released(&world));
        world.go_on(&[Delta]).await.unwrap();
        assert!(released(&world) > noted, "dead at change {change}");

        world.records = between;
        world.disk.scribble(20, &mut Dice::new(9));
        world.go_on(&[Delta]).await.unwrap();
        assert!(world.kinds()[2..].contains(&Resync), "dead at change {change}: {:?}", world.kinds());
        world.check_equal();
    }
    assert!(cut_off > 0, "no release was cut off");
}

#[tokio::test(start_paused = true)]
async fn no_sector_is_lost_wherever_the_process_dies() {
    for after in [false, true] {
        for change in 0.. {
            let mut world = world();
            world.agent(None).unwrap();
            world.records.die_at(change, after);
            let died = world.agent_dies().await;
            if !died {
                assert!(change > 40, "a life has many changes, not {change}");
                break;
            }
            world.check_nothing_is_lost(&format!("dead at change {change}, after it: {after}"));
            world.run().await.unwrap();
            assert_eq!(world.kinds(), LIFE, "dead at change {change}, after it: {after}");
            world.check_equal();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scanned_disk_loses_nothing_wherever_the_process_dies() {
    for table in [false, true] {
        for change in 0.. {
            let mut world = world();
            world.scans = true;
            world.agent(None).unwrap();
            let records = if table { &world.digests } else { &world.records };
            records.die_at(change, change % 2 == 0);
            let died = world.agent_dies().await;
            if !died && !table {
                break;
            }
            if table && !world.digests.is_dead() {
                break;
            }
            if died {
                world.run().await.unwrap();
            }
            assert_eq!(world.kinds(), LIFE, "dead at change {change}, of the table: {table}");
            world.check_equal();
        }
    }
}

impl World {
    /// Runs an agent whose records fail at some point; true where that ended it.
    pub(super) async fn agent_dies(&mut self) -> bool {
        match self.start(None) {
            Ok(agent) => matches!(agent.run().await, Err(DiskError::Journal { .. })),
            Err(_) => true,
        }
    }
}
