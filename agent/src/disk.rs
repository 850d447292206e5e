//! One protected disk: the only owner of its state.
//!
//! It waits for orders, plans cycles, ships them and deals with verdicts. Whatever stops it, in any place, it goes on
//! from its journal: a plan that is there is finished before anything else, and no sector is let go before its proof.

mod plan;
mod seal;
mod ship;
mod verdict;

use crate::capture::{Capture, CaptureError};
use crate::compare::LocalTable;
use crate::journal::{Identity, Journal, JournalError};
use crate::tracker::{Doubt, Tracker};
use sluice_client::{AgentApi, ApiError};
use sluice_platform::Short;
use sluice_proto::cycle::TrackerKind;
use sluice_proto::wire::{ErrorCode, NextRequest, RegisterRequest};
use sluice_proto::{CycleNo, DiskId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long an order is waited for in one request, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// The pause after a first failure.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a verdict is awaited before the cycle is offered again: an appliance that was restored from an older state
/// may have forgotten the commit.
const VERDICT_PATIENCE: Duration = Duration::from_secs(600);

/// Why a disk is no longer protected by this agent.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The appliance refuses it for good.
    #[error("disk {disk}: {source}")]
    Refused {
        /// The disk.
        disk: DiskId,
        /// Why.
        source: ApiError,
    },
    /// The agent's state can't be kept.
    #[error("disk {disk}: {source}; free some space or mend the file system, then start the agent again")]
    Journal {
        /// The disk.
        disk: DiskId,
        /// What failed.
        source: JournalError,
    },
    /// The source has grown: it is to be opened, tracked and protected anew, which notes its new size and begins a new
    /// generation ([`Journal::grow`]).
    #[error("disk {disk}: {detail}")]
    Grown {
        /// The disk.
        disk: DiskId,
        /// From which size to which.
        detail: String,
    },
    /// The source is not what it was.
    #[error("disk {disk}: {detail}")]
    Source {
        /// The disk.
        disk: DiskId,
        /// What changed and what to do.
        detail: String,
    },
}

/// What a disk's owner needs.
pub struct DiskAgent {
    pub(crate) capture: Capture,
    pub(crate) api: Arc<dyn AgentApi>,
    pub(crate) tracker: Box<dyn Tracker>,
    pub(crate) journal: Journal,
    pub(crate) table: Option<LocalTable>,
    /// The folder of this agent's state where it lies on the source: what is written there is written to the source.
    pub(crate) state_on_source: Option<PathBuf>,
    /// The cycle that has been committed or given up and awaits its verdict, and since when.
    committed: Option<(CycleNo, Instant)>,
    /// The cycle that an earlier run of the agent began: what its tracker had counted is gone with it.
    resumed: Option<CycleNo>,
    /// The source was proven to be at rest when the running cycle was begun.
    rested: bool,
    /// When the running cycle was begun, or taken up again.
    begun: Instant,
    /// Held from the plan of a delta by the tracker's word to its verdict: other disks' first copies and comparisons give way to
    /// it. One that compares reads the whole disk, and gives way itself.
    short: Option<Short>,
    stop: watch::Receiver<bool>,
}

