//! A repository in memory, for tests and simulation.

use super::{
    CycleRecord, DiskRecord, LogEntry, Repository, RepositoryError, RepositoryErrorKind as Kind, RepositoryResult,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_proto::wire::{PolicyView, StoredSegment};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::collections::BTreeMap;

/// A [`Repository`] that forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryRepository {
    tables: Mutex<Tables>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    disks: BTreeMap<DiskId, DiskRecord>,
    cycles: BTreeMap<(DiskId, CycleNo), CycleRecord>,
    segments: BTreeMap<(DiskId, CycleNo), BTreeMap<String, StoredSegment>>,
    policy: Option<PolicyView>,
    log: Vec<LogEntry>,
}

impl Tables {
    fn check_generation(&self, disk: DiskId, generation: Generation) -> RepositoryResult<()> {
        match self.disks.get(&disk) {
            Some(known) if known.generation > generation => {
                let context = format!("writing to {disk:?} in {generation:?}, which is in {:?}", known.generation);
                Err(RepositoryError::new(Kind::OldGeneration, context))
            }
            _ => Ok(()),
        }
    }

    /// The cycles of a disk, oldest first.
    fn of(&self, disk: DiskId) -> impl DoubleEndedIterator<Item = &CycleRecord> {
        self.cycles.range((disk, CycleNo(0))..=(disk, CycleNo(u64::MAX))).map(|(_, cycle)| cycle)
    }
}

impl MemoryRepository {
    /// An empty repository.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that later changes don't touch.
    pub fn snapshot(&self) -> Self {
        Self { tables: Mutex::new(self.tables.lock().clone()) }
    }

    /// Puts a snapshot in the place of what is there.
    pub fn put_back(&self, snapshot: &Self) {
        *self.tables.lock() = snapshot.tables.lock().clone();
    }
}

#[async_trait]
impl Repository for MemoryRepository {
    async fn disks(&self) -> RepositoryResult<Vec<DiskRecord>> {
        Ok(self.tables.lock().disks.values().cloned().collect())
    }

    async fn save(&self, disk: &DiskRecord, cycle: Option<&CycleRecord>) -> RepositoryResult<()> {
        let mut tables = self.tables.lock();
        tables.check_generation(disk.disk, disk.generation)?;
        if let Some(cycle) = cycle {
            if cycle.disk != disk.disk {
                let context = format!("saving {:?} with a cycle of {:?}", disk.disk, cycle.disk);
                return Err(RepositoryError::new(Kind::Other, context));
            }
            tables.cycles.insert((cycle.disk, cycle.cycle), cycle.clone());
        }
        tables.disks.insert(disk.disk, disk.clone());
        Ok(())
    }

    async fn cycle(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        Ok(self.tables.lock().cycles.get(&(disk, cycle)).cloned())
    }

    async fn cycles(&self, disk: DiskId, limit: u32) -> RepositoryResult<Vec<CycleRecord>> {
        Ok(self.tables.lock().of(disk).rev().take(limit as usize).cloned().collect())
    }

    async fn first_ended(&self, disk: DiskId, after: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        Ok(self.tables.lock().of(disk).find(|c| c.cycle > after && c.state.is_end()).cloned())
    }

    async fn prune_cycles(&self, disk: DiskId, keep: u32) -> RepositoryResult<()> {
        let mut tables = self.tables.lock();
        let old = tables.of(disk).rev().skip(keep as usize).filter(|c| c.state.is_end());
        let old: Vec<_> = old.map(|c| (disk, c.cycle)).collect();
        for key in old {
            tables.cycles.remove(&key);
            tables.segments.remove(&key);
        }
        Ok(())
    }

    async fn segments(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Vec<StoredSegment>> {
        let tables = self.tables.lock();
        Ok(tables.segments.get(&(disk, cycle)).map(|s| s.values().cloned().collect()).unwrap_or_default())
    }

    async fn add_segment(&self, cycle: &CycleRecord, segment: &StoredSegment) -> RepositoryResult<()> {
        let mut tables = self.tables.lock();
        if !tables.disks.contains_key(&cycle.disk) {
            let context = format!("recording a segment of {:?}", cycle.disk);
            return Err(RepositoryError::new(Kind::NoSuchDisk, context));
        }
        tables.check_generation(cycle.disk, cycle.generation)?;
        let key = (cycle.disk, cycle.cycle);
        tables.segments.entry(key).or_default().insert(segment.name.clone(), segment.clone());
        tables.cycles.insert(key, cycle.clone());
        Ok(())
    }

    async fn forget_segments(&self, disk: DiskId, cycle: CycleNo, names: Option<&[String]>) -> RepositoryResult<()> {
        let mut tables = self.tables.lock();
        match (names, tables.segments.get_mut(&(disk, cycle))) {
            (Some(names), Some(segments)) => names.iter().for_each(|name| drop(segments.remove(name))),
            (None, _) => drop(tables.segments.remove(&(disk, cycle))),
            (Some(_), None) => {}
        }
        Ok(())
    }

    async fn policy(&self) -> RepositoryResult<Option<PolicyView>> {
        Ok(self.tables.lock().policy.clone())
    }

    async fn set_policy(&self, policy: &PolicyView) -> RepositoryResult<()> {
        self.tables.lock().policy = Some(policy.clone());
        Ok(())
    }

    async fn log(&self, entry: &LogEntry) -> RepositoryResult<()> {
        self.tables.lock().log.push(entry.clone());
        Ok(())
    }

    async fn log_entries(&self, disk: Option<DiskId>, limit: u32) -> RepositoryResult<Vec<LogEntry>> {
        let tables = self.tables.lock();
        let wanted = tables.log.iter().rev().filter(|e| disk.is_none() || e.disk == disk);
        Ok(wanted.take(limit as usize).cloned().collect())
    }
}
