//! What hydrators ask: work, claims, verdicts, and the digests that they deliver.

use super::access::{bad_bytes, impossible, need, no_such_disk, refuse, repository_failed, store_failed};
use super::cell::{DiskState, OpenCycle};
use super::cycle::{DIGESTS_BYTES_MAX, check_part, digests_key};
use super::finish::Ending;
use super::{Inner, Reply, Service};
use crate::identity::{Identity, Role};
use crate::repository::CycleRecord;
use bytes::Bytes;
use sluice_proto::cycle::{CycleKind, Event as CycleEvent, State as CycleState};
use sluice_proto::digests::part_count;
use sluice_proto::header::{Header, ObjectKind};
use sluice_proto::manifest::cycle_folder;
use sluice_proto::wire::{
    AppliedRequest, ClaimReply, ErrorCode, Lease, Outcome, SEGMENTS_TOLD_MAX, StoredSegment, VerdictRequest,
    WAIT_MS_MAX, Work, WorkReply, WorkRequest,
};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Changes that follow each other so closely are told in one reply.
const GATHER: Duration = Duration::from_millis(20);
/// The reply names segments of cycles that are being shipped: the more there are, the less often it is made.
const SEGMENTS_PER_MS: usize = 40;
/// So many of a cycle at most, 32 GiB of what does not compress; fewer where there are many disks.
const SEGMENTS_SHOWN_MAX: usize = 8192;
/// And never so few that they could all be ones that a hydrator has applied and not told of: it goes on by 32 at a time, and
/// tells of those before the next.
const SEGMENTS_SHOWN_MIN: usize = 128;

