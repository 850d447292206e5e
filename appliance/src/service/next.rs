//! What an agent is to do next: a verdict to note, or a cycle to begin.

use super::access::{impossible, refuse, repository_failed};
use super::admit::Due;
use super::cell::{Cell, DiskState, OpenCycle};
use super::finish::Ending;
use super::{Inner, Reply, Service};
use crate::identity::Identity;
use crate::repository::CycleRecord;
use sluice_proto::cycle::{CycleKind, FailReason, State as CycleState};
use sluice_proto::disk::{Event as DiskEvent, State as DiskPhase};
use sluice_proto::wire::{ErrorCode, NextReply, NextRequest, Start, Verdict, WAIT_MS_MAX};
use sluice_proto::{CycleNo, DiskId};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How far ahead of this appliance an agent may be: it would take centuries of cycles to be further.
const AHEAD_MAX: u64 = 1 << 32;

impl Service {
    /// Answers at once where there is something to do, else waits for it as long as was asked.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `BadRequest`.
    pub async fn next(&self, who: &Identity, disk: DiskId, request: NextRequest) -> Reply<NextReply> {
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms.min(WAIT_MS_MAX));
        loop {
            let seen = cell.bell().newest();
            inner.hears(&cell);
            let mut state = cell.lock().await;
            state.current(request.generation)?;
            inner.learn(&cell, &mut state, &request).await?;
            let (reply, wake) = inner.look(&cell, &mut state, &request).await?;
            drop(state);
            if reply.verdict.is_some() || reply.start.is_some() || Instant::now() >= deadline {
                return Ok(reply);
            }
            tokio::select! {
                biased;
                () = cell.bell().after(seen) => {}
                () = sleep_until(wake.map_or(deadline, |at| at.min(deadline))) => {}
            }
        }
    }
}

impl Inner {
    /// Takes note of what the agent knows. It may know more than this appliance, which then was restored from an older
    /// state; then nothing is believed of the target until it was compared.
    async fn learn(&self, cell: &Cell, state: &mut DiskState, request: &NextRequest) -> Reply<()> {
        let told = request.running.unwrap_or_default().max(request.settled);
        // Ordered again, a cycle that the agent is done with would be refused by it for ever.
        let done_with = state.open.as_ref().is_some_and(|open| open.record.cycle <= request.settled);
        if told > state.record.newest || done_with {
            self.catch_up(cell, state, told).await?;
        }
        if let Some(running) = request.running.filter(|c| *c > request.settled) {
            let open = state.open.as_ref().is_some_and(|open| open.record.cycle == running);
            let repository = &self.ports.repository;
            if !open && repository.cycle(cell.disk, running).await.map_err(repository_failed)?.is_none() {
                self.fail_unknown(state, running).await?;
            }
        }
        if request.settled > state.record.settled {
            let mut record = state.record.clone();
            record.settled = request.settled;
            self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
            state.record = record;
        }
        Ok(())
    }

    async fn catch_up(&self, cell: &Cell, state: &mut DiskState, told: CycleNo) -> Reply<()> {
        let known = state.record.newest;
        if told.0.saturating_sub(known.0) > AHEAD_MAX {
            return refuse(ErrorCode::BadRequest, format!("{} can't have come to cycle {told}", cell.disk));
        }
        tracing::error!(
            disk = %cell.disk, %known, %told,
            "the agent is further than this appliance, which was restored from an older state; source and target will be compared"
        );
        let detail = format!("the agent has gone on to cycle {told}: this appliance was restored from an older state");
        self.end(cell, state, Ending::failed(FailReason::Abandoned, detail)).await?;
        let mut record = state.record.clone();
        record.newest = told.max(known);
        record.phase = record.phase.on(DiskEvent::Doubt).map_err(impossible)?;
        self.ports.repository.save(&record, None).await.map_err(repository_failed)?;
        state.record = record;
        Ok(())
    }

