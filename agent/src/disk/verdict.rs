//! What the appliance says: verdicts to be noted, cycles to be begun.

use super::DiskAgent;
use crate::capture::CaptureError;
use crate::journal::JournalError;
use sluice_client::ApiError;
use sluice_proto::wire::{CycleRef, NextReply, Verdict};
use sluice_proto::{CycleNo, Digest};
use std::sync::atomic::Ordering;

impl DiskAgent {
    pub(super) async fn obey(&mut self, reply: NextReply) -> Result<(), CaptureError> {
        if let Some(verdict) = reply.verdict {
            return Ok(self.settle(verdict)?);
        }
        let Some(start) = reply.start else { return Ok(()) };
        let settled = self.journal.identity().settled;
        if start.cycle <= settled {
            // A plan under a number that is done with would be dropped as done at the next start.
            let what = format!("cycle {} was ordered, but cycle {settled} is done with", start.cycle);
            return Err(ApiError::Unreadable(what).into());
        }
        let running = self.running();
        if running == Some(start.cycle) {
            return Ok(());
        }
        if running.is_some() {
            // The appliance went on without what runs here: its sectors go into the cycle that it orders.
            tracing::warn!(disk = %self.id(), ?running, ordered = ?start.cycle, "an unfinished cycle gives way");
            self.journal.failed(settled)?;
        }
        self.plan(start).await
    }

    /// Deals with a verdict. No sector is let go but by the hydrator's proof of the very manifest that was made here.
    fn settle(&mut self, verdict: Verdict) -> Result<(), JournalError> {
        let cycle = verdict.cycle();
        let running = self.running() == Some(cycle);
        match verdict {
            Verdict::Verified { manifest, proof, .. } if running && self.is_proven(manifest, proof)? => {
                self.log_end(cycle, "verified");
                let verified = CycleRef { cycle, manifest };
                self.journal.verified(verified)?;
                if let Some(table) = &mut self.table {
                    table.verified(verified);
                }
            }
            Verdict::Verified { .. } if running => {
                let doubt = format!(
                    "cycle {cycle} was said to be verified, without the hydrator's proof for the manifest that was made here: an \
                     appliance that is not what it was, or a hydrator that is older than this agent"
                );
                tracing::error!(disk = %self.id(), "{doubt}; source and target will be compared");
                self.fail(cycle, Some(doubt))?;
            }
            Verdict::Failed { reason, detail, .. } => {
                tracing::warn!(disk = %self.id(), ?cycle, ?reason, detail, "cycle failed; its sectors go into the next");
                if running {
                    self.log_end(cycle, "failed");
                }
                self.fail(cycle, reason.is_doubt().then_some(detail))?;
            }
            Verdict::Verified { manifest, .. } => self.journal.verified_elsewhere(CycleRef { cycle, manifest })?,
        }
        (self.committed, self.short) = (None, None);
        Ok(())
    }

    /// The doubt first: it must be there when the next cycle is planned.
    fn fail(&mut self, cycle: CycleNo, doubt: Option<String>) -> Result<(), JournalError> {
        if let Some(table) = &mut self.table {
            table.lose();
        }
        if doubt.is_some() {
            self.journal.update(|identity| identity.doubt = doubt)?;
        }
        // Where another runs, it goes on.
        self.journal.settle(cycle)
    }

    /// Whether the hydrator says this of the manifest that was made here. The appliance's word alone is not enough.
    fn is_proven(&self, manifest: Digest, proof: Option<Digest>) -> Result<bool, JournalError> {
        let made = self.journal.manifest()?.is_some_and(|bytes| Digest::of(&bytes) == manifest);
        let key = self.journal.identity().data_key.key();
        Ok(made && proof.is_some_and(|proof| key.is_proof(manifest, proof)))
    }

    /// One line for each cycle that was captured here.
    fn log_end(&self, cycle: CycleNo, outcome: &str) {
        let Some((plan, bitmap)) = self.journal.plan() else { return };
        let counts = &self.capture.counts;
        tracing::info!(
            disk = %self.id(),
            cycle = cycle.0,
            kind = %plan.kind,
            tracker = %plan.tracker,
            sectors = bitmap.count().0,
            bytes_read = counts.bytes_read.load(Ordering::Relaxed),
            bytes_sent = counts.bytes_sent.load(Ordering::Relaxed),
            seconds = self.begun.elapsed().as_millis() as f64 / 1000.0,
            "cycle {outcome}"
        );
    }
}