impl Service {
    /// Waits until the work of this hydrator is another than what it has seen.
    ///
    /// # Errors
    /// `Forbidden` for everybody else.
    pub async fn work(&self, who: &Identity, request: WorkRequest) -> Reply<WorkReply> {
        need(who, Role::Hydrator)?;
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms.min(WAIT_MS_MAX));
        let bell = &self.inner.work;
        while bell.newest() == request.seen && Instant::now() < deadline {
            tokio::select! {
                biased;
                () = bell.after(request.seen) => {
                    let gather = GATHER + Duration::from_millis(self.inner.segments_shown().await);
                    sleep(gather.min(deadline.saturating_duration_since(Instant::now()))).await;
                }
                () = sleep_until(deadline) => {}
            }
        }
        let revision = bell.newest();
        let mut work = Vec::new();
        let cells = self.inner.all_cells();
        let shown_max = shown_max(cells.len());
        for cell in cells {
            let state = cell.lock().await;
            if let Some(open) = state.open.as_ref().filter(|_| state.may_hydrate(who)) {
                work.push(work_of(&state, open, shown_max));
            }
        }
        Ok(WorkReply { revision, work })
    }

    /// Claims a disk: from now on only this lease's verdicts count.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`.
    pub async fn claim(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
    ) -> Reply<ClaimReply> {
        let inner = &self.inner;
        let cell = inner.hydrators_cell(who, disk).await?;
        let mut state = cell.lock().await;
        if !state.may_hydrate(who) {
            // Another hydrator was faster to the first claim.
            return no_such_disk(disk);
        }
        state.current(generation)?;
        let mut claimed = state.open(cycle)?.record.clone();
        let event = match claimed.state {
            CycleState::Committed => Some(CycleEvent::Claim),
            CycleState::Applying => Some(CycleEvent::Reclaim),
            // An initial cycle is claimed while it is still being shipped.
            _ => None,
        };
        if let Some(event) = event {
            claimed.state = claimed.state.on(event).map_err(impossible)?;
        }
        let mut record = state.record.clone();
        // By the clock, so that an appliance that is put back does not give one out twice.
        record.lease.0 = (record.lease.0 + 1).max(inner.ports.clock.unix_ms());
        let first = record.hydrator.is_none();
        record.hydrator = Some(who.name.to_string());
        inner.ports.repository.save(&record, Some(&claimed)).await.map_err(repository_failed)?;
        let lease = record.lease;
        inner.moves(&cell);
        state.record = record;
        if let Some(open) = &mut state.open {
            open.record = claimed;
        }
        drop(state);
        if first {
            inner.audit(&who.to_string(), Some(disk), "hydrator", format!("{who} hydrates this disk")).await;
        }
        Ok(ClaimReply { lease })
    }

    /// Asked by a hydrator before it writes on: nobody has claimed the disk since, and the cycle is not over.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `LeaseLost`, `BadRequest`.
    pub async fn check_lease(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        lease: Lease,
    ) -> Reply<()> {
        let cell = self.inner.hydrators_cell(who, disk).await?;
        let state = cell.lock().await;
        state.current(generation)?;
        need_lease(&state, lease)?;
        state.open(cycle).map(|_| ())
    }

    /// Lets go of segments of an initial cycle that are durably on the target. They stay recorded, as the manifest will name
    /// them. What they fill of the store is given back at once and not only at the cycle's end.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `LeaseLost`, `BadRequest`.
    pub async fn applied(&self, who: &Identity, disk: DiskId, cycle: CycleNo, request: AppliedRequest) -> Reply<()> {
        let inner = &self.inner;
        let cell = inner.hydrators_cell(who, disk).await?;
        let mut state = cell.lock().await;
        state.current(request.generation)?;
        need_lease(&state, request.lease)?;
        let open = state.open(cycle)?;
        if open.record.kind != CycleKind::Initial || request.end.0 > open.blocks() {
            let message =
                format!("cycle {cycle} of {disk} has no {} blocks that could be applied ahead", request.end.0);
            return refuse(ErrorCode::BadRequest, message);
        }
        let within = |name: &String| open.segments.get(name).is_some_and(|s| s.first.0 + s.blocks <= request.end.0);
        let names: Vec<String> = request.names.into_iter().filter(within).collect();
        if request.end > open.record.applied {
            let record = CycleRecord { applied: request.end, ..open.record.clone() };
            inner.ports.repository.save(&state.record, Some(&record)).await.map_err(repository_failed)?;
            inner.moves(&cell);
            if let Some(open) = &mut state.open {
                open.record = record;
                // There may be some that were not shown until now.
                if open.segments.count_from(open.record.applied, SEGMENTS_SHOWN_MIN) == SEGMENTS_SHOWN_MIN {
                    inner.work_changed();
                }
            }
        }
        inner.janitor.delete_all(&cycle_folder(disk, request.generation, cycle), names);
        Ok(())
    }

    /// Ends a cycle as the hydrator found it.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `LeaseLost`, `BadRequest`.
    pub async fn verdict(&self, who: &Identity, disk: DiskId, cycle: CycleNo, request: VerdictRequest) -> Reply<()> {
        let inner = &self.inner;
        let cell = inner.hydrators_cell(who, disk).await?;
        let mut state = cell.lock().await;
        state.current(request.generation)?;
        if state.open(cycle).is_err() {
            let known = inner.ports.repository.cycle(disk, cycle).await.map_err(repository_failed)?;
            if known.is_some_and(|known| is_repeated(&known, &request)) {
                return Ok(());
            }
        }
        state.open(cycle)?;
        need_lease(&state, request.lease)?;
        let ending = judge(state.open(cycle)?, &request)?;
        inner.end(&cell, &mut state, ending).await
    }

    /// Stores a part of the digests of the target's grains.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `Corrupt`, `TooLarge`, `NoRoom`, `Unavailable`.
    pub async fn put_digests(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        bytes: Bytes,
    ) -> Reply<()> {
        let inner = &self.inner;
        let cell = inner.hydrators_cell(who, disk).await?;
        let state = cell.lock().await;
        state.current(generation)?;
        check_part(&state, part)?;
        let key = digests_key(state.open(cycle)?, part);
        drop(state);
        if bytes.len() as u64 > DIGESTS_BYTES_MAX {
            return refuse(ErrorCode::TooLarge, format!("a part of digests of {} bytes", bytes.len()));
        }
        let header = Header::decode(ObjectKind::Digests, &bytes).map_err(bad_bytes)?;
        header.expect(disk, generation, cycle).map_err(bad_bytes)?;
        inner.check_suite(header.suite)?;
        if header.fields[0] != part {
            return refuse(ErrorCode::Corrupt, format!("these digests are part {}, not {part}", header.fields[0]));
        }
        inner.ports.store.put(&key, bytes).await.map_err(store_failed)?;
        let mut state = cell.lock().await;
        match &mut state.open {
            Some(open) if open.record.cycle == cycle && open.record.generation == generation => {
                open.digests.insert(part);
                inner.moves(&cell);
                cell.ring();
                inner.work_changed();
                Ok(())
            }
            _ => {
                // The cycle ended meanwhile.
                inner.janitor.remove(cycle_folder(disk, generation, cycle));
                state.open(cycle).map(|_| ())
            }
        }
    }
}

