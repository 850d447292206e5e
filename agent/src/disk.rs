//! One protected disk: the only owner of its state.
//!
//! It waits for orders, plans cycles, ships them and deals with verdicts. Whatever stops it, in any place, it goes on
//! from its journal: a plan that is there is finished before anything else, and no sector is let go before its proof.

mod plan;
mod seal;

use crate::capture::{Capture, CaptureError};
use crate::compare::LocalTable;
use crate::journal::{Journal, JournalError};
use crate::tracker::{Doubt, Tracker};
use sluice_client::{AgentApi, ApiError};
use sluice_proto::cycle::TrackerKind;
use sluice_proto::wire::{ErrorCode, GiveUp, NextReply, NextRequest, OpenRequest, RegisterRequest, Verdict};
use sluice_proto::{CycleNo, DiskId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an order is waited for in one request, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(30);

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
    /// The cycle that has been committed and awaits its verdict.
    committed: Option<CycleNo>,
    stop: watch::Receiver<bool>,
}

impl DiskAgent {
    /// The owner of the disk in `journal`. `doubt` is what attaching the tracker came to.
    ///
    /// # Errors
    /// A journal that can't be written; a source of another size than the journal's.
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
            return Err(DiskError::Source { disk, detail });
        }
        let nothing_yet = identity.verified.is_none() && journal.plan().is_none();
        let broken = doubt.filter(|_| tracker.kind() == TrackerKind::Ebpf && !nothing_yet);
        let epoch = tracker.epoch();
        journal
            .update(|identity| {
                if let Some(doubt) = broken {
                    identity.doubt = Some(doubt.to_string());
                }
                identity.epoch = Some(epoch);
            })
            .map_err(|source| DiskError::Journal { disk, source })?;
        let api = capture.api.clone();
        Ok(Self { capture, api, tracker, journal, table, committed: None, stop })
    }

    fn id(&self) -> DiskId {
        self.journal.identity().disk
    }

    /// Protects the disk until told to stop.
    ///
    /// # Errors
    /// [`DiskError`]; other disks are not concerned.
    pub async fn run(mut self) -> Result<(), DiskError> {
        let mut pause = Duration::from_millis(500);
        let mut registered = false;
        while !*self.stop.borrow() {
            let step = async {
                if !registered {
                    self.register().await?;
                    registered = true;
                }
                self.step().await
            };
            match step.await {
                Ok(()) => pause = Duration::from_millis(500),
                Err(error) => {
                    self.survive(error).await?;
                    self.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        Ok(())
    }

    /// Sleeps, but not longer than until told to stop.
    async fn sleep(&mut self, pause: Duration) {
        let stopped = async {
            if self.stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stopped => {}
            () = tokio::time::sleep(pause) => {}
        }
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
        let running = self.journal.plan().map(|(plan, _)| plan.cycle);
        if let Some(cycle) = running
            && self.committed != Some(cycle)
        {
            match self.ship(cycle).await {
                // The cycle has ended otherwise: its verdict tells.
                Err(CaptureError::Api(error)) if error.code() == Some(ErrorCode::WrongState) => {
                    tracing::warn!(disk = %self.id(), ?cycle, %error, "the cycle can't go on");
                    self.committed = Some(cycle);
                }
                result => return result,
            }
        }
        let request = NextRequest {
            generation: self.journal.identity().generation,
            settled: self.journal.identity().settled,
            running,
            wait_ms: WAIT_MS,
        };
        let reply = tokio::select! {
            biased;
            stopped = self.stop.wait_for(|stop| *stop) => {
                drop(stopped);
                return Ok(());
            }
            reply = self.api.next(self.journal.identity().disk, request) => reply?,
        };
        self.obey(reply).await
    }

    async fn obey(&mut self, reply: NextReply) -> Result<(), CaptureError> {
        if let Some(verdict) = reply.verdict {
            return Ok(self.settle(verdict)?);
        }
        match reply.start {
            Some(start) if self.journal.plan().is_none() => self.plan(start).await,
            Some(start) => {
                // The appliance went on without what runs here: its sectors go into the cycle that it orders.
                tracing::warn!(disk = %self.id(), ordered = ?start.cycle, "an unfinished cycle gives way");
                let settled = self.journal.identity().settled;
                self.journal.failed(settled)?;
                self.plan(start).await
            }
            None => Ok(()),
        }
    }

    /// Deals with a verdict.
    fn settle(&mut self, verdict: Verdict) -> Result<(), JournalError> {
        let cycle = verdict.cycle();
        let running = self.journal.plan().map(|(plan, _)| plan.cycle) == Some(cycle);
        match verdict {
            Verdict::Verified { manifest, .. } if running => {
                let verified = sluice_proto::wire::CycleRef { cycle, manifest };
                self.journal.verified(verified)?;
                if let Some(table) = &mut self.table {
                    table.verified(verified)?;
                }
                tracing::info!(disk = %self.id(), ?cycle, "verified");
            }
            Verdict::Failed { reason, detail, .. } if running => {
                tracing::warn!(disk = %self.id(), ?cycle, ?reason, detail, "cycle failed; its sectors go into the next");
                if let Some(table) = &mut self.table {
                    table.lose();
                }
                if reason.is_doubt() {
                    self.journal.update(|identity| identity.doubt = Some(detail))?;
                }
                self.journal.failed(cycle)?;
            }
            _ => self.journal.settle(cycle)?,
        }
        self.committed = None;
        Ok(())
    }

    /// Ships the running cycle to its commit; a source that can't be read fails it.
    async fn ship(&mut self, cycle: CycleNo) -> Result<(), CaptureError> {
        let result = self.capture_and_commit(cycle).await;
        if let Err(CaptureError::Source(error)) = &result {
            let request = GiveUp {
                generation: self.journal.identity().generation,
                reason: error.reason,
                detail: error.detail.clone(),
            };
            self.api.give_up(self.id(), cycle, request).await?;
            self.committed = Some(cycle);
            tracing::warn!(disk = %self.id(), ?cycle, %error, "cycle given up");
            return Ok(());
        }
        result
    }

    async fn capture_and_commit(&mut self, cycle: CycleNo) -> Result<(), CaptureError> {
        self.check_size().await?;
        self.open(cycle).await?;
        if self.journal.manifest()?.is_none() {
            let mut table = self.table.take();
            let with_grains = table.is_some();
            let shipped = self
                .capture
                .ship(&mut self.journal, with_grains, |block| {
                    if let Some(table) = &mut table {
                        table.note(&block.grains);
                    }
                })
                .await;
            self.table = table;
            shipped?;
        }
        let manifest = self.manifest().await?;
        let identity = self.journal.identity();
        self.api.commit(identity.disk, cycle, identity.generation, manifest.into()).await?;
        self.committed = Some(cycle);
        Ok(())
    }

    async fn check_size(&self) -> Result<(), CaptureError> {
        let (was, is) = (self.journal.identity().size, self.capture.source.current_size().await?);
        if was == is {
            return Ok(());
        }
        let detail = size_changed(&self.capture.source.name(), was.0, is.0);
        let reason = sluice_proto::cycle::FailReason::SourceChangedSize;
        Err(crate::source::SourceError { reason, detail }.into())
    }

    /// Opens the cycle and learns what of it is stored.
    async fn open(&mut self, cycle: CycleNo) -> Result<(), CaptureError> {
        let Some((plan, bitmap)) = self.journal.plan() else { return Ok(()) };
        let request = OpenRequest {
            generation: self.journal.identity().generation,
            kind: plan.kind,
            tracker: plan.tracker,
            sectors: bitmap.count(),
            doubt: plan.doubt.clone(),
        };
        let reply = self.api.open(self.id(), cycle, request).await?;
        let kept: std::collections::BTreeMap<u64, _> =
            reply.stored.iter().map(|s| (s.first.0, (s.hash, s.len.0))).collect();
        self.journal.keep_stored(|s| kept.get(&s.first) == Some(&(s.hash, s.len)));
        if let Some((_, bitmap)) = self.journal.plan() {
            let stored = crate::capture::stored_bytes(bitmap, self.journal.stored());
            self.capture.counts.bytes_stored.store(stored, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sorts failures into those after which it goes on and those that end the disk's protection.
    async fn survive(&mut self, error: CaptureError) -> Result<(), DiskError> {
        let disk = self.id();
        match error {
            CaptureError::Journal(source) => Err(DiskError::Journal { disk, source }),
            CaptureError::Api(source) if !source.may_pass() && source.code() != Some(ErrorCode::WrongState) => {
                Err(DiskError::Refused { disk, source })
            }
            other => {
                tracing::warn!(%disk, error = %other, "not now; trying again");
                Ok(())
            }
        }
    }
}

fn size_changed(name: &str, was: u64, is: u64) -> String {
    format!(
        "{name}: the source had {was} bytes and has {is} now; \
         a disk that grew or shrank is protected anew: remove its state folder and start again with a new target"
    )
}

#[cfg(test)]
mod tests;
