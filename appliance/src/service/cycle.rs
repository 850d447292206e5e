//! Opening a cycle that the agent has planned, giving it up, and the digests that its plan may need.

use super::access::{impossible, refuse, repository_failed, store_failed};
use super::cell::{Cell, DiskState, OpenCycle};
use super::finish::{DETAIL_CHARS_MAX, Ending};
use super::next::begun;
use super::{Inner, Reply, Service};
use crate::identity::Identity;
use bytes::Bytes;
use sluice_proto::cycle::{CycleKind, Event as CycleEvent, State as CycleState};
use sluice_proto::digests::{PART_GRAINS, part_count};
use sluice_proto::manifest::{MANIFEST_NAME, cycle_folder};
use sluice_proto::wire::{ErrorCode, GiveUp, OpenReply, OpenRequest, WAIT_MS_MAX};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The largest part of digests, in bytes: its table as it is, and what seals it.
pub const DIGESTS_BYTES_MAX: u64 = PART_GRAINS * 32 + 4096;

/// The key of a part of the digests.
pub(super) fn digests_key(open: &OpenCycle, part: u64) -> String {
    let cycle = &open.record;
    format!("{}/digests-{part:06}", cycle_folder(cycle.disk, cycle.generation, cycle.cycle))
}

impl Service {
    /// Opens a planned cycle; asked again it tells what is stored, part by part. Another plan than before takes the place of the one
    /// before, of which nothing is kept; one of no sectors does not.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `BadRequest`.
    pub async fn open(&self, who: &Identity, disk: DiskId, cycle: CycleNo, request: OpenRequest) -> Reply<OpenReply> {
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        let mut state = cell.lock().await;
        state.current(request.generation)?;
        let open = state.open(cycle)?;
        check_plan(&state, &open.record.kind, &request)?;
        match open.record.state {
            CycleState::Planned => inner.capture(&cell, &mut state, &request).await?,
            _ if same_plan(open, &request) => {
                open.record.state.on(CycleEvent::Resume).map_err(impossible)?;
            }
            CycleState::Capturing | CycleState::Shipping if compares(open, &request) => {}
            CycleState::Capturing | CycleState::Shipping => inner.capture(&cell, &mut state, &request).await?,
            state => {
                let message = format!("cycle {cycle} of {disk} is {state} with another plan; give it up");
                return refuse(ErrorCode::WrongState, message);
            }
        }
        inner.work_changed();
        let mut after = state.open(cycle)?.segments.after(request.after.as_deref().unwrap_or_default());
        let stored = after.by_ref().take(inner.settings.segments_told_max.get()).collect();
        Ok(OpenReply { stored, more: after.next().is_some() })
    }

    /// Ends a cycle that the agent can't finish.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`.
    pub async fn give_up(&self, who: &Identity, disk: DiskId, cycle: CycleNo, request: GiveUp) -> Reply<()> {
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        let mut state = cell.lock().await;
        state.current(request.generation)?;
        if state.open(cycle).is_err() {
            // Asked again, as the first answer was lost.
            let known = inner.ports.repository.cycle(disk, cycle).await.map_err(repository_failed)?;
            if known.is_some_and(|known| known.state == CycleState::Failed) {
                return Ok(());
            }
        }
        state.open(cycle)?;
        inner.end(&cell, &mut state, Ending::failed(request.reason, request.detail)).await
    }