    /// What there is to do now, and when to look again if nothing rings before.
    async fn look(
        &self,
        cell: &Cell,
        state: &mut DiskState,
        request: &NextRequest,
    ) -> Reply<(NextReply, Option<Instant>)> {
        if state.ended() > request.settled {
            let ended = self.ports.repository.first_ended(state.record.disk, request.settled).await;
            if let Some(cycle) = ended.map_err(repository_failed)? {
                return Ok((NextReply { verdict: Some(verdict(cycle)?), ..NextReply::default() }, None));
            }
        }
        if let Some(open) = &state.open {
            let reply = NextReply { start: repeated_start(open, request), ..NextReply::default() };
            return Ok((reply, None));
        }
        let Some(due) = self.due(state) else {
            self.not_due(cell.disk);
            return Ok((NextReply::default(), None));
        };
        let left = due.tick.saturating_sub(self.tick());
        let mut reply = NextReply { due_ms: Some(left), ..NextReply::default() };
        if left > 0 {
            self.not_due(cell.disk);
            return Ok((reply, Some(self.instant(due.tick))));
        }
        if self.admit(cell, due.kind) {
            self.moves(cell);
            reply.start = Some(self.begin(state, due).await?);
        }
        Ok((reply, None))
    }

    /// Begins the next cycle.
    async fn begin(&self, state: &mut DiskState, due: Due) -> Reply<Start> {
        let mut disk = state.record.clone();
        disk.newest = disk.newest.next();
        disk.phase = begun(disk.phase, due.kind)?;
        let mut cycle = CycleRecord::planned(disk.disk, disk.newest, disk.generation, due.kind, self.now_ms());
        cycle.previous = disk.verified;
        cycle.read_rate = due.read_rate;
        self.ports.repository.save(&disk, Some(&cycle)).await.map_err(repository_failed)?;
        tracing::info!(disk = %disk.disk, cycle = %cycle.cycle, kind = %cycle.kind, "a cycle begins");
        let open = OpenCycle::new(cycle);
        let start = start(&open);
        state.record = disk;
        state.open = Some(open);
        state.sync_wanted = false;
        self.work_changed();
        Ok(start)
    }
}

/// The disk's state once a cycle of `kind` has begun. A comparison of a disk that is in step is a doubt by order.
pub(super) fn begun(phase: DiskPhase, kind: CycleKind) -> Reply<DiskPhase> {
    let mut phase = phase;
    if kind == CycleKind::Resync && phase != DiskPhase::Resync {
        phase = phase.on(DiskEvent::Doubt).map_err(impossible)?;
    }
    match DiskEvent::started(kind) {
        Some(event) => phase.on(event).map_err(impossible),
        None => Ok(phase),
    }
}

fn start(open: &OpenCycle) -> Start {
    let cycle = &open.record;
    Start { cycle: cycle.cycle, kind: cycle.kind, previous: cycle.previous, read_rate: cycle.read_rate }
}

/// The order to begin is repeated until the agent says that it has; a cycle that is committed needs no agent any more.
fn repeated_start(open: &OpenCycle, request: &NextRequest) -> Option<Start> {
    let begins = matches!(open.record.state, CycleState::Planned | CycleState::Capturing | CycleState::Shipping);
    (begins && request.running != Some(open.record.cycle)).then(|| start(open))
}

fn verdict(cycle: CycleRecord) -> Reply<Verdict> {
    match (cycle.reason, cycle.manifest, cycle.target_digest) {
        (Some(reason), ..) => {
            Ok(Verdict::Failed { cycle: cycle.cycle, reason, detail: cycle.detail.unwrap_or_default() })
        }
        (None, Some(manifest), Some(target_digest)) => {
            Ok(Verdict::Verified { cycle: cycle.cycle, manifest, target_digest, proof: cycle.proof })
        }
        _ => {
            tracing::error!(disk = %cycle.disk, cycle = %cycle.cycle, "a verified cycle is stored without its digests");
            refuse(ErrorCode::Internal, "the appliance's record of a verified cycle is damaged")
        }
    }
}
