//! What outlives a process: records, objects, the target's medium; and the faulty ways to them.

mod odds;
mod store;

pub use odds::Odds;
pub use store::SimStore;

use crate::check::{Checker, SEGMENTS};
use crate::life::{Life, Step};
use crate::rng::Rng;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_agent::journal::{EachEntry, JournalError, Records};
use sluice_hydrator::state::{StateError, StateStore};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Files that survive crashes: each save is whole or not there.
#[derive(Clone, Default)]
pub struct Files {
    /// Records by name.
    pub records: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Logs by name.
    pub logs: Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>>,
    /// What was removed since the last save, in that order.
    removed: Arc<Mutex<Vec<Removed>>>,
    /// Of a copy: when it was made.
    pub made: Option<Instant>,
}

/// A file that a power cut may bring back.
#[derive(Clone)]
struct Removed {
    name: String,
    record: Option<Vec<u8>>,
    log: Option<Vec<Vec<u8>>>,
}

impl Files {
    /// A copy that later changes do not touch.
    pub fn snapshot(&self) -> Self {
        let copy = Self { made: Some(Instant::now()), ..Self::default() };
        *copy.records.lock() = self.records.lock().clone();
        *copy.logs.lock() = self.logs.lock().clone();
        copy
    }

    /// The machine loses its power: names keep their order, so that of what was removed since the last save the newest may be
    /// back; of each log the newest entries may be gone.
    pub fn power_cut(&self, rng: &Rng) {
        let mut removed = std::mem::take(&mut *self.removed.lock());
        let gone = rng.below(removed.len() as u64 + 1) as usize;
        for Removed { name, record, log } in removed.drain(gone..) {
            if let Some(bytes) = record {
                self.records.lock().entry(name.clone()).or_insert(bytes);
            }
            if let Some(entries) = log {
                self.logs.lock().entry(name).or_insert(entries);
            }
        }
        for entries in self.logs.lock().values_mut() {
            if rng.once_in(2) {
                entries.truncate(rng.below(entries.len() as u64 + 1) as usize);
            }
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        self.records.lock().insert(name.into(), bytes.to_vec());
        self.removed.lock().clear();
    }

    fn remove(&self, name: &str) {
        let (record, log) = (self.records.lock().remove(name), self.logs.lock().remove(name));
        if record.is_some() || log.is_some() {
            self.removed.lock().push(Removed { name: name.into(), record, log });
        }
    }

    /// Goes back to a copy.
    pub fn restore(&self, copy: &Self) {
        self.removed.lock().clear();
        *self.records.lock() = copy.records.lock().clone();
        *self.logs.lock() = copy.logs.lock().clone();
    }
}

/// Snapshots of a file system.
pub struct Snapshots {
    /// The newest.
    pub newest: Arc<Mutex<Option<Files>>>,
    /// Chance.
    pub rng: Rng,
}

/// The agent's records.
pub struct SimRecords {
    /// The files.
    pub files: Files,
    /// The process.
    pub life: Life,
    /// Made between any two changes of the files, where they are made.
    pub snapshots: Option<Snapshots>,
    /// Who judges each change; nobody that of a copy.
    pub checker: Option<Checker>,
}

/// A cycle changes the agent's files some 14 times, and one snapshot is made in so many changes: a state from before the
/// newest verified cycle is told by that cycle's number, what else it lacks shows only where it is younger.
const CHANGES_PER_SNAPSHOT: u64 = 10;

fn dead() -> JournalError {
    JournalError("the process is dead".into())
}

impl SimRecords {
    /// A copy of the files, whose changes are nobody's.
    pub fn of_copy(files: &Files) -> Self {
        let life = Life::new(None, Rng::new(0, 0));
        Self { files: files.snapshot(), life, snapshots: None, checker: None }
    }

    /// One of the changes by which sectors may be let go.
    fn replace(&self, change: impl FnOnce(&Files)) -> Result<(), JournalError> {
        let done = self.change(change);
        self.checker.iter().for_each(|checker| checker.nothing_is_lost("after a change of the agent's files"));
        done
    }

    fn change(&self, change: impl FnOnce(&Files)) -> Result<(), JournalError> {
        if let Some(snapshots) = &self.snapshots
            && snapshots.rng.once_in(CHANGES_PER_SNAPSHOT)
        {
            *snapshots.newest.lock() = Some(self.files.snapshot());
        }
        match self.life.step() {
            Step::Go => {
                change(&self.files);
                Ok(())
            }
            Step::DoneUnheard => {
                change(&self.files);
                Err(dead())
            }
            Step::NotDone => Err(dead()),
        }
    }
}

impl Records for SimRecords {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.files.records.lock().get(name).cloned())
    }
    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.replace(|files| files.save(name, bytes))
    }
    fn remove(&mut self, name: &str) -> Result<(), JournalError> {
        self.replace(|files| files.remove(name))
    }
    fn read_log(&mut self, name: &str, each: &mut EachEntry<'_>) -> Result<(), JournalError> {
        self.files.logs.lock().get(name).into_iter().flatten().try_for_each(|entry| each(entry))
    }
    fn append(&mut self, name: &str, entry: &[u8]) -> Result<(), JournalError> {
        self.change(|files| {
            files.logs.lock().entry(name.into()).or_default().push(entry.to_vec());
            self.checker.iter().filter(|_| name == SEGMENTS).for_each(|checker| checker.stored(entry));
        })
    }
}

/// The hydrator's records.
pub struct SimState {
    /// The files.
    pub files: Files,
    /// The process.
    pub life: Life,
    /// Chance.
    pub rng: Rng,
    /// How often things go wrong.
    pub odds: Arc<Mutex<Odds>>,
}

impl SimState {
    async fn change(&self, change: impl FnOnce(&Files)) -> Result<(), StateError> {
        self.life.carry_out(async { change(&self.files) }).await;
        if self.rng.once_in(self.odds.lock().stands_still) {
            // sleep: simulated time.
            tokio::time::sleep(self.rng.pause(STILL_MS_MAX)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl StateStore for SimState {
    async fn load(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, StateError> {
        self.life.or_never().await;
        let found = self.files.records.lock().get(name).cloned();
        Ok(found.filter(|bytes| bytes.len() as u64 <= len_max))
    }
    async fn save(&self, name: &str, bytes: Vec<u8>) -> Result<(), StateError> {
        self.change(|files| _ = files.records.lock().insert(name.into(), bytes)).await
    }
    async fn remove(&self, name: &str) -> Result<(), StateError> {
        self.change(|files| _ = files.records.lock().remove(name)).await
    }
    fn describe(&self) -> String {
        "sim".into()
    }
}

/// How long a machine stands still, at most: another has ended a cycle by then, and the next.
const STILL_MS_MAX: u64 = 15_000;

/// The same bytes but for one bit.
pub fn flip(bytes: &Bytes, rng: &Rng) -> Bytes {
    let mut copy = bytes.to_vec();
    let at = rng.below(copy.len() as u64) as usize;
    copy[at] ^= 1 << rng.below(8);
    copy.into()
}