impl Inner {
    /// In milliseconds, how long replies about so many segments are to be held back.
    async fn segments_shown(&self) -> u64 {
        let (mut segments, cells) = (0, self.all_cells());
        let shown_max = shown_max(cells.len());
        for cell in cells {
            let state = cell.lock().await;
            let open = state.open.as_ref().filter(|open| shows_segments(open));
            segments += open.map_or(0, |open| open.segments.count_from(open.record.applied, shown_max));
        }
        (segments / SEGMENTS_PER_MS) as u64
    }
}

/// Before the commit segments are told one by one: those of an initial cycle may be applied, those of others checked.
fn shows_segments(open: &OpenCycle) -> bool {
    matches!(open.record.state, CycleState::Capturing | CycleState::Shipping)
}

/// Of how many segments of each of so many disks is told.
fn shown_max(disks: usize) -> usize {
    (2 * SEGMENTS_TOLD_MAX.get() / disks.max(1)).clamp(SEGMENTS_SHOWN_MIN, SEGMENTS_SHOWN_MAX)
}

/// The first of what is still to be applied or checked: what comes behind is told when these are done, or found in the manifest.
fn shown(open: &OpenCycle, most: usize) -> impl Iterator<Item = StoredSegment> {
    let most = if shows_segments(open) { most } else { 0 };
    open.segments.from(open.record.applied).take(most)
}

fn work_of(state: &DiskState, open: &OpenCycle, shown_max: usize) -> Work {
    let (disk, cycle) = (&state.record, &open.record);
    Work {
        disk: disk.disk,
        name: disk.name.clone(),
        size: disk.size,
        generation: disk.generation,
        envelope: disk.envelope.clone(),
        cycle: cycle.cycle,
        kind: cycle.kind,
        state: cycle.state,
        sectors: cycle.sectors,
        stored: shown(open, shown_max).collect(),
        applied: cycle.applied,
        manifest: cycle.manifest,
        verified: disk.verified,
        // Once all are there a hydrator need not read its target again, whatever becomes of it.
        digests_wanted: cycle.digests_wanted && (open.digests.len() as u64) < part_count(disk.size.sectors_ceil()),
        read_rate: cycle.read_rate,
    }
}

fn need_lease(state: &DiskState, lease: Lease) -> Reply<()> {
    let known = state.record.lease;
    if lease < known {
        let message = format!(
            "{} was claimed again since: this request's lease is {}, the newest {}. Another hydrator, or another run of \
             this one, has taken over",
            state.record.disk, lease.0, known.0
        );
        return refuse(ErrorCode::LeaseLost, message);
    }
    if lease > known || known == Lease(0) {
        return refuse(ErrorCode::BadRequest, format!("lease {} was never given out", lease.0));
    }
    Ok(())
}

/// Whether the verdict may end the cycle, and how it does.
fn judge(open: &OpenCycle, request: &VerdictRequest) -> Reply<Ending> {
    let cycle = &open.record;
    let (target_digest, whole_disk, proof) = match &request.outcome {
        Outcome::Failed { reason, detail, bitmaps_equal, target_digest } => {
            return Ok(Ending {
                failed: Some((*reason, detail.clone())),
                bitmaps_equal: *bitmaps_equal,
                source_digest: request.source_digest,
                target_digest: *target_digest,
                whole_disk: None,
                proof: None,
            });
        }
        Outcome::Verified { target_digest, whole_disk, proof } => (*target_digest, *whole_disk, *proof),
    };
    if open.reference().is_none() {
        let message = format!("cycle {} of {} is {}: it can't be verified", cycle.cycle, cycle.disk, cycle.state);
        return refuse(ErrorCode::WrongState, message);
    }
    let wrong = if request.manifest != cycle.manifest {
        "of another manifest than the committed one"
    } else if request.source_digest != Some(target_digest) {
        "with another digest than the source's"
    } else if cycle.kind == CycleKind::Final && whole_disk.is_none() {
        "without the digest of the whole disk, which a final cycle needs"
    } else {
        return Ok(Ending {
            failed: None,
            bitmaps_equal: Some(true),
            source_digest: request.source_digest,
            target_digest: Some(target_digest),
            whole_disk,
            proof,
        });
    };
    let message = format!("cycle {} of {} can't be verified {wrong}", cycle.cycle, cycle.disk);
    refuse(ErrorCode::BadRequest, message)
}

/// Whether a cycle ended with this very verdict.
fn is_repeated(known: &CycleRecord, request: &VerdictRequest) -> bool {
    match &request.outcome {
        Outcome::Verified { target_digest, .. } => {
            known.state == CycleState::Verified
                && known.manifest == request.manifest
                && known.target_digest == Some(*target_digest)
        }
        Outcome::Failed { reason, .. } => known.state == CycleState::Failed && known.reason == Some(*reason),
    }
}
