//! The owner of a disk with a scripted appliance, under a paused clock, in one thread.

mod cuts;
mod doubts;
mod grown;
mod stops;
mod unmarked;

use super::*;
use crate::capture::CaptureOptions;
use crate::compare::LocalTable;
use crate::testing::{self, Dice, Fake, MemDisk, MemRecords, MemTracker};
use crate::tracker::scan::ScanTracker;
use sluice_proto::SectorBitmap;
use sluice_proto::cycle::{Consistency, CycleKind, FailReason};
use sluice_proto::header::Suite;
use sluice_proto::{Extent, SectorCount};

/// Not a whole number of grains, nor of sectors.
const SIZE: u64 = (6 << 20) + 65536 * 3 + 512 * 5 + 100;

/// A machine: its disk, what is durable on it, and the appliance that it talks to.
struct World {
    disk: MemDisk,
    api: Arc<Fake>,
    stop: watch::Receiver<bool>,
    records: MemRecords,
    digests: MemRecords,
    scans: bool,
    suite: Suite,
    /// What a segment holds.
    segment_bytes: usize,
    runs: u64,
}

impl World {
    fn new(orders: &[CycleKind]) -> Self {
        let disk = MemDisk::filled(SIZE, 1);
        let (api, stop) = Fake::new(&disk, orders);
        api.inner.lock().busy = Some((disk.clone(), Dice::new(77)));
        let (records, digests) = Default::default();
        let segment_bytes = CaptureOptions::default().segment_bytes;
        Self { disk, api, stop, records, digests, scans: false, suite: Suite::Aes256Gcm, segment_bytes, runs: 0 }
    }

    /// The agent is started; the kernel's tracking went on meanwhile, or there is doubt that it did.
    fn agent(&mut self, doubt: Option<Doubt>) -> Result<DiskAgent, DiskError> {
        self.records.revive();
        self.digests.revive();
        self.start(doubt)
    }

    /// The same with records that may fail.
    fn start(&mut self, doubt: Option<Doubt>) -> Result<DiskAgent, DiskError> {
        self.runs += 1;
        self.disk.open_anew();
        let failed = |source| DiskError::Journal { disk: testing::DISK, source };
        let mut journal = testing::journal(&self.records, &self.disk).map_err(failed)?;
        if journal.identity().size < self.disk.bytes() {
            // As `Protection::start` does it.
            let envelope = testing::envelope(journal.identity().generation.next());
            journal.grow(self.disk.bytes(), &testing::key(), envelope).map_err(failed)?;
        }
        let mut capture = testing::capture(&self.disk, &self.api, self.suite, self.runs);
        capture.options.segment_bytes = self.segment_bytes;
        let (tracker, table): (Box<dyn Tracker>, _) = match self.scans {
            true => {
                let records = Box::new(self.digests.clone());
                (Box::new(ScanTracker), Some(LocalTable::new(records, self.disk.sectors())))
            }
            false => (Box::new(MemTracker::new(&self.disk, 1)), None),
        };
        DiskAgent::new(capture, tracker, doubt, journal, table, self.stop.clone())
    }

    /// Runs the agent until the script is at its end.
    async fn run(&mut self) -> Result<(), DiskError> {
        self.agent(None)?.run().await
    }

    fn kinds(&self) -> Vec<CycleKind> {
        self.api.inner.lock().done.iter().map(|manifest| manifest.kind).collect()
    }

    fn order(&self, orders: &[CycleKind]) {
        self.api.inner.lock().orders.extend(orders);
    }

    /// The script goes on with these.
    async fn go_on(&mut self, orders: &[CycleKind]) -> Result<(), DiskError> {
        self.order(orders);
        self.stop = self.api.again();
        self.run().await
    }

    /// Every sector that differs is known to somebody who will ship it, or somebody will compare.
    fn check_nothing_is_lost(&self, when: &str) {
        if self.api.inner.lock().done.is_empty() {
            return;
        }
        let journal = testing::journal(&self.records.copy(), &self.disk).expect("opens");
        if journal.identity().doubt.is_some() || self.disk.is_doubted() {
            return;
        }
        let mut known = self.disk.tracked();
        known.union_with(journal.carry());
        if let Some((_, bitmap)) = journal.plan() {
            known.union_with(bitmap);
        }
        let mut lost = differing(&self.disk.data(), &self.api.inner.lock().target);
        lost.subtract(&known);
        assert!(lost.is_empty(), "{lost:?} lost, {when}");
    }

