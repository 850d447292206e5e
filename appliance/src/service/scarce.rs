//! First copies in a cache store that is too small for what is under way.
//!
//! What a hydrator has applied of a first copy makes room, and it applies in order. So where the store is full, room must go
//! to the segment that comes next: were it taken by later ones, which arrive beside it on other connections, the copy would
//! stand still for ever.

use super::access::{refuse, repository_failed};
use super::cell::{Cell, DiskState, OpenCycle};
use super::{Inner, Reply};
use sluice_proto::cycle::CycleKind;
use sluice_proto::manifest::cycle_folder;
use sluice_proto::wire::{ErrorCode, StoredSegment};
use sluice_proto::{BlockNo, CycleNo};
use std::time::Duration;
use tokio::time::Instant;

/// A segment that nobody has sent again for so long waits no longer.
const PATIENCE: Duration = Duration::from_secs(150);
/// After so long, and so many tries, without room a later segment is given up for the one that comes next. It is sent again in its turn.
const STARVED: Duration = Duration::from_secs(10);
const STARVED_TRIES: u32 = 8;

/// The first segment for which there was no room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starving {
    cycle: CycleNo,
    first: BlockNo,
    since: Instant,
    tried: Instant,
    tries: u32,
}

impl Cell {
    /// Refuses a segment behind one for which there was no room.
    pub(super) fn lets_first(&self, open: &OpenCycle, segment: &StoredSegment) -> Reply<()> {
        let starving = *self.starving.lock();
        let waits = |starving: &Starving| {
            starving.cycle == open.record.cycle
                && starving.first < segment.first
                && starving.tried.elapsed() < PATIENCE
                && open.record.kind == CycleKind::Initial
        };
        match starving.filter(waits) {
            None => Ok(()),
            Some(starving) => {
                let message = format!("the cache store is full; what begins at block {} goes first", starving.first.0);
                refuse(ErrorCode::NoRoom, message)
            }
        }
    }

    /// There was room for it.
    pub(super) fn found_room(&self, segment: &StoredSegment) {
        self.starving.lock().take_if(|starving| starving.first >= segment.first);
    }

    /// There was no room for it. True where it has waited so long that something must be done.
    fn starves(&self, cycle: CycleNo, segment: &StoredSegment) -> bool {
        let (mut starving, now) = (self.starving.lock(), Instant::now());
        // However long a slow line takes from one try to the next, they count together.
        let known = match starving.filter(|known| known.cycle == cycle) {
            // One behind it, which was on its way already.
            Some(known) if known.first < segment.first && known.tried.elapsed() < PATIENCE => return false,
            Some(known) if known.first == segment.first => Starving { tried: now, tries: known.tries + 1, ..known },
            _ => Starving { cycle, first: segment.first, since: now, tried: now, tries: 1 },
        };
        let is_starved = known.since.elapsed() >= STARVED && known.tries >= STARVED_TRIES;
        *starving = Some(if is_starved { Starving { since: now, tries: 0, ..known } } else { known });
        is_starved
    }
}

impl Inner {
    /// The store had no room for this segment of an open cycle: those behind it wait, and where nothing that is stored could
    /// still be applied before it, the last of them is given up.
    pub(super) async fn had_no_room(&self, cell: &Cell, state: &mut DiskState, segment: &StoredSegment) -> Reply<()> {
        let Some(open) = state.open.as_mut().filter(|open| open.record.kind == CycleKind::Initial) else {
            return Ok(());
        };
        if !cell.starves(open.record.cycle, segment) {
            return Ok(());
        }
        let mut unapplied = open.segments.from(open.record.applied);
        let (next, last) = (unapplied.next(), unapplied.last());
        let Some(last) = last.or(next.clone()).filter(|last| last.first > segment.first) else { return Ok(()) };
        if next.is_some_and(|next| next.first < segment.first) {
            return Ok(());
        }
        let (disk, cycle, generation) = (open.record.disk, open.record.cycle, open.record.generation);
        let names = vec![last.name.clone()];
        let forgotten = self.ports.repository.forget_segments(disk, cycle, Some(&names)).await;
        forgotten.map_err(repository_failed)?;
        open.segments.remove(&last.name);
        open.record.sectors_stored = open.sectors_stored();
        tracing::warn!(
            %disk, %cycle, given_up = %last.name, waits = %segment.name,
            "the cache store is too small for what is under way: a segment is given up for the one that comes next, and sent again later"
        );
        self.janitor.delete_all(&cycle_folder(disk, generation, cycle), names);
        self.work_changed();
        Ok(())
    }
}