    /// A part of the digests of the target's grains. The first call orders them from the hydrator.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `BadRequest`, `Unavailable`.
    pub async fn digests(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> Reply<Option<Bytes>> {
        if !self.digests_are_there(who, disk, cycle, generation, part, wait_ms).await? {
            return Ok(None);
        }
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        let state = cell.lock().await;
        let key = digests_key(state.open(cycle)?, part);
        drop(state);
        inner.moves(&cell);
        inner.ports.store.get(&key, DIGESTS_BYTES_MAX).await.map(Some).map_err(store_failed)
    }

    /// Whether that part is there, waiting for it as long as is asked.
    ///
    /// # Errors
    /// As for [`Self::digests`].
    pub async fn digests_are_there(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> Reply<bool> {
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        loop {
            let seen = cell.bell().newest();
            inner.hears(&cell);
            let mut state = cell.lock().await;
            state.current(generation)?;
            check_part(&state, part)?;
            inner.want_digests(&mut state, cycle).await?;
            let is_there = state.open(cycle)?.digests.contains(&part);
            drop(state);
            if is_there || Instant::now() >= deadline {
                return Ok(is_there);
            }
            tokio::select! {
                biased;
                () = cell.bell().after(seen) => {}
                () = sleep_until(deadline) => {}
            }
        }
    }
}

impl Inner {
    /// Takes the agent's plan over into the cycle.
    async fn capture(&self, cell: &Cell, state: &mut DiskState, request: &OpenRequest) -> Reply<()> {
        let Some(open) = &state.open else { return Ok(()) };
        let mut disk = state.record.clone();
        let mut cycle = open.record.clone();
        let again = cycle.state != CycleState::Planned;
        if again {
            // As if it had just been ordered: what was stored belongs to another plan. An agent that compares has opened the
            // cycle before it knew what differs, so that this is nothing special where nothing was stored.
            if !open.segments.is_empty() {
                tracing::warn!(disk = %disk.disk, cycle = %cycle.cycle, "the agent opens the cycle with another plan");
            }
            let folder = cycle_folder(disk.disk, cycle.generation, cycle.cycle);
            // A manifest may lie there whose commit was not recorded. Not by the janitor: it must be gone before the next.
            let gone = self.ports.store.delete(&format!("{folder}/{MANIFEST_NAME}")).await;
            gone.map_err(store_failed)?;
            let names = open.segments.names();
            let forgotten = self.ports.repository.forget_segments(disk.disk, cycle.cycle, Some(&names)).await;
            forgotten.map_err(repository_failed)?;
            self.janitor.delete_all(&folder, names);
            cycle.state = CycleState::Planned;
            cycle.sectors_stored.0 = 0;
        }
        cycle.state = cycle.state.on(CycleEvent::Open).map_err(impossible)?;
        if request.kind != cycle.kind {
            disk.phase = begun(disk.phase, request.kind)?;
            cycle.kind = request.kind;
        }
        cycle.tracker = Some(request.tracker);
        cycle.sectors = request.sectors;
        cycle.detail = request.doubt.as_ref().map(|doubt| doubt.chars().take(DETAIL_CHARS_MAX).collect());
        self.ports.repository.save(&disk, Some(&cycle)).await.map_err(repository_failed)?;
        tracing::info!(
            disk = %disk.disk, cycle = %cycle.cycle, kind = %cycle.kind, sectors = %cycle.sectors, "a cycle is opened"
        );
        self.moves(cell);
        // A delta that turns out to be a comparison is no short cycle for which others could wait.
        self.queue.lock().reclassify(cell.disk, cycle.kind.into());
        let digests = open.digests.clone();
        state.record = disk;
        state.open = Some(OpenCycle { digests, ..OpenCycle::new(cycle) });
        Ok(())
    }

    async fn want_digests(&self, state: &mut DiskState, cycle: CycleNo) -> Reply<()> {
        let open = state.open(cycle)?;
        if open.record.digests_wanted {
            return Ok(());
        }
        let mut wanted = open.record.clone();
        wanted.digests_wanted = true;
        self.ports.repository.save(&state.record, Some(&wanted)).await.map_err(repository_failed)?;
        if let Some(open) = &mut state.open {
            open.record = wanted;
        }
        self.work_changed();
        Ok(())
    }
}

/// Which plans may follow which order: in doubt, an agent compares.
fn check_plan(state: &DiskState, ordered: &CycleKind, request: &OpenRequest) -> Reply<()> {
    let fits = request.kind == *ordered
        || (request.kind == CycleKind::Resync && matches!(ordered, CycleKind::Delta | CycleKind::Final));
    if !fits {
        let message =
            format!("a {ordered} cycle of {} was ordered, which can't be a {}", state.record.disk, request.kind);
        // Not what nobody could ask for: the order may be the answer to a late question of an agent that has died since, to an
        // appliance that was put back. The plan of before is given up then.
        return refuse(ErrorCode::WrongState, message);
    }
    let size = state.record.size.sectors_ceil();
    if request.sectors > size {
        let message = format!("{} has {size} sectors; {} can't be planned", state.record.disk, request.sectors);
        return refuse(ErrorCode::BadRequest, message);
    }
    Ok(())
}

fn same_plan(open: &OpenCycle, request: &OpenRequest) -> bool {
    let known = &open.record;
    (known.kind, known.tracker, known.sectors) == (request.kind, Some(request.tracker), request.sectors)
}

/// True for what an agent says that compares and has no plan yet. It takes nothing from a plan that is there: it may come late,
/// behind the plan that the comparison led to, and what is stored of that would be sent anew.
fn compares(open: &OpenCycle, request: &OpenRequest) -> bool {
    let known = &open.record;
    request.sectors.0 == 0 && (known.kind, known.tracker) == (request.kind, Some(request.tracker))
}

pub(super) fn check_part(state: &DiskState, part: u64) -> Reply<()> {
    let parts = part_count(state.record.size.sectors_ceil());
    match part < parts {
        true => Ok(()),
        false => {
            let message = format!("the digests of {} have {parts} parts, and none of number {part}", state.record.disk);
            refuse(ErrorCode::BadRequest, message)
        }
    }
}