    fn check_equal(&self) {
        let inner = self.api.inner.lock();
        let lost = differing(&self.disk.data(), &inner.target);
        assert!(lost.is_empty(), "source and target differ in {lost:?}");
    }
}

/// Sectors that are not the same on both.
fn differing(source: &[u8], target: &[u8]) -> SectorBitmap {
    let pairs = source.chunks(512).zip(target.chunks(512)).enumerate();
    pairs.filter(|(_, (a, b))| a != b).map(|(i, _)| Extent::new(i as u64, 1)).collect()
}

use CycleKind::{Delta, Final, Initial, Resync};

/// A disk in step with its target.
async fn in_step() -> World {
    let mut world = World::new(&[Initial, Delta]);
    world.run().await.unwrap();
    world.api.inner.lock().busy = None;
    world.stop = world.api.again();
    world
}

#[tokio::test(start_paused = true)]
async fn a_disk_s_whole_life() {
    let mut world = World::new(&[Initial, Delta, Delta, Delta, Resync, Delta, Final]);
    // The second delta fails, half written.
    world.api.inner.lock().failures.insert(3, FailReason::TargetWrite);
    world.run().await.unwrap();
    assert_eq!(world.kinds(), [Initial, Delta, Delta, Delta, Resync, Delta, Final]);
    world.check_equal();
    let journal = testing::journal(&world.records, &world.disk).unwrap();
    assert!(journal.plan().is_none() && journal.carry().is_empty());
    assert_eq!(journal.identity().verified.unwrap().cycle, CycleNo(8));
    let inner = world.api.inner.lock();
    assert_eq!(inner.digests_asked, 1, "only the resync asked");
    let last = inner.done.last().unwrap();
    assert_eq!((last.consistency, last.disk_bytes.0), (Consistency::Crash, SIZE));
    assert!(last.whole_disk.is_some());
    let sectors = |i: usize| inner.done[i].plan.count();
    assert_eq!(sectors(0), world.disk.sectors());
    assert!(sectors(1) < SectorCount(sectors(0).0 / 2), "a delta ships what was written");
}

