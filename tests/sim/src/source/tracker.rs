//! The kernel's tracking of the model disk.

use super::{ModelDisk, SwapMark};
use crate::check::Checker;
use crate::life::{Life, Step};
use sluice_agent::tracker::{Doubt, Swap, Tracker, TrackerError, TrackingEpoch};
use sluice_proto::cycle::TrackerKind;
use sluice_proto::{SectorBitmap, SectorCount};
use tokio::time::Instant;

/// The kernel's tracking as an incarnation of the agent sees it.
pub struct SimTracker {
    disk: ModelDisk,
    /// How many it was attached for: it sees no others.
    sectors: SectorCount,
    life: Life,
    checker: Checker,
}

impl SimTracker {
    /// Attaches; the doubt is that of the real tracker.
    pub fn attach(
        disk: ModelDisk,
        life: Life,
        checker: Checker,
        expect: Option<TrackingEpoch>,
    ) -> (Self, Option<Doubt>) {
        disk.track();
        let tracker = Self { sectors: disk.sectors(), disk, life, checker };
        let doubt = match expect {
            None => Some(Doubt::Begun),
            Some(epoch) if epoch == tracker.epoch() => None,
            Some(_) => Some(Doubt::OtherEpoch),
        };
        (tracker, doubt)
    }

    fn seen(&self, marked: &SectorBitmap, doubt: &Option<Doubt>) -> Swap {
        let mut dirty = marked.clone();
        dirty.truncate(self.sectors);
        Swap { dirty, doubt: doubt.clone() }
    }
}

impl Tracker for SimTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Ebpf
    }
    fn swap(&mut self) -> Result<Swap, TrackerError> {
        if self.life.step() == Step::NotDone {
            return Ok(Swap { dirty: SectorBitmap::new(), doubt: None });
        }
        let mut inner = self.disk.0.lock();
        let current = std::mem::take(&mut inner.current);
        inner.pending.union_with(&current);
        let doubt = inner.doubt.take();
        inner.doubt_pending = inner.doubt_pending.take().or(doubt);
        let values = inner.settled.iter().map(|(_, value)| *value).collect();
        let mark = SwapMark { at: Instant::now(), values, in_flight: inner.in_flight.clone(), forgotten: None };
        inner.swaps.push(mark);
        Ok(self.seen(&inner.pending, &inner.doubt_pending))
    }
    fn peek(&mut self) -> Result<Swap, TrackerError> {
        let inner = self.disk.0.lock();
        Ok(self.seen(&inner.current, &inner.doubt))
    }
    fn release(&mut self, number: u64) -> Result<(), TrackerError> {
        let step = self.life.step();
        if step == Step::NotDone {
            return Ok(());
        }
        let mut inner = self.disk.0.lock();
        inner.released = number;
        // Cut off behind its end, or after the number was noted.
        if step == Step::Go || number.is_multiple_of(2) {
            (inner.pending, inner.doubt_pending) = (SectorBitmap::new(), None);
        }
        drop(inner);
        self.checker.nothing_is_lost("after a release");
        Ok(())
    }
    fn epoch(&self) -> TrackingEpoch {
        self.disk.0.lock().epoch_name()
    }
    fn released(&self) -> u64 {
        self.disk.0.lock().released
    }
}
