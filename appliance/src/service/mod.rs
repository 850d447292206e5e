//! What the appliance decides, with no HTTP, no SQL and no file: who may do what, what runs when, what is stored.
//!
//! Each disk has a cell with a lock of its own. A decision is made under it in three steps: the next state is computed on
//! a copy, through `sluice-proto`'s tables; the copy is saved; only then does it replace what is in memory. So a call that
//! is cut off anywhere, or a save that fails, leaves a state that was true. Bytes go to the cache store outside of the
//! lock, and what came of them is judged again under it.
//!
//! Time for waiting comes from `tokio::time` alone; the wall clock is for people, and for what must outlive a restart.

mod access;
mod admit;
mod bell;
mod cell;
mod commit;
mod cycle;
mod finish;
mod hydrate;
mod janitor;
mod local;
mod next;
mod operate;
mod recover;
mod register;
mod scarce;
mod segments;
mod stored;
mod views;

#[cfg(test)]
pub(crate) mod tests;

pub use cycle::DIGESTS_BYTES_MAX;
pub use local::{LocalAgent, LocalHydrator, LocalOperator};

use crate::repository::{LogEntry, Repository, RepositoryError};
use crate::throttle::Throttle;
use bell::Bell;
use cell::Cell;
use janitor::Janitor;
use parking_lot::Mutex;
use sluice_cache_store::CacheStore;
use sluice_proto::DiskId;
use sluice_proto::env::Clock;
use sluice_proto::schedule::Admission;
use sluice_proto::wire::{PolicyView, SEGMENTS_TOLD_MAX, WireError};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The answer of a service's method.
pub type Reply<T> = Result<T, WireError>;

/// What a service stands on.
#[derive(Clone)]
pub struct Ports {
    /// What must not be forgotten.
    pub repository: Arc<dyn Repository>,
    /// Where segments and manifests wait for the hydrator.
    pub store: Arc<dyn CacheStore>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// What bounds the bytes that agents send. Its limits are those of the policy from the start on; only its time zone is
    /// its own.
    pub throttle: Throttle,
}

/// Limits and defaults of a service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many cycles may run at once. The last slot is never taken by initial cycles.
    pub slots: NonZeroUsize,
    /// The policy until an operator sets one.
    pub policy: PolicyView,
    /// Whether objects that are not encrypted are taken: only where agent and hydrator are in this very process.
    pub allow_plain: bool,
    /// Disks that one agent may register.
    pub disks_per_agent_max: usize,
    /// An agent that was silent for so long loses its slot to others until it is back.
    pub silence_max: Duration,
    /// So does a disk whose cycle did not go on for so long, whatever it waits for, until it does. Long enough for the
    /// slowest link to carry a segment, and for a hydrator to apply a delta.
    pub stall_max: Duration,
    /// Ended cycles that are remembered for each disk.
    pub history: u32,
    /// Segments that an agent is told of at once.
    pub segments_told_max: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        let schedule = sluice_proto::schedule::Policy::default();
        Self {
            slots: NonZeroUsize::MIN.saturating_add(7),
            policy: PolicyView {
                min_interval_ms: schedule.min_interval_ms,
                max_interval_ms: schedule.max_interval_ms,
                ..PolicyView::default()
            },
            allow_plain: false,
            disks_per_agent_max: 1024,
            silence_max: Duration::from_secs(90),
            stall_max: Duration::from_secs(1800),
            history: 1000,
            segments_told_max: SEGMENTS_TOLD_MAX,
        }
    }
}

/// The appliance's service. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    ports: Ports,
    settings: Settings,
    /// Disks by id. Held for look-ups only, never across an await.
    cells: Mutex<BTreeMap<DiskId, Arc<Cell>>>,
    /// Taken while a new disk is made, so that two registrations can't both make it.
    registering: tokio::sync::Mutex<()>,
    queue: Mutex<Admission>,
    /// When the throttle was last seen to let nothing pass.
    paused: Mutex<Option<Instant>>,
    policy: Mutex<PolicyView>,
    /// Taken while a policy is put in force, so that what is stored is what is in force.
    setting_policy: tokio::sync::Mutex<()>,
    /// Rings whenever the work of hydrators has changed.
    work: Bell,
    janitor: Janitor,
    /// When this service was started: the zero of its schedule.
    started: Instant,
}

impl Service {
    /// Takes up the state that the repository holds and makes store and repository agree.
    ///
    /// # Errors
    /// The repository can't be read, or the store can't be listed; or the stored policy is not one.
    pub async fn start(ports: Ports, settings: Settings) -> Result<Self, StartError> {
        recover::start(ports, settings).await
    }

    /// What bounds the bytes that agents send, for a server that reads their bodies piece by piece.
    pub fn throttle(&self) -> &Throttle {
        &self.inner.ports.throttle
    }

    /// Waits until everything that was to be deleted from the cache store is deleted, or could not be.
    pub async fn tidied(&self) {
        self.inner.janitor.idle().await;
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        self.ports.clock.unix_ms()
    }

    /// Tells waiting hydrators that there is something to look at.
    fn work_changed(&self) {
        self.work.ring();
    }

    /// Adds to the audit log. What was done stays done where that fails.
    async fn audit(&self, who: &str, disk: Option<DiskId>, what: &str, detail: String) {
        let entry = LogEntry { at_ms: self.now_ms(), who: who.to_owned(), disk, what: what.to_owned(), detail };
        if let Err(error) = self.ports.repository.log(&entry).await {
            tracing::warn!(%error, what, who, "not in the audit log");
        }
    }
}

/// Why a service can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The cache store failed.
    #[error(transparent)]
    Store(#[from] sluice_cache_store::StoreError),
    /// The policy is not one.
    #[error("the policy can't be put in force: {0}; correct it in the configuration")]
    Policy(String),
}