#[tokio::test(start_paused = true)]
async fn sectors_of_a_failed_cycle_are_in_the_next() {
    let mut world = World::new(&[Initial]);
    world.api.inner.lock().busy = None;
    world.run().await.unwrap();
    let (one, two) = (Extent::new(40, 3), Extent::new(9000, 70));
    world.disk.write(one, &mut Dice::new(1));
    world.api.inner.lock().failures.insert(2, FailReason::TargetFull);
    world.disk.write(two, &mut Dice::new(2));
    world.go_on(&[Delta]).await.unwrap();
    let plan = world.api.inner.lock().done.last().unwrap().plan.clone();
    assert_eq!(plan, SectorBitmap::from_extents([one, two]));
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn a_cycle_is_crash_consistent_only_where_it_is_one_instant() {
    let mut world = World::new(&[Initial]);
    world.api.inner.lock().busy = None;
    world.run().await.unwrap();
    let consistency = |world: &World| world.api.inner.lock().done.last().unwrap().consistency;
    assert_eq!(consistency(&world), Consistency::Crash, "nothing was written");
    // As a device seems to be that was made read-only under its file system: it does not outvote the tracker.
    world.disk.set_at_rest(true);
    // Written while it is captured: elsewhere, then in what is captured.
    for (at, expected) in [(5000, Consistency::Crash), (40, Consistency::Fuzzy)] {
        world.disk.write(Extent::new(40, 3), &mut Dice::new(1));
        world.order(&[Delta]);
        world.stop = world.api.again();
        world.disk.set_read_delay(Duration::from_secs(1));
        let disk = world.disk.clone();
        let writer = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            disk.write(Extent::new(at, 1), &mut Dice::new(9));
        };
        let (result, ()) = tokio::join!(world.run(), writer);
        result.unwrap();
        assert_eq!(consistency(&world), expected, "sector {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_cycle_needs_a_disk_at_rest() {
    let mut world = World::new(&[Initial, Final]);
    world.disk.set_read_delay(Duration::from_millis(100));
    let disk = world.disk.clone();
    let api = world.api.clone();
    // Outside of what the final cycle ships, but while it runs.
    let writer = async {
        while api.inner.lock().done.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        api.inner.lock().busy = None;
        tokio::time::sleep(Duration::from_millis(200)).await;
        disk.write(Extent::new(3, 1), &mut Dice::new(4));
    };
    let (result, ()) = tokio::join!(world.run(), writer);
    result.unwrap();
    let inner = world.api.inner.lock();
    let failed = inner.verdicts.values().filter_map(|verdict| match verdict {
        sluice_proto::wire::Verdict::Failed { reason, detail, .. } => Some((*reason, detail.clone())),
        _ => None,
    });
    let failed: Vec<_> = failed.collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].0, FailReason::SourceNotAtRest);
    assert!(failed[0].1.contains("unmount") && !failed[0].1.contains("this agent"), "{}", failed[0].1);
    drop(inner);
    assert_eq!(world.kinds(), [Initial, Final], "ordered again, it succeeds");
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn a_scanned_disk_needs_no_digests_of_the_target_but_after_doubt() {
    let mut world = World::new(&[Initial, Delta, Delta]);
    world.scans = true;
    world.run().await.unwrap();
    let asked = |world: &World| world.api.inner.lock().digests_asked;
    assert_eq!((world.kinds(), asked(&world)), (vec![Initial, Delta, Delta], 0));
    // Another process goes on with the table of the last verified cycle.
    world.go_on(&[Delta]).await.unwrap();
    assert_eq!(asked(&world), 0);
    // A comparison with the target makes the table anew.
    world.go_on(&[Resync, Delta]).await.unwrap();
    assert_eq!(asked(&world), 1);
    // A table that is gone is no harm.
    world.digests = MemRecords::default();
    world.go_on(&[Delta, Delta]).await.unwrap();
    assert_eq!(asked(&world), 2);
    world.api.inner.lock().busy = None;
    world.go_on(&[Delta, Final]).await.unwrap();
    assert_eq!(asked(&world), 2);
    assert!(world.api.inner.lock().done.iter().all(|manifest| manifest.consistency == Consistency::Fuzzy));
    world.check_equal();
}

#[tokio::test(start_paused = true)]
async fn a_scan_of_a_disk_at_rest_is_crash_consistent() {
    let mut world = World::new(&[Initial]);
    world.scans = true;
    world.api.inner.lock().busy = None;
    world.disk.set_at_rest(true);
    world.run().await.unwrap();
    assert_eq!(world.api.inner.lock().done[0].consistency, Consistency::Crash);
    world.check_equal();
}

/// A device's flag can be set and cleared at any time.
#[tokio::test(start_paused = true)]
async fn a_scan_of_a_disk_that_came_to_rest_or_left_it_is_fuzzy() {
    for at_rest in [true, false] {
        let mut world = World::new(&[Initial]);
        world.scans = true;
        world.api.inner.lock().busy = None;
        world.disk.set_at_rest(at_rest);
        world.disk.set_read_delay(Duration::from_secs(1));
        let disk = world.disk.clone();
        let other = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            disk.set_at_rest(!at_rest);
        };
        let (result, ()) = tokio::join!(world.run(), other);
        result.unwrap();
        assert_eq!(world.api.inner.lock().done[0].consistency, Consistency::Fuzzy, "at rest at first: {at_rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_cycle_that_the_agent_itself_disturbs_says_so() {
    let mut world = World::new(&[Initial, Final]);
    // The disk is written all the time, as the agent writes to its state.
    let mut agent = world.agent(None).unwrap();
    agent.state_on_source = Some("/var/lib/sluice".into());
    let disk = world.disk.clone();
    let api = world.api.clone();
    let writer = async {
        let failed = || {
            api.inner.lock().verdicts.values().find_map(|verdict| match verdict {
                sluice_proto::wire::Verdict::Failed { detail, .. } => Some(detail.clone()),
                _ => None,
            })
        };
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            disk.write(Extent::new(3, 1), &mut Dice::new(4));
            if let Some(detail) = failed() {
                return detail;
            }
        }
    };
    world.disk.set_read_delay(Duration::from_millis(100));
    let detail = tokio::select! {
        ended = agent.run() => panic!("no cycle failed: {ended:?}"),
        detail = writer => detail,
    };
    for word in ["this agent", "/var/lib/sluice", "tmpfs"] {
        assert!(detail.contains(word), "{word}: {detail}");
    }
}
