//! Which of the disks that wait may start a cycle now.

use super::Priority;
use crate::DiskId;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// The admission queue of one appliance: at most so many cycles at once; the highest priority first, and among equals the
/// one that waits longest.
///
/// Initial cycles may run for days and there may be many, so they never take the last slot: it is kept for deltas and
/// finals, and a delta waits for short cycles only. With a single slot there is nothing to keep; then a delta waits for
/// all initial cycles.
#[derive(Clone, Debug)]
pub struct Admission {
    slots: NonZeroUsize,
    /// Disks whose cycle was admitted and is not finished.
    running: BTreeMap<DiskId, Priority>,
    waiting: BTreeMap<DiskId, Waiting>,
    /// The number of the next arrival.
    arrivals: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    priority: Priority,
    arrival: u64,
}

impl Admission {
    /// A queue that lets `slots` cycles run at once.
    pub fn new(slots: NonZeroUsize) -> Self {
        Self { slots, running: BTreeMap::new(), waiting: BTreeMap::new(), arrivals: 0 }
    }

    /// Changes how many cycles may run at once. Cycles that run already go on.
    pub fn set_slots(&mut self, slots: NonZeroUsize) {
        self.slots = slots;
    }

    /// Lets `disk` wait for a cycle. If it waits already it keeps its place, with the new priority. A disk whose cycle runs
    /// may wait for its next one; it is not admitted before the running one is finished.
    pub fn enqueue(&mut self, disk: DiskId, priority: Priority) {
        let arrival = self.arrivals;
        let waiting = self.waiting.entry(disk).or_insert_with(|| {
            self.arrivals += 1;
            Waiting { priority, arrival }
        });
        waiting.priority = priority;
    }

    /// Admits the disk that goes first, if any may start now. To be called until there is none.
    pub fn admit(&mut self) -> Option<DiskId> {
        if self.running.len() >= self.slots.get() {
            return None;
        }
        let initials = self.running.values().filter(|priority| **priority == Priority::Initial).count();
        let initial_may = initials < self.slots_for_initials();
        let admissible = self.waiting.iter().filter(|(disk, waiting)| {
            !self.running.contains_key(disk) && (waiting.priority != Priority::Initial || initial_may)
        });
        let (disk, waiting) = admissible.min_by_key(|(_, waiting)| (Reverse(waiting.priority), waiting.arrival))?;
        let (disk, priority) = (*disk, waiting.priority);
        self.waiting.remove(&disk);
        self.running.insert(disk, priority);
        Some(disk)
    }

    /// The disk's cycle has ended, whatever its verdict; its slot is free. False where none was running.
    pub fn finish(&mut self, disk: DiskId) -> bool {
        self.running.remove(&disk).is_some()
    }

    /// Forgets the disk, whether it waits or runs.
    pub fn remove(&mut self, disk: DiskId) {
        self.waiting.remove(&disk);
        self.running.remove(&disk);
    }

    /// Takes up a cycle that was admitted before the appliance was restarted. It may exceed the slots until it is finished.
    pub fn resume(&mut self, disk: DiskId, priority: Priority) {
        self.running.insert(disk, priority);
    }

    /// True where the disk's cycle was admitted and is not finished.
    pub fn is_running(&self, disk: DiskId) -> bool {
        self.running.contains_key(&disk)
    }

    /// True where the disk waits for a cycle.
    pub fn is_waiting(&self, disk: DiskId) -> bool {
        self.waiting.contains_key(&disk)
    }

    /// How many cycles run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many disks wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many slots initial cycles and resyncs may take.
    fn slots_for_initials(&self) -> usize {
        (self.slots.get() - 1).max(1)
    }
}
