//! The end of a cycle, whatever it is.

use super::access::{impossible, repository_failed};
use super::cell::{Cell, DiskState};
use super::{Inner, Reply};
use crate::repository::{CycleRecord, DiskRecord, LogEntry};
use sluice_proto::cycle::{CycleKind, Event as CycleEvent, FailReason, State as CycleState};
use sluice_proto::disk::{Event as DiskEvent, State as DiskPhase};
use sluice_proto::machine::ImpossibleEvent;
use sluice_proto::manifest::cycle_folder;
use sluice_proto::schedule::Previous;
use sluice_proto::{CycleNo, Digest};

/// How a cycle ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// Why it failed, and in words; `None` where it is verified.
    pub(super) failed: Option<(FailReason, String)>,
    pub(super) bitmaps_equal: Option<bool>,
    pub(super) source_digest: Option<Digest>,
    pub(super) target_digest: Option<Digest>,
    pub(super) whole_disk: Option<Digest>,
    /// What tells the agent that the hydrator found this.
    pub(super) proof: Option<Digest>,
}

impl Ending {
    /// A failure that no hydrator found.
    pub(super) fn failed(reason: FailReason, detail: impl Into<String>) -> Self {
        Self {
            failed: Some((reason, detail.into())),
            bitmaps_equal: None,
            source_digest: None,
            target_digest: None,
            whole_disk: None,
            proof: None,
        }
    }
}

/// Every so many cycles the oldest are forgotten.
const PRUNE_EVERY: u64 = 64;

impl Inner {
    /// Ends the open cycle: saves it with what it means for the disk, lets its objects be deleted, frees its slot.
    pub(super) async fn end(&self, cell: &Cell, state: &mut DiskState, ending: Ending) -> Reply<()> {
        let Some(open) = &state.open else { return Ok(()) };
        let now_ms = self.now_ms();
        let cycle = ended(&open.record, &ending, now_ms).map_err(impossible)?;
        let disk = moved(&state.record, &cycle, now_ms).map_err(impossible)?;
        let repository = &self.ports.repository;
        repository.save(&disk, Some(&cycle)).await.map_err(repository_failed)?;
        state.previous = self.previous_of(&disk, &cycle);
        state.ended = Some(cycle.clone());
        state.record = disk;
        state.open = None;
        self.janitor.remove(cycle_folder(cycle.disk, cycle.generation, cycle.cycle));
        self.release(cell.disk);
        cell.ring();
        self.work_changed();
        self.tell(&cycle).await;
        // Records of what is gone: where this fails they are looked at at no other time, and go with the cycle.
        if let Err(error) = repository.forget_segments(cycle.disk, cycle.cycle, None).await {
            tracing::warn!(%error, disk = %cycle.disk, "records of deleted segments stay");
        }
        if cycle.cycle.0.is_multiple_of(PRUNE_EVERY)
            && let Err(error) = repository.prune_cycles(cycle.disk, self.settings.history).await
        {
            tracing::warn!(%error, disk = %cycle.disk, "old cycles stay");
        }
        Ok(())
    }

    /// What the schedule goes by after this cycle.
    pub(super) fn previous_of(&self, disk: &DiskRecord, cycle: &CycleRecord) -> Previous {
        let ended = cycle.end_ms.unwrap_or(cycle.start_ms);
        let ended_ms = self.past_tick(ended);
        match cycle.reason {
            None => {
                let started_ms = ended_ms.saturating_sub(ended.saturating_sub(cycle.start_ms));
                Previous::Verified { kind: cycle.kind, started_ms, ended_ms }
            }
            Some(_) => Previous::Failed { ended_ms, failures: disk.failures.max(1) },
        }
    }

    async fn tell(&self, cycle: &CycleRecord) {
        let (disk, number, kind) = (cycle.disk, cycle.cycle, cycle.kind);
        let (what, detail) = match cycle.reason {
            None => {
                tracing::info!(%disk, cycle = %number, %kind, "a cycle is verified");
                ("verified", format!("cycle {number} ({kind})"))
            }
            Some(reason) => {
                let words = cycle.detail.as_deref().unwrap_or_default();
                tracing::warn!(%disk, cycle = %number, %kind, %reason, words, "a cycle failed; it will be tried again");
                ("failed", format!("cycle {number} ({kind}): {reason}: {words}"))
            }
        };
        self.audit(LogEntry::APPLIANCE, Some(disk), what, detail).await;
    }

