//! A source that grows goes on with its target: what differs is shipped, and its new end.

use super::*;
use crate::testing::Fault;
use sluice_proto::wire::Verdict;
use sluice_proto::{ByteCount, Generation, Sector};

/// Again no whole number of grains, nor of sectors.
const GROWN: u64 = SIZE + (5 << 20) + 1000;

/// Sectors that differ after the growth: some of the old range, some behind its end.
fn written() -> [Extent; 3] {
    [Extent::new(40, 3), Extent::new(SIZE / 512 + 100, 5), Extent::new(GROWN / 512, 1)]
}

/// A disk in step with its target, which nobody else writes to.
async fn in_step(scans: bool) -> World {
    let mut world = World::new(&[Initial, Delta]);
    world.scans = scans;
    world.api.inner.lock().busy = None;
    world.run().await.unwrap();
    world.stop = world.api.again();
    world
}

fn covers(plan: &SectorBitmap, extent: Extent) -> bool {
    (extent.start.0..extent.end().0).all(|sector| plan.contains(Sector(sector)))
}

impl World {
    fn grow_and_write(&self) {
        self.disk.grow(GROWN);
        written().iter().zip(20..).for_each(|(extent, seed)| self.disk.write(*extent, &mut Dice::new(seed)));
    }

    /// Runs agents, each after the one before has found the disk to have grown, until the script is at its end; the
    /// number of those that did, or nothing where the records failed.
    async fn lives(&mut self) -> Option<u32> {
        let agent = self.start(None);
        self.goes_on(agent).await
    }

    /// The same; the disk grows when the first agent has opened it, and `before` is done before that agent runs.
    async fn grows(&mut self, before: impl FnOnce(&Self)) -> Option<u32> {
        let agent = self.agent(None);
        self.grow_and_write();
        before(self);
        self.goes_on(agent).await
    }

    async fn goes_on(&mut self, mut agent: Result<DiskAgent, DiskError>) -> Option<u32> {
        for grown in 0..5 {
            let ended = match agent {
                Ok(agent) => agent.run().await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => return Some(grown),
                Err(DiskError::Grown { detail, .. }) => {
                    assert!(detail.contains(&SIZE.to_string()) && detail.contains(&GROWN.to_string()), "{detail}");
                }
                Err(DiskError::Journal { .. }) if self.records.is_dead() => return None,
                Err(error) => panic!("{error}"),
            }
            agent = self.start(None);
        }
        panic!("it grows without end")
    }

    fn check_grown(&self) {
        self.check_equal();
        let inner = self.api.inner.lock();
        let last = inner.done.last().unwrap();
        assert_eq!((last.disk_bytes, last.generation), (ByteCount(GROWN), Generation(2)));
        assert_eq!(inner.target.len() as u64, GROWN.next_multiple_of(512));
    }

