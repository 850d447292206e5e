//! Which of the disks that wait may start a cycle now.

use super::Priority;
use crate::DiskId;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// From so many slots on, the disks of one owner leave two to others.
const SHARED_SLOTS_MIN: usize = 6;

/// The admission queue of one appliance: at most so many cycles at once; the highest priority first, among equals the
/// owner with the fewest cycles of that kind, and among that one's disks the one that waits longest.
///
/// Initial cycles may run for days and there may be many, so they never take the last slot: it is kept for deltas and
/// finals, and a delta waits for short cycles only. With a single slot there is nothing to keep; then a delta waits for
/// all initial cycles.
///
/// Of six slots or more, the disks of one owner never take the last two, and its initial cycles not the last three: a machine
/// whose cycles do not end, by accident or by intent, leaves the others one slot for an initial cycle and one for deltas.
#[derive(Clone, Debug)]
pub struct Admission {
    slots: NonZeroUsize,
    /// Disks whose cycle was admitted and is not finished.
    running: BTreeMap<DiskId, Entry>,
    /// The same, but that they hold no slot at present.
    suspended: BTreeMap<DiskId, Entry>,
    waiting: BTreeMap<DiskId, Waiting>,
    /// The number of the next arrival.
    arrivals: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    owner: Arc<str>,
    priority: Priority,
}

#[derive(Clone, Debug)]
struct Waiting {
    entry: Entry,
    arrival: u64,
}

/// How many cycles run, in all or of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    initials: usize,
    others: usize,
}

impl Count {
    fn add(&mut self, priority: Priority) {
        match priority {
            Priority::Initial => self.initials += 1,
            Priority::Delta | Priority::Final => self.others += 1,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self { initials: self.initials + other.initials, others: self.others + other.others }
    }

    /// As many of them as an owner may have whose share is so large.
    fn within(self, share: usize) -> Self {
        let initials = self.initials.min(initials_max(share));
        Self { initials, others: self.others.min(share - initials) }
    }

    /// How many are long, or short, as this one is.
    fn of(self, priority: Priority) -> usize {
        match priority {
            Priority::Initial => self.initials,
            Priority::Delta | Priority::Final => self.others,
        }
    }

    /// Whether one more of this priority fits into `slots`, the last of which is not for initials. Initials beyond that, as a
    /// delta may turn out to be a comparison, take it from nobody.
    fn fits(self, priority: Priority, slots: usize) -> bool {
        let most = initials_max(slots);
        let free = self.initials.min(most) + self.others < slots;
        free && (priority != Priority::Initial || self.initials < most)
    }
}

/// How many of so many slots initials may take.
fn initials_max(slots: usize) -> usize {
    slots.saturating_sub(1).max(1)
}

impl Admission {
    /// A queue that lets `slots` cycles run at once.
    pub fn new(slots: NonZeroUsize) -> Self {
        Self { slots, running: BTreeMap::new(), suspended: BTreeMap::new(), waiting: BTreeMap::new(), arrivals: 0 }
    }

    /// Changes how many cycles may run at once. Cycles that run already go on.
    pub fn set_slots(&mut self, slots: NonZeroUsize) {
        self.slots = slots;
    }

    /// Lets `disk` of `owner` wait for a cycle. If it waits already it keeps its place, with the new priority. A disk whose
    /// cycle runs may wait for its next one; it is not admitted before the running one is finished.
    pub fn enqueue(&mut self, disk: DiskId, owner: &Arc<str>, priority: Priority) {
        let arrival = self.arrivals;
        let entry = Entry { owner: Arc::clone(owner), priority };
        let waiting = self.waiting.entry(disk).or_insert_with(|| {
            self.arrivals += 1;
            Waiting { entry: entry.clone(), arrival }
        });
        waiting.entry = entry;
    }

    /// Admits all disks that may start now, in the order in which they go.
    pub fn admit_all(&mut self) -> Vec<DiskId> {
        std::iter::from_fn(|| self.admit()).collect()
    }

    /// Admits the disk that goes first, if any may start now.
    pub fn admit(&mut self) -> Option<DiskId> {
        let slots = self.slots.get();
        let share = if slots < SHARED_SLOTS_MIN { slots } else { slots - 2 };
        let mut owners = BTreeMap::<&str, Count>::new();
        for entry in self.running.values() {
            owners.entry(&entry.owner).or_default().add(entry.priority);
        }
        // What an owner has beyond its share, as suspended cycles went on, is taken from nobody.
        let all = owners.values().fold(Count::default(), |all, owner| all.plus(owner.within(share)));
        let of = |entry: &Entry| owners.get(&*entry.owner).copied().unwrap_or_default();
        let admissible = self.waiting.iter().filter(|(disk, Waiting { entry, .. })| {
            !self.running.contains_key(disk)
                && !self.suspended.contains_key(disk)
                && all.fits(entry.priority, slots)
                && of(entry).fits(entry.priority, share)
        });
        let (disk, _) = admissible.min_by_key(|(_, Waiting { entry, arrival })| {
            (Reverse(entry.priority), of(entry).of(entry.priority), *arrival)
        })?;
        let disk = *disk;
        let waiting = self.waiting.remove(&disk)?;
        self.running.insert(disk, waiting.entry);
        Some(disk)
    }

    /// The disk's cycle has ended, whatever its verdict; its slot is free. False where none was running.
    pub fn finish(&mut self, disk: DiskId) -> bool {
        let running = self.running.remove(&disk).is_some();
        self.suspended.remove(&disk).is_some() || running
    }

    /// The disk's cycle does not go on at present: its slot is for others. False where it holds none.
    pub fn suspend(&mut self, disk: DiskId) -> bool {
        let Some(entry) = self.running.remove(&disk) else { return false };
        self.suspended.insert(disk, entry);
        true
    }

    /// The disk's suspended cycle goes on. It may exceed the slots until it is finished.
    pub fn go_on(&mut self, disk: DiskId) {
        if let Some(entry) = self.suspended.remove(&disk) {
            self.running.insert(disk, entry);
        }
    }

    /// The disk's admitted cycle is of another priority than it was thought to be.
    pub fn reclassify(&mut self, disk: DiskId, priority: Priority) {
        let admitted = self.running.get_mut(&disk).or_else(|| self.suspended.get_mut(&disk));
        if let Some(entry) = admitted {
            entry.priority = priority;
        }
    }

    /// Takes the disk out of those that wait. False where it did not.
    pub fn withdraw(&mut self, disk: DiskId) -> bool {
        self.waiting.remove(&disk).is_some()
    }

    /// Takes up a cycle that was admitted before the appliance was restarted. It may exceed the slots until it is finished.
    pub fn resume(&mut self, disk: DiskId, owner: &Arc<str>, priority: Priority) {
        self.running.insert(disk, Entry { owner: Arc::clone(owner), priority });
    }

    /// True where the disk's cycle was admitted and is not finished, whether it holds a slot or not.
    pub fn is_admitted(&self, disk: DiskId) -> bool {
        self.running.contains_key(&disk) || self.suspended.contains_key(&disk)
    }

    /// True where the disk waits for a cycle.
    pub fn is_waiting(&self, disk: DiskId) -> bool {
        self.waiting.contains_key(&disk)
    }

    /// How many cycles hold a slot.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many disks wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
