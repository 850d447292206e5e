//! The appliance's repository as one incarnation of it sees it: the real one in memory, which outlives the process.

use crate::life::Life;
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_appliance::repository::{CycleRecord, DiskRecord, LogEntry, MemoryRepository, Repository, RepositoryResult};
use sluice_proto::wire::{PolicyView, StoredSegment};
use sluice_proto::{CycleNo, DiskId};
use std::sync::Arc;

/// What a power cut of the appliance's machine undoes, oldest first: SQLite's log is flushed with the next other write.
pub type Unflushed = Arc<Mutex<Vec<Lazy>>>;

/// A write that is not flushed.
#[derive(Clone, Debug)]
pub enum Lazy {
    /// A segment was recorded, by this name.
    Stored(DiskId, CycleNo, String),
    /// Segments were forgotten.
    Forgotten(DiskId, CycleNo, Vec<StoredSegment>),
}

impl Lazy {
    /// Makes the repository as it was before; what was undone, in words.
    pub async fn undo(self, repository: &MemoryRepository) -> String {
        match self {
            Self::Stored(disk, cycle, name) => {
                drop(repository.forget_segments(disk, cycle, Some(std::slice::from_ref(&name))).await);
                format!("cycle {}: {name} was not flushed", cycle.0)
            }
            Self::Forgotten(disk, cycle, segments) => {
                let mut known = 0;
                // Pruned since, it has no segments either.
                if let Ok(Some(record)) = repository.cycle(disk, cycle).await {
                    for segment in &segments {
                        known += usize::from(repository.add_segment(&record, segment).await.is_ok());
                    }
                }
                format!("cycle {}: {known} of {} segments are known again", cycle.0, segments.len())
            }
        }
    }
}

/// The repository.
pub struct SimRepository {
    /// What outlives the process.
    pub inner: Arc<MemoryRepository>,
    /// The process.
    pub life: Life,
    /// What a power cut would take.
    pub unflushed: Unflushed,
}

impl SimRepository {
    /// Does a write that is flushed where it succeeds, and all before it with it.
    async fn flushed<T>(&self, write: impl Future<Output = RepositoryResult<T>>) -> RepositoryResult<T> {
        let written = async {
            let written = write.await?;
            self.unflushed.lock().clear();
            Ok(written)
        };
        self.write(written).await
    }

    /// Does a write with the process's life at stake.
    async fn write<T>(&self, write: impl Future<Output = RepositoryResult<T>>) -> RepositoryResult<T> {
        self.life.carry_out(write).await
    }

    async fn read<T>(&self, read: impl Future<Output = T>) -> T {
        self.life.or_never().await;
        read.await
    }
}

#[async_trait]
impl Repository for SimRepository {
    async fn disks(&self) -> RepositoryResult<Vec<DiskRecord>> {
        self.read(self.inner.disks()).await
    }
    async fn save(&self, disk: &DiskRecord, cycle: Option<&CycleRecord>) -> RepositoryResult<()> {
        self.flushed(self.inner.save(disk, cycle)).await
    }
    async fn cycle(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        self.read(self.inner.cycle(disk, cycle)).await
    }
    async fn cycles(&self, disk: DiskId, limit: u32) -> RepositoryResult<Vec<CycleRecord>> {
        self.read(self.inner.cycles(disk, limit)).await
    }
    async fn first_ended(&self, disk: DiskId, after: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        self.read(self.inner.first_ended(disk, after)).await
    }
    async fn prune_cycles(&self, disk: DiskId, keep: u32) -> RepositoryResult<()> {
        // Where there is nothing to forget nothing is flushed.
        self.write(self.inner.prune_cycles(disk, keep)).await
    }
    async fn segments(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Vec<StoredSegment>> {
        self.read(self.inner.segments(disk, cycle)).await
    }
    async fn add_segment(&self, cycle: &CycleRecord, segment: &StoredSegment) -> RepositoryResult<()> {
        let write = async {
            self.inner.add_segment(cycle, segment).await?;
            self.unflushed.lock().push(Lazy::Stored(cycle.disk, cycle.cycle, segment.name.clone()));
            Ok(())
        };
        self.write(write).await
    }
    async fn forget_segments(&self, disk: DiskId, cycle: CycleNo, names: Option<&[String]>) -> RepositoryResult<()> {
        let write = async {
            let mut known = self.inner.segments(disk, cycle).await?;
            known.retain(|segment| names.is_none_or(|names| names.contains(&segment.name)));
            self.inner.forget_segments(disk, cycle, names).await?;
            self.unflushed.lock().push(Lazy::Forgotten(disk, cycle, known));
            Ok(())
        };
        self.write(write).await
    }
    async fn policy(&self) -> RepositoryResult<Option<PolicyView>> {
        self.read(self.inner.policy()).await
    }
    async fn set_policy(&self, policy: &PolicyView) -> RepositoryResult<()> {
        self.flushed(self.inner.set_policy(policy)).await
    }
    async fn log(&self, entry: &LogEntry) -> RepositoryResult<()> {
        match entry.who == LogEntry::APPLIANCE {
            true => self.write(self.inner.log(entry)).await,
            false => self.flushed(self.inner.log(entry)).await,
        }
    }
    async fn log_entries(&self, disk: Option<DiskId>, limit: u32) -> RepositoryResult<Vec<LogEntry>> {
        self.read(self.inner.log_entries(disk, limit)).await
    }
}
