//! Who may do what, and refusals in words.

use super::cell::{Cell, DiskState, OpenCycle};
use super::{Inner, Reply, Service};
use crate::identity::{Identity, Role};
use crate::repository::{RepositoryError, RepositoryErrorKind};
use sluice_cache_store::{StoreError, StoreErrorKind};
use sluice_proto::machine::ImpossibleEvent;
use sluice_proto::wire::{ErrorCode, WireError};
use sluice_proto::{CycleNo, DiskId, FormatError, FormatErrorKind, Generation};
use std::sync::Arc;

/// Shorthand for a refusal.
pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Reply<T> {
    Err(WireError::new(code, message))
}

impl Inner {
    pub(super) fn cell(&self, disk: DiskId) -> Reply<Arc<Cell>> {
        match self.cells.lock().get(&disk) {
            Some(cell) => Ok(Arc::clone(cell)),
            None => no_such_disk(disk),
        }
    }

    pub(super) fn all_cells(&self) -> Vec<Arc<Cell>> {
        self.cells.lock().values().cloned().collect()
    }

    /// The disk, if it is this agent's.
    pub(super) fn agents_cell(&self, who: &Identity, disk: DiskId) -> Reply<Arc<Cell>> {
        need(who, Role::Agent)?;
        let cell = self.cell(disk)?;
        if &*cell.agent != who.name.as_str() {
            return no_such_disk(disk);
        }
        self.hears(&cell);
        Ok(cell)
    }

    /// The disk, if it is this hydrator's or nobody's yet.
    pub(super) async fn hydrators_cell(&self, who: &Identity, disk: DiskId) -> Reply<Arc<Cell>> {
        need(who, Role::Hydrator)?;
        let cell = self.cell(disk)?;
        match cell.lock().await.may_hydrate(who) {
            true => {}
            false => return no_such_disk(disk),
        }
        Ok(cell)
    }
}

impl Service {
    /// Whether the disk is this agent's.
    ///
    /// # Errors
    /// `Forbidden`, `NoSuchDisk`.
    pub fn is_agent_of(&self, who: &Identity, disk: DiskId) -> Reply<()> {
        self.inner.agents_cell(who, disk).map(|_| ())
    }

    /// Whether this agent may send a body for this cycle: asked before a byte of it is read.
    ///
    /// # Errors
    /// As for the request itself.
    pub async fn may_send(&self, who: &Identity, disk: DiskId, cycle: CycleNo, generation: Generation) -> Reply<()> {
        let cell = self.inner.agents_cell(who, disk)?;
        let state = cell.lock().await;
        state.current(generation)?;
        state.open(cycle).map(|_| ())
    }

    /// Whether this hydrator may send digests for this cycle: asked before a byte of them is read.
    ///
    /// # Errors
    /// As for the request itself.
    pub async fn may_send_digests(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
    ) -> Reply<()> {
        let cell = self.inner.hydrators_cell(who, disk).await?;
        let state = cell.lock().await;
        state.current(generation)?;
        state.open(cycle).map(|_| ())
    }
}

impl DiskState {
    pub(super) fn may_hydrate(&self, who: &Identity) -> bool {
        self.record.hydrator.as_deref().is_none_or(|name| name == who.name.as_str())
    }

    /// Refuses a writer that believes in another generation than the one in force.
    pub(super) fn current(&self, generation: Generation) -> Reply<()> {
        let known = self.record.generation;
        if generation < known {
            let message = format!(
                "{} is in generation {known}; this request is of generation {generation}. Another agent or a newer state \
                 has taken over: stop this one, or remove its state so that it begins a new generation",
                self.record.disk
            );
            return refuse(ErrorCode::OldGeneration, message);
        }
        if generation > known {
            let message =
                format!("{} is in generation {known}; register generation {generation} first", self.record.disk);
            return refuse(ErrorCode::WrongState, message);
        }
        Ok(())
    }

    /// The open cycle, if it is this one.
    pub(super) fn open(&self, cycle: CycleNo) -> Reply<&OpenCycle> {
        match &self.open {
            Some(open) if open.record.cycle == cycle => Ok(open),
            Some(open) => {
                let message =
                    format!("cycle {cycle} of {} is not open; cycle {} is", self.record.disk, open.record.cycle);
                refuse(ErrorCode::WrongState, message)
            }
            None => {
                let message = format!("cycle {cycle} of {} is not open, nor is any other", self.record.disk);
                refuse(ErrorCode::WrongState, message)
            }
        }
    }
}

/// Refuses everybody but those of one role.
pub(super) fn need(who: &Identity, role: Role) -> Reply<()> {
    match who.role == role {
        true => Ok(()),
        false => refuse(ErrorCode::Forbidden, format!("{who} may not do this: it is for the role {role}")),
    }
}

pub(super) fn no_such_disk<T>(disk: DiskId) -> Reply<T> {
    refuse(ErrorCode::NoSuchDisk, format!("no {disk:?} is registered here for this certificate"))
}

/// The repository failed: what a client hears of it, and what the log says.
pub(super) fn repository_failed(error: RepositoryError) -> WireError {
    use std::error::Error;
    let code = match error.kind() {
        RepositoryErrorKind::OldGeneration => ErrorCode::OldGeneration,
        RepositoryErrorKind::NoSuchDisk => ErrorCode::NoSuchDisk,
        RepositoryErrorKind::Full => ErrorCode::NoRoom,
        RepositoryErrorKind::Unavailable => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    };
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    match code {
        ErrorCode::Internal => tracing::error!(%error, cause, "the repository failed"),
        _ => tracing::warn!(%error, cause, "the repository failed for now"),
    }
    WireError::new(code, error.to_string())
}

/// The cache store failed, likewise. Details of the store are for the log, not for clients.
pub(super) fn store_failed(error: StoreError) -> WireError {
    use std::error::Error;
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let (code, words) = match error.kind() {
        StoreErrorKind::Full => (ErrorCode::NoRoom, "the cache store is full; free some space or enlarge it"),
        StoreErrorKind::Unavailable => (ErrorCode::Unavailable, "the cache store can't be reached now"),
        StoreErrorKind::AlreadyExists => (ErrorCode::WrongState, "the cache store holds other bytes under this name"),
        _ => (ErrorCode::Internal, "the cache store failed; the appliance's log says how"),
    };
    match code {
        ErrorCode::Internal => tracing::error!(%error, cause, "the cache store failed"),
        _ => tracing::warn!(%error, cause, "the cache store failed for now"),
    }
    WireError::new(code, words)
}

/// Bytes that a client sent are not what they should be.
pub(super) fn bad_bytes(error: FormatError) -> WireError {
    let code = if error.kind == FormatErrorKind::Newer { ErrorCode::Version } else { ErrorCode::Corrupt };
    WireError::new(code, error.to_string())
}

/// A message came in a state in which it can't be.
pub(super) fn impossible(error: ImpossibleEvent) -> WireError {
    WireError::new(ErrorCode::WrongState, error.to_string())
}
