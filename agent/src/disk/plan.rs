//! Planning a cycle: which sectors, and how they are known.

use super::DiskAgent;
use crate::capture::CaptureError;
use crate::compare::{self, Adopting, Base, RemoteReference};
use crate::journal::{Identity, Plan};
use crate::tracker::{Doubt, Swap};
use sluice_proto::cycle::{CycleKind, FailReason, TrackerKind};
use sluice_proto::wire::{OpenRequest, Start};
use sluice_proto::{Digest, SectorBitmap};
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl DiskAgent {
    /// Begins the ordered cycle, or gives it up where the source or the target's digests can't be read.
    pub(super) async fn plan(&mut self, start: Start) -> Result<(), CaptureError> {
        let cycle = start.cycle;
        match self.begin(start).await {
            Err(CaptureError::Source(error)) => self.give_up(cycle, error.reason, error.detail).await,
            Err(CaptureError::Vanished(error)) => self.give_up_for_good(cycle, error, CaptureError::Vanished).await,
            Err(CaptureError::Grown(error)) => self.give_up_for_good(cycle, error, CaptureError::Grown).await,
            Err(CaptureError::Format(error)) => {
                let detail = format!("the target's digests: {error}");
                self.give_up(cycle, FailReason::Other, detail).await
            }
            result => result,
        }
    }

    /// When this returns, the cycle's plan is durable and the tracker has forgotten what it holds.
    async fn begin(&mut self, start: Start) -> Result<(), CaptureError> {
        self.check_size().await?;
        let counts = &self.capture.counts;
        [&counts.bytes_read, &counts.bytes_sent, &counts.bytes_stored, &counts.bytes_planned, &counts.bytes_compared]
            .into_iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
        (self.begun, self.committed, self.short) = (Instant::now(), None, None);
        self.check_history(&start)?;
        self.rested = self.capture.source.proven_at_rest();
        let swap = self.tracker.swap()?;
        self.note_run(&swap)?;
        match start.kind {
            CycleKind::Initial => self.plan_all(start),
            _ if self.must_compare(&start, &swap) => self.plan_differences(start, swap).await,
            _ => {
                self.short = Some(self.capture.workers.precedence().short());
                self.plan_dirty(start, swap)
            }
        }
    }

    /// An agent or appliance that was put back to an older state does not know what the other has let go since.
    fn check_history(&mut self, start: &Start) -> Result<(), CaptureError> {
        let Identity { verified: known, doubt, .. } = self.journal.identity();
        // Who compares in any case has a reason that tells more: a disk that grew before it was heard how its cycle ended.
        if start.kind == CycleKind::Initial || start.previous == *known || doubt.is_some() {
            return Ok(());
        }
        let name = |cycle: Option<sluice_proto::wire::CycleRef>| {
            cycle.map_or("none".to_owned(), |c| format!("cycle {}", c.cycle))
        };
        let doubt = format!(
            "the last verified cycle is {} here and {} at the appliance: one of the two was put back to an older state",
            name(*known),
            name(start.previous)
        );
        tracing::warn!(disk = %self.id(), "{doubt}; source and target will be compared");
        Ok(self.doubt(doubt)?)
    }

    /// A swap that finds tracking interrupted may have begun another run of it, of which nothing is to be believed that
    /// came before: the run's name is noted with the doubt, never without.
    fn note_run(&mut self, swap: &Swap) -> Result<(), CaptureError> {
        let epoch = Some(self.tracker.epoch());
        if self.journal.identity().epoch == epoch {
            return Ok(());
        }
        let doubt = swap.doubt.clone().unwrap_or(Doubt::OtherEpoch).to_string();
        tracing::warn!(disk = %self.id(), "{doubt}; it began anew, and source and target will be compared");
        Ok(self.journal.update(|identity| {
            identity.epoch = epoch;
            identity.doubt = identity.doubt.take().or(Some(doubt));
        })?)
    }

    /// True where the tracker's word does not suffice.
    fn must_compare(&self, start: &Start, swap: &Swap) -> bool {
        start.kind == CycleKind::Resync || swap.doubt.is_some() || self.journal.identity().doubt.is_some()
    }

    /// Lets the tracker forget what the journal has. The journal notes the release's number first: a crash in between
    /// leaves it ahead, which is no harm; a journal that is behind was put back.
    fn release(&mut self) -> Result<(), CaptureError> {
        let number = self.next_release();
        self.journal.update(|identity| identity.released = number)?;
        Ok(self.tracker.release(number)?)
    }

    /// The same for sectors that `plan` is to ship: its record notes the number, and is durable when the tracker is asked.
    fn begin_and_release(&mut self, mut plan: Plan, bitmap: SectorBitmap) -> Result<(), CaptureError> {
        plan.released = self.next_release();
        let number = plan.released;
        self.journal.begin(plan, bitmap)?;
        Ok(self.tracker.release(number)?)
    }

    fn next_release(&self) -> u64 {
        self.journal.identity().released.max(self.tracker.released()) + 1
    }

    fn plan_all(&mut self, start: Start) -> Result<(), CaptureError> {
        let disk = self.capture.source.size().sectors_ceil();
        let plan = Plan::new(start.cycle, CycleKind::Initial, self.tracker.kind(), start.previous);
        let plan = Plan { one_instant: true, ..plan };
        if let Some(table) = &mut self.table {
            table.begin(Base::Nothing);
        }
        self.journal.begin(plan, SectorBitmap::full(disk))?;
        self.journal.update(|identity| identity.doubt = None)?;
        self.release()
    }

    fn plan_dirty(&mut self, start: Start, swap: Swap) -> Result<(), CaptureError> {
        let mut bitmap = swap.dirty;
        bitmap.union_with(self.journal.carry());
        bitmap.truncate(self.capture.source.size().sectors_ceil());
        let plan = Plan::new(start.cycle, start.kind, self.tracker.kind(), start.previous);
        self.begin_and_release(Plan { one_instant: true, ..plan }, bitmap)
    }

    async fn plan_differences(&mut self, start: Start, swap: Swap) -> Result<(), CaptureError> {
        let disk = self.capture.source.size().sectors_ceil();
        let scans = self.tracker.kind() == TrackerKind::Scan;
        let known_doubt = self.journal.identity().doubt.clone();
        let doubt = known_doubt.clone().or_else(|| swap.doubt.filter(|_| !scans).map(|d| d.to_string()));
        // Safe before the tracker forgets: the doubt, and the sectors that it does know.
        let mut dirty = swap.dirty;
        dirty.truncate(disk);
        self.journal.add_carry(&dirty)?;
        if doubt.is_some() && known_doubt.is_none() {
            self.journal.update(|identity| identity.doubt = doubt.clone())?;
        }
        self.release()?;
        let kind = match start.kind {
            CycleKind::Delta if !scans || doubt.is_some() => CycleKind::Resync,
            kind => kind,
        };
        let local = scans && doubt.is_none() && start.kind != CycleKind::Resync;
        let (mut bitmap, comparison) = match self.differences_by_table(&start, local).await? {
            Some(bitmap) => (bitmap, None),
            None => {
                let (bitmap, comparison) = self.differences_by_target(&start, kind, doubt.clone()).await?;
                (bitmap, comparison.filter(|_| kind == CycleKind::Resync))
            }
        };
        if comparison.is_none() {
            // The table does not know what the target has of cycles that failed, and only for a resync does the hydrator see to it that
            // the target is what was compared.
            bitmap.union_with(self.journal.carry());
        }
        if scans {
            bitmap = bitmap.round_to_grains(disk);
        }
        let plan = Plan::new(start.cycle, kind, self.tracker.kind(), start.previous);
        self.journal.begin_compared(Plan { doubt, comparison, ..plan }, bitmap)?;
        self.journal.update(|identity| identity.doubt = None)?;
        Ok(())
    }

    /// What differs from the scan tracker's own table, where that is the last verified cycle's.
    async fn differences_by_table(
        &mut self,
        start: &Start,
        allowed: bool,
    ) -> Result<Option<SectorBitmap>, CaptureError> {
        let (Some(table), Some(verified)) = (&mut self.table, start.previous) else { return Ok(None) };
        if !allowed || !table.is_of(verified) {
            return Ok(None);
        }
        match compare::differing(&self.capture, table, start.read_rate).await {
            Ok(bitmap) => {
                table.begin(Base::Kept);
                Ok(Some(bitmap))
            }
            Err(CaptureError::Journal(error)) => {
                tracing::warn!(%error, "the table of digests can't be read; asking the hydrator");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What differs from the target as the hydrator reads it now, and by which comparison: none where there was nothing to compare.
    async fn differences_by_target(
        &mut self,
        start: &Start,
        kind: CycleKind,
        doubt: Option<String>,
    ) -> Result<(SectorBitmap, Option<Digest>), CaptureError> {
        let identity = self.journal.identity();
        let (disk, generation) = (identity.disk, identity.generation);
        // Opened before the comparison, so that the hydrator knows of it and the operator sees it.
        let request = OpenRequest {
            generation,
            kind,
            tracker: self.tracker.kind(),
            sectors: sluice_proto::SectorCount(0),
            doubt,
            after: None,
        };
        self.api.open(disk, start.cycle, request).await?;
        let remote = RemoteReference {
            api: self.api.clone(),
            disk,
            cycle: start.cycle,
            generation,
            key: identity.data_key.key(),
            sectors: self.capture.source.size().sectors_ceil(),
            comparison: None,
        };
        if let Some(table) = &mut self.table {
            table.begin(Base::Nothing);
        }
        let mut reference = Adopting { remote, table: self.table.as_mut() };
        let bitmap = compare::differing(&self.capture, &mut reference, start.read_rate).await?;
        Ok((bitmap, reference.remote.comparison))
    }
}