impl DiskAgent {
    /// The owner of the disk in `journal`. `doubt` is what attaching the tracker came to.
    ///
    /// # Errors
    /// A journal that can't be written; a source of another size than the journal's, which is [`DiskError::Grown`] where it
    /// is larger.
    pub fn new(
        capture: Capture,
        tracker: Box<dyn Tracker>,
        doubt: Option<Doubt>,
        mut journal: Journal,
        table: Option<LocalTable>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, DiskError> {
        let identity = journal.identity();
        let disk = identity.disk;
        if identity.size != capture.source.size() {
            let (was, is) = (identity.size, capture.source.size());
            let detail = size_changed(&capture.source.name(), was.0, is.0);
            return Err(if was < is { DiskError::Grown { disk, detail } } else { DiskError::Source { disk, detail } });
        }
        // Also where nothing was verified yet: an initial cycle settles it.
        let broken = doubt.or_else(|| restored(identity, &*tracker)).filter(|_| tracker.kind() == TrackerKind::Ebpf);
        let (epoch, released) = (tracker.epoch(), tracker.released());
        journal
            .update(|identity| {
                if let Some(doubt) = broken {
                    identity.doubt = Some(doubt.to_string());
                    identity.released = identity.released.max(released);
                }
                identity.epoch = Some(epoch);
            })
            .map_err(|source| DiskError::Journal { disk, source })?;
        let (api, resumed) = (capture.api.clone(), journal.plan().map(|(plan, _)| plan.cycle));
        Ok(Self {
            capture,
            api,
            tracker,
            journal,
            table,
            state_on_source: None,
            committed: None,
            resumed,
            rested: false,
            begun: Instant::now(),
            short: None,
            stop,
        })
    }

    fn id(&self) -> DiskId {
        self.journal.identity().disk
    }

    fn running(&self) -> Option<CycleNo> {
        self.journal.plan().map(|(plan, _)| plan.cycle)
    }

    /// Protects the disk until told to stop, which it does at once, wherever it is: what is durable is in the journal at
    /// every await, and the rest is done again.
    ///
    /// # Errors
    /// [`DiskError`]; other disks are not concerned.
    pub async fn run(mut self) -> Result<(), DiskError> {
        let mut stop = self.stop.clone();
        let (mut pause, mut registered) = (PAUSE_MIN, false);
        loop {
            let result = tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(()),
                result = self.turn(&mut registered) => result,
            };
            let Err(error) = result else {
                pause = PAUSE_MIN;
                continue;
            };
            match error {
                // The appliance may have been restored from a state in which it did not know the disk, or not this generation.
                error if registered && is_forgotten(&error) => {
                    tracing::warn!(disk = %self.id(), %error, "not now; making the disk known again");
                    registered = false;
                }
                // The disk is larger there, or its generation has another key, as this state is an old one; or the appliance
                // takes no more disks: neither passes by itself.
                CaptureError::Api(source) if !registered && source.code() == Some(ErrorCode::WrongState) => {
                    return Err(DiskError::Refused { disk: self.id(), source });
                }
                error => self.survive(error)?,
            }
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn turn(&mut self, registered: &mut bool) -> Result<(), CaptureError> {
        if !*registered {
            self.register().await?;
            *registered = true;
        }
        self.step().await
    }

    async fn register(&mut self) -> Result<(), CaptureError> {
        let identity = self.journal.identity();
        let request = RegisterRequest {
            name: self.capture.source.name(),
            size: identity.size,
            logical_sector: self.capture.source.logical_sector(),
            generation: identity.generation,
            envelope: identity.envelope.clone(),
        };
        self.api.register(identity.disk, request).await?;
        Ok(())
    }

    /// One step: finish what was begun, or ask what to do.
    async fn step(&mut self) -> Result<(), CaptureError> {
        let running = self.running();
        let offered = |cycle| self.committed.is_some_and(|(c, at)| c == cycle && at.elapsed() < VERDICT_PATIENCE);
        if let Some(cycle) = running
            && !offered(cycle)
        {
            return self.ship(cycle).await;
        }
        let identity = self.journal.identity();
        let (generation, settled) = (identity.generation, identity.settled);
        let request = NextRequest { generation, settled, running, wait_ms: WAIT_MS };
        let reply = self.api.next(identity.disk, request).await?;
        self.obey(reply).await
    }

    /// Sorts failures into those after which it goes on and those that end the disk's protection.
    fn survive(&mut self, error: CaptureError) -> Result<(), DiskError> {
        let disk = self.id();
        match error {
            CaptureError::Journal(source) => return Err(DiskError::Journal { disk, source }),
            CaptureError::Vanished(error) => return Err(DiskError::Source { disk, detail: error.detail }),
            CaptureError::Grown(error) => return Err(DiskError::Grown { disk, detail: error.detail }),
            CaptureError::Api(source) if !goes_on(&source) => return Err(DiskError::Refused { disk, source }),
            CaptureError::Tracker(error) => {
                tracing::warn!(%disk, %error, "the tracker failed; trying again, and comparing then");
                let noted = self.doubt(error.to_string());
                noted.map_err(|source| DiskError::Journal { disk, source })?;
            }
            other => tracing::warn!(%disk, error = %other, "not now; trying again"),
        }
        Ok(())
    }

    /// Notes that the tracker's word does not suffice for the next cycle.
    fn doubt(&mut self, why: String) -> Result<(), JournalError> {
        self.journal.update(|identity| identity.doubt = identity.doubt.take().or(Some(why)))
    }
}

/// The doubt where the tracker released what the journal does not know of.
fn restored(identity: &Identity, tracker: &dyn Tracker) -> Option<Doubt> {
    (tracker.released() > identity.released).then_some(Doubt::StateRestored)
}

/// Ends when the word is given; where nobody can give it any more, never.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// True for what an appliance says that does not know the disk or its generation, among others. Who is known already loses
/// nothing by making itself known again.
fn is_forgotten(error: &CaptureError) -> bool {
    matches!(error, CaptureError::Api(error) if matches!(error.code(), Some(ErrorCode::NoSuchDisk | ErrorCode::WrongState)))
}

/// True where the same may succeed later, or where the next order tells what has become of the cycle.
fn goes_on(error: &ApiError) -> bool {
    error.may_pass() || matches!(error.code(), Some(ErrorCode::WrongState | ErrorCode::NotStored))
}

/// What is to be known of state that lies on the source.
pub(crate) fn own_state(folder: &Path) -> String {
    format!(
        "the agent keeps its state on the disk that it protects, in {}: what it writes there is shipped with each cycle, and a \
         final cycle under ebpf always fails. Stop the agent, move its state to another disk, a USB stick or a tmpfs, and name \
         that as the state folder",
        folder.display()
    )
}

fn size_changed(name: &str, was: u64, is: u64) -> String {
    let sizes = format!("{name}: the source had {was} bytes and has {is} now");
    match was < is {
        true => format!("{sizes}; from the next cycle on it is protected in its new size, beginning with a comparison"),
        false => format!(
            "{sizes}; a target never shrinks: make the source as large as it was, or remove its state folder and start again \
             with a new target"
        ),
    }
}

#[cfg(test)]
mod tests;
