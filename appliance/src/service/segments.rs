//! Storing segments.

use super::access::{bad_bytes, impossible, refuse, repository_failed, store_failed};
use super::cell::{Cell, DiskState, OpenCycle};
use super::{Inner, Reply, Service};
use crate::identity::Identity;
use bytes::Bytes;
use sluice_cache_store::StoreErrorKind;
use sluice_proto::cycle::{CycleKind, Event as CycleEvent, State as CycleState};
use sluice_proto::header::Suite;
use sluice_proto::manifest::cycle_folder;
use sluice_proto::segment::{SEGMENT_BYTES_MAX, Segment, segment_name};
use sluice_proto::wire::{ErrorCode, StoredSegment};
use sluice_proto::{ByteCount, CycleNo, Digest, DiskId, Generation};

impl Service {
    /// As [`Self::store_segment`], for bytes that the throttle has not seen yet.
    ///
    /// # Errors
    /// As there.
    pub async fn put_segment(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> Reply<StoredSegment> {
        self.may_send(who, disk, cycle, generation).await?;
        self.inner.ports.throttle.acquire(disk, bytes.len() as u64).await;
        self.store_segment(who, disk, cycle, generation, name, bytes).await
    }

    /// Stores a segment, or finds that it is stored. It is in the cache store and recorded when this returns; both are flushed
    /// with the commit, as segments by themselves are worth nothing: after a power cut they are sent again.
    ///
    /// # Errors
    /// `NoSuchDisk`, `OldGeneration`, `WrongState`, `Corrupt`, `TooLarge`, `NoRoom`, `Unavailable`.
    pub async fn store_segment(
        &self,
        who: &Identity,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> Reply<StoredSegment> {
        let inner = &self.inner;
        let cell = inner.agents_cell(who, disk)?;
        let segment = inner.examine(disk, cycle, generation, name, &bytes)?;
        let state = cell.lock().await;
        state.current(generation)?;
        let known = check_turn(state.open(cycle)?, &segment)?;
        if known {
            return Ok(segment);
        }
        cell.lets_first(state.open(cycle)?, &segment)?;
        // A second connection must not put other bytes under the name meanwhile.
        let Some(_storing) = cell.begin_storing(cycle, name) else {
            return refuse(ErrorCode::Unavailable, format!("segment {name} is being stored by another request"));
        };
        drop(state);
        let key = format!("{}/{name}", cycle_folder(disk, generation, cycle));
        let put = inner.ports.store.put(&key, bytes).await;
        let mut state = cell.lock().await;
        if put.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Full) && state.open(cycle).is_ok() {
            inner.had_no_room(&cell, &mut state, &segment).await?;
        }
        put.map_err(store_failed)?;
        cell.found_room(&segment);
        if state.open.as_ref().is_some_and(|open| open.record.kind != CycleKind::Initial) {
            // So that the commit, which flushes all of them, finds little left to do. An initial's are mostly applied and gone
            // before anything would have written them.
            let store = inner.ports.store.clone();
            tokio::spawn(async move { store.sync(&[key]).await });
        }
        // While the bytes were on their way the cycle may have ended or been opened with another plan.
        let still = state.current(generation).and_then(|()| check_turn(state.open(cycle)?, &segment));
        if let Err(refusal) = still {
            inner.janitor.delete_all(&cycle_folder(disk, generation, cycle), vec![name.to_owned()]);
            return Err(refusal);
        }
        inner.record(&cell, &mut state, &segment).await?;
        Ok(segment)
    }
}

impl Inner {
    /// Whatever can be known of a segment without its key and without its disk's state.
    fn examine(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: &Bytes,
    ) -> Reply<StoredSegment> {
        if bytes.len() as u64 > SEGMENT_BYTES_MAX {
            let message = format!("a segment of {} bytes; {SEGMENT_BYTES_MAX} is the most", bytes.len());
            return refuse(ErrorCode::TooLarge, message);
        }
        let segment = Segment::parse(bytes).map_err(bad_bytes)?;
        let header = segment.header();
        header.expect(disk, generation, cycle).map_err(bad_bytes)?;
        self.check_suite(header.suite)?;
        let expected = segment_name(segment.first(), &header.salt);
        if name != expected {
            let shown: String = name.chars().take(64).collect();
            return refuse(ErrorCode::Corrupt, format!("the segment is {expected} and was sent as {shown:?}"));
        }
        Ok(StoredSegment {
            name: expected,
            first: segment.first(),
            blocks: segment.blocks(),
            len: ByteCount(bytes.len() as u64),
            hash: Digest::of(bytes),
        })
    }

    pub(super) fn check_suite(&self, suite: Suite) -> Reply<()> {
        match suite == Suite::Plain && !self.settings.allow_plain {
            true => refuse(ErrorCode::Corrupt, "objects that are not encrypted are not taken here"),
            false => Ok(()),
        }
    }

    async fn record(&self, cell: &Cell, state: &mut DiskState, segment: &StoredSegment) -> Reply<()> {
        let Some(open) = &mut state.open else { return Ok(()) };
        let mut cycle = open.record.clone();
        cycle.state = cycle.state.on(CycleEvent::SegmentStored).map_err(impossible)?;
        cycle.bytes_sent.0 += segment.len.0;
        let Ok(before) = open.segments.insert(segment) else {
            return refuse(ErrorCode::Corrupt, format!("{} is no segment's name", segment.name));
        };
        cycle.sectors_stored = open.sectors_stored();
        if let Err(error) = self.ports.repository.add_segment(&cycle, segment).await {
            open.segments.remove(&segment.name);
            let _ = before.map(|before| open.segments.insert(&before));
            return Err(repository_failed(error));
        }
        open.record = cycle;
        self.work_changed();
        self.moves(cell);
        self.hears(cell);
        Ok(())
    }
}

/// Whether the segment may be stored now; true where it is stored already.
fn check_turn(open: &OpenCycle, segment: &StoredSegment) -> Reply<bool> {
    if let Some(known) = open.segments.get(&segment.name) {
        if known == *segment {
            return Ok(true);
        }
        let message = format!("segment {} is stored with other bytes; send them with a new salt", segment.name);
        return refuse(ErrorCode::WrongState, message);
    }
    let cycle = &open.record;
    if !matches!(cycle.state, CycleState::Capturing | CycleState::Shipping) {
        let message = format!("cycle {} of {} is {}: no segment can be added", cycle.cycle, cycle.disk, cycle.state);
        return refuse(ErrorCode::WrongState, message);
    }
    let end = segment.first.0.saturating_add(segment.blocks);
    if end > open.blocks() {
        // Its agent opened the cycle with this plan, of which an appliance that was restored from an older state knows nothing.
        let message = format!(
            "segment {} ends at block {end}; cycle {} was opened with {} blocks: open it again",
            segment.name,
            cycle.cycle,
            open.blocks()
        );
        return refuse(ErrorCode::NotStored, message);
    }
    Ok(false)
}
