//! Shipping a planned cycle to its commit, and giving up one that can't be finished.

use super::DiskAgent;
use crate::capture::{CaptureError, stored_bytes};
use crate::source::SourceError;
use sluice_proto::cycle::{FailReason, TrackerKind};
use sluice_proto::wire::{ErrorCode, GiveUp, OpenRequest};
use sluice_proto::{CycleNo, Digest};
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl DiskAgent {
    /// Ships the running cycle to its commit, or gives it up where that can't be.
    pub(super) async fn ship(&mut self, cycle: CycleNo) -> Result<(), CaptureError> {
        let Err(error) = self.capture_and_commit(cycle).await else { return Ok(()) };
        match error {
            CaptureError::Source(error) => self.give_up(cycle, error.reason, error.detail).await,
            CaptureError::Vanished(error) => self.give_up_for_good(cycle, error, CaptureError::Vanished).await,
            CaptureError::Grown(error) => self.give_up_for_good(cycle, error, CaptureError::Grown).await,
            CaptureError::Api(error) if error.code() == Some(ErrorCode::NotStored) => {
                // The appliance tells what it has when the cycle is opened again; the rest is sent again, and as it is
                // read anew it needs a new manifest.
                self.journal.drop_manifest()?;
                Err(error.into())
            }
            CaptureError::Api(error) if error.code() == Some(ErrorCode::WrongState) => {
                // It has ended, and its verdict tells how; or it stands there with another plan, which nobody may apply
                // in the place of this one.
                let detail = format!("the agent can't go on with it: {error}");
                match self.give_up(cycle, FailReason::Other, detail).await {
                    Err(CaptureError::Api(error)) if error.code() == Some(ErrorCode::WrongState) => {
                        self.committed = Some((cycle, Instant::now()));
                        Ok(())
                    }
                    given_up => given_up,
                }
            }
            error => Err(error),
        }
    }

    /// Tells the appliance that the cycle can't be finished. Its verdict, which comes like any other, frees its sectors.
    pub(super) async fn give_up(
        &mut self,
        cycle: CycleNo,
        reason: FailReason,
        detail: String,
    ) -> Result<(), CaptureError> {
        tracing::warn!(disk = %self.id(), ?cycle, ?reason, detail, "cycle given up");
        let generation = self.journal.identity().generation;
        self.api.give_up(self.id(), cycle, GiveUp { generation, reason, detail }).await?;
        self.committed = Some((cycle, Instant::now()));
        Ok(())
    }

    /// Gives up a cycle, and with it the disk as it was opened: one that has vanished, as a disk that comes back under its
    /// name is another one to the kernel, or one that has grown. It is opened and tracked anew.
    pub(super) async fn give_up_for_good(
        &mut self,
        cycle: CycleNo,
        error: SourceError,
        end: fn(SourceError) -> CaptureError,
    ) -> Result<(), CaptureError> {
        match self.give_up(cycle, error.reason, error.detail.clone()).await {
            // It has ended already, and its verdict tells how.
            Err(CaptureError::Api(error)) if error.code() == Some(ErrorCode::WrongState) => {}
            given_up => given_up?,
        }
        Err(end(error))
    }

    async fn capture_and_commit(&mut self, cycle: CycleNo) -> Result<(), CaptureError> {
        self.check_size().await?;
        self.open(cycle).await?;
        if self.journal.manifest()?.is_none() {
            let by_grains = self.journal.plan().is_some_and(|(plan, _)| plan.tracker == TrackerKind::Scan);
            let mut table = self.table.as_mut().filter(|table| by_grains && table.is_noting());
            let grains = table.is_some();
            let note = |block: &crate::capture::Encoded| {
                if let Some(table) = &mut table {
                    table.note(&block.grains);
                }
            };
            self.capture.ship(&mut self.journal, grains, note).await?;
            // What has grown meanwhile is not committed in its old size: a final cycle would leave its end behind.
            self.check_size().await?;
        }
        let manifest = self.manifest().await?;
        let identity = self.journal.identity();
        self.api.commit(identity.disk, cycle, identity.generation, manifest.into()).await?;
        self.committed = Some((cycle, Instant::now()));
        Ok(())
    }

    pub(super) async fn check_size(&self) -> Result<(), CaptureError> {
        let (was, is) = (self.journal.identity().size, self.capture.source.current_size().await);
        let is = is.map_err(CaptureError::Vanished)?;
        if was == is {
            return Ok(());
        }
        let detail = super::size_changed(&self.capture.source.name(), was.0, is.0);
        let error = SourceError { reason: FailReason::SourceChangedSize, detail };
        Err(if was < is { CaptureError::Grown(error) } else { error.into() })
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
            after: None,
        };
        // Two attempts may have stored segments that begin alike, so that it is by their hashes that they are known.
        let there = self.stored_there(cycle, request).await?;
        self.journal.keep_stored(|s| there.binary_search(&s.hash).is_ok());
        if let Some((_, bitmap)) = self.journal.plan() {
            let stored = stored_bytes(bitmap, self.journal.stored());
            self.capture.counts.bytes_stored.store(stored, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The hashes of all segments that the appliance has, sorted. It tells them part by part.
    async fn stored_there(&self, cycle: CycleNo, mut request: OpenRequest) -> Result<Vec<Digest>, CaptureError> {
        let mut hashes = Vec::new();
        loop {
            let reply = self.api.open(self.id(), cycle, request.clone()).await?;
            hashes.extend(reply.stored.iter().map(|segment| segment.hash));
            let last = reply.stored.into_iter().next_back().map(|segment| segment.name);
            if !reply.more || last <= request.after {
                hashes.sort_unstable();
                return Ok(hashes);
            }
            request.after = last;
        }
    }
}