    /// Records a cycle that the agent knows and this appliance does not, as it was restored from an older state: it has
    /// failed, so that its sectors go into the next.
    pub(super) async fn fail_unknown(&self, state: &mut DiskState, number: CycleNo) -> Reply<()> {
        let now_ms = self.now_ms();
        let (disk, generation) = (state.record.disk, state.record.generation);
        let mut cycle = CycleRecord::planned(disk, number, generation, CycleKind::Resync, now_ms);
        cycle.state = CycleState::Failed;
        cycle.end_ms = Some(now_ms);
        cycle.reason = Some(FailReason::Abandoned);
        cycle.detail = Some("this appliance does not know the cycle: it was restored from an older state".into());
        self.ports.repository.save(&state.record, Some(&cycle)).await.map_err(repository_failed)?;
        state.previous = self.previous_of(&state.record, &cycle);
        self.janitor.remove(cycle_folder(disk, generation, number));
        if number > state.ended() {
            state.ended = Some(cycle.clone());
        }
        self.tell(&cycle).await;
        Ok(())
    }
}

fn ended(open: &CycleRecord, ending: &Ending, now_ms: u64) -> Result<CycleRecord, ImpossibleEvent> {
    let mut cycle = open.clone();
    cycle.end_ms = Some(now_ms);
    cycle.source_digest = ending.source_digest;
    cycle.target_digest = ending.target_digest;
    cycle.whole_disk = ending.whole_disk;
    cycle.proof = ending.proof;
    cycle.bitmaps_equal = ending.bitmaps_equal;
    match &ending.failed {
        Some((reason, detail)) => {
            cycle.state = cycle.state.on(CycleEvent::Fail)?;
            cycle.reason = Some(*reason);
            cycle.detail = Some(detail.chars().take(DETAIL_CHARS_MAX).collect());
        }
        None => {
            if cycle.state == CycleState::Committed {
                // Claimed while it was being shipped: nobody told of the claim since the commit.
                cycle.state = cycle.state.on(CycleEvent::Claim)?;
            }
            cycle.state = cycle.state.on(CycleEvent::Verify)?;
        }
    }
    Ok(cycle)
}

/// The longest text that is kept with a cycle.
pub(super) const DETAIL_CHARS_MAX: usize = 4096;

/// What the end of `cycle` makes of its disk.
fn moved(disk: &DiskRecord, cycle: &CycleRecord, now_ms: u64) -> Result<DiskRecord, ImpossibleEvent> {
    let mut disk = disk.clone();
    match cycle.reason {
        None => {
            disk.phase = disk.phase.on(DiskEvent::verified(cycle.kind))?;
            disk.verified =
                cycle.manifest.map(|manifest| sluice_proto::wire::CycleRef { cycle: cycle.cycle, manifest });
            disk.verified_start_ms = Some(cycle.start_ms);
            disk.failures = 0;
            if cycle.kind != CycleKind::Delta {
                disk.compared_ms = Some(now_ms);
            }
            disk.final_wanted &= cycle.kind != CycleKind::Final;
        }
        Some(reason) => {
            if reason == FailReason::WrongKey && disk.verified.is_none() {
                // The hydrator that claimed it first can't open it: it may be for another.
                disk.hydrator = None;
            }
            if let Some(event) = DiskEvent::failed(cycle.kind) {
                disk.phase = disk.phase.on(event)?;
            }
            if reason.is_doubt() {
                disk.phase = disk.phase.on(DiskEvent::Doubt)?;
            }
            if reason != FailReason::Abandoned {
                disk.failures = disk.failures.saturating_add(1);
                // After a failed final cycle the operator decides.
                disk.final_wanted &= cycle.kind != CycleKind::Final;
            }
        }
    }
    request_final(&mut disk)?;
    Ok(disk)
}

/// Tells a disk that is in step of a final cycle that is wanted. To be called before a disk is saved.
pub(super) fn request_final(disk: &mut DiskRecord) -> Result<(), ImpossibleEvent> {
    if disk.final_wanted && disk.phase == DiskPhase::InStep {
        disk.phase = disk.phase.on(DiskEvent::FinalRequested)?;
    }
    Ok(())
}