    /// Why the cycle failed.
    fn failure(&self, cycle: u64) -> FailReason {
        let verdicts = &self.api.inner.lock().verdicts;
        match &verdicts[&CycleNo(cycle)] {
            Verdict::Failed { reason, .. } => *reason,
            Verdict::Verified { .. } => panic!("cycle {cycle} is verified"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_grew_is_compared_and_ships_what_differs() {
    for scans in [false, true] {
        let mut world = in_step(scans).await;
        world.order(&[Delta]);
        assert_eq!(world.grows(|_| ()).await, Some(1), "found at the cycle's beginning");
        assert_eq!(world.failure(3), FailReason::SourceChangedSize);
        assert_eq!(world.kinds()[2..], [Resync]);
        world.check_grown();
        let plan = world.api.inner.lock().done.last().unwrap().plan.clone();
        assert!(written().iter().all(|extent| covers(&plan, *extent)), "{plan:?}");
        // What was written, by whole grains, and the old end's grain: most of the disk is not sent.
        assert!(plan.count() <= SectorCount(4 * 128), "{} sectors", plan.count());
        world.order(&[Delta, Final]);
        world.stop = world.api.again();
        world.disk.write(Extent::new(GROWN / 512 - 2, 3), &mut Dice::new(9));
        assert_eq!(world.lives().await, Some(0));
        assert_eq!(world.kinds()[3..], [Delta, Final], "the whole disk's digest is that of the new size");
        world.check_grown();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_running_cycle_was_to_ship_goes_into_the_comparison() {
    for while_it_runs in [true, false] {
        let mut world = in_step(false).await;
        world.disk.write(Extent::new(3000, 700), &mut Dice::new(3));
        world.order(&[Delta]);
        world.api.inner.lock().put_delay = Duration::from_secs(3600);
        let agent = world.agent(None).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), agent.run()).await.is_err());
        world.grow_and_write();
        world.api.inner.lock().put_delay = Duration::ZERO;
        if while_it_runs {
            // An agent that has it open in the old size, as it would be had it not been stopped.
            let journal = testing::journal(&world.records, &world.disk).unwrap();
            let capture = testing::capture(&world.disk, &world.api, world.suite, 500);
            let tracker = Box::new(MemTracker::new(&world.disk, 1));
            let agent = DiskAgent::new(capture, tracker, None, journal, None, world.stop.clone());
            assert_eq!(world.goes_on(agent).await, Some(1));
        } else {
            assert_eq!(world.lives().await, Some(0));
        }
        let reason = if while_it_runs { FailReason::SourceChangedSize } else { FailReason::Abandoned };
        assert_eq!(world.failure(3), reason);
        assert_eq!(world.kinds()[2..], [Resync]);
        assert!(covers(&world.api.inner.lock().done[2].plan, Extent::new(3000, 700)), "its sectors were carried");
        world.check_grown();
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_grows_while_it_is_captured_is_not_committed_in_its_old_size() {
    let mut world = in_step(false).await;
    world.disk.write(Extent::new(3000, 700), &mut Dice::new(3));
    world.order(&[Final]);
    world.disk.set_read_delay(Duration::from_secs(1));
    let disk = world.disk.clone();
    let grower = async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        disk.grow(GROWN);
    };
    let (grown, ()) = tokio::join!(world.lives(), grower);
    assert_eq!(grown, Some(1));
    assert_eq!(world.failure(3), FailReason::SourceChangedSize);
    assert_eq!(world.kinds()[2..], [Resync]);
    world.order(&[Final]);
    world.stop = world.api.again();
    assert_eq!(world.lives().await, Some(0));
    assert_eq!(world.kinds()[3..], [Final]);
    world.check_grown();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_wherever_the_process_dies_while_the_disk_grows() {
    for after in [false, true] {
        for change in 0.. {
            let mut world = in_step(false).await;
            world.disk.write(Extent::new(3000, 700), &mut Dice::new(3));
            world.order(&[Delta]);
            if world.grows(|world| world.records.die_at(change, after)).await.is_some() {
                assert!(change > 8, "a growth has many changes, not {change}");
                break;
            }
            world.records.revive();
            assert!(world.lives().await.is_some());
            assert_eq!(world.kinds()[2..], [Resync], "dead at change {change}, after it: {after}");
            world.check_grown();
        }
    }
}

/// A comparison whose end nobody has heard when the disk grows: nothing was put back, and nobody says so.
#[tokio::test(start_paused = true)]
async fn a_disk_that_grew_is_compared_for_that_wherever_the_process_died() {
    for change in 0.. {
        let mut world = in_step(false).await;
        world.disk.doubt(Doubt::Passthrough);
        world.order(&[Delta]);
        world.records.die_at(change, false);
        if !world.agent_dies().await {
            assert!(change > 8, "a comparison has many changes, not {change}");
            break;
        }
        world.records.revive();
        world.grow_and_write();
        world.order(&[Delta]);
        assert!(world.lives().await.is_some());
        world.check_grown();
        let doubts = world.api.inner.lock().doubts.clone();
        assert!(doubts.iter().all(|doubt| !doubt.contains("put back")), "dead at change {change}: {doubts:?}");
        assert!(doubts.iter().any(|doubt| doubt.contains("has grown")), "dead at change {change}: {doubts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn any_call_may_be_lost_or_answered_in_vain_while_the_disk_grows() {
    for call in 1.. {
        for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Busy, Fault::SegmentsGone] {
            let mut world = in_step(false).await;
            world.order(&[Delta]);
            let fails = |world: &World| {
                let inner = &mut *world.api.inner.lock();
                inner.faults.insert(inner.calls + call, fault);
            };
            assert!(world.grows(fails).await.is_some());
            if !world.api.inner.lock().faults.is_empty() {
                assert!(call > 6, "a growth has many calls, not {call}");
                return;
            }
            assert_eq!(world.kinds()[2..], [Resync], "{fault:?} at call {call}");
            world.check_grown();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_shrank_goes_on_once_it_has_its_size_back() {
    let mut world = in_step(false).await;
    world.disk.set_size_now(SIZE - 512);
    world.disk.write(Extent::new(3000, 7), &mut Dice::new(3));
    world.order(&[Delta]);
    let disk = world.disk.clone();
    let mender = async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        disk.set_size_now(SIZE);
    };
    let (grown, ()) = tokio::join!(world.lives(), mender);
    assert_eq!(grown, Some(0));
    assert_eq!(world.failure(3), FailReason::SourceChangedSize);
    assert_eq!(world.kinds()[2..], [Resync]);
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn a_state_from_before_the_growth_says_so_and_does_not_wait() {
    let mut world = World::new(&[Initial]);
    world.api.inner.lock().target.resize(GROWN.next_multiple_of(512) as usize, 0);
    let ended = tokio::time::timeout(Duration::from_secs(60), world.run()).await.expect("no time makes it right");
    assert!(matches!(&ended, Err(DiskError::Refused { source, .. }) if source.code() == Some(ErrorCode::WrongState)));
}
