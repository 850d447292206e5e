//! One disk's state in memory.

use super::bell::Bell;
use super::scarce::Starving;
use super::stored::StoredSegments;
use crate::repository::{CycleRecord, DiskRecord};
use sluice_proto::stream::block_count;
use sluice_proto::units::BLOCK_SECTORS;
use sluice_proto::wire::CycleRef;
use sluice_proto::{CycleNo, DiskId, SectorCount};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// A disk, its lock, and a bell for those who wait for a change.
pub(super) struct Cell {
    pub(super) disk: DiskId,
    /// The agent that it belongs to: never changes.
    pub(super) agent: Arc<str>,
    state: Mutex<DiskState>,
    changed: Bell,
    /// When the disk's agent was last heard.
    heard: parking_lot::Mutex<Instant>,
    /// When the disk's cycle last went on.
    moved: parking_lot::Mutex<Instant>,
    /// Names of segments that are on their way to the store right now.
    storing: parking_lot::Mutex<BTreeSet<(CycleNo, String)>>,
    /// The segment that goes first, where room is scarce.
    pub(super) starving: parking_lot::Mutex<Option<Starving>>,
}

/// A segment's name while it is on its way to the store. Gives the name back also where the request is cut off.
pub(super) struct Storing<'a> {
    cell: &'a Cell,
    name: (CycleNo, String),
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.cell.storing.lock().remove(&self.name);
    }
}

impl Cell {
    pub(super) fn new(state: DiskState) -> Self {
        Self {
            disk: state.record.disk,
            agent: Arc::from(state.record.agent.as_str()),
            state: Mutex::new(state),
            changed: Bell::new(0),
            heard: parking_lot::Mutex::new(Instant::now()),
            moved: parking_lot::Mutex::new(Instant::now()),
            storing: parking_lot::Mutex::default(),
            starving: parking_lot::Mutex::default(),
        }
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().await
    }

    /// Wakes everybody who waits for a change of this disk.
    pub(super) fn ring(&self) {
        self.changed.ring();
    }

    /// What [`Self::ring`] rings.
    pub(super) fn bell(&self) -> &Bell {
        &self.changed
    }

    /// Takes a segment's name for one request; `None` while another has it.
    pub(super) fn begin_storing(&self, cycle: CycleNo, name: &str) -> Option<Storing<'_>> {
        let name = (cycle, name.to_owned());
        let fresh = self.storing.lock().insert(name.clone());
        fresh.then_some(Storing { cell: self, name })
    }

    pub(super) fn hear(&self) {
        *self.heard.lock() = Instant::now();
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.heard.lock().elapsed()
    }

    pub(super) fn moved(&self) {
        *self.moved.lock() = Instant::now();
    }

    /// How long the disk's cycle has not gone on.
    pub(super) fn still_for(&self) -> Duration {
        self.moved.lock().elapsed()
    }
}

/// What is known of a disk. `record`, `open` and `ended` are copies of what the repository holds.
#[derive(Clone, Debug)]
pub(super) struct DiskState {
    pub(super) record: DiskRecord,
    /// The cycle that has not ended.
    pub(super) open: Option<OpenCycle>,
    /// How the newest ended cycle ended, on the service's own time line.
    pub(super) previous: sluice_proto::schedule::Previous,
    /// The newest ended cycle, so that the repository is asked for a verdict only where there is one, and by nobody who looks.
    pub(super) ended: Option<CycleRecord>,
    /// An operator wants the next cycle now. Not kept over a restart.
    pub(super) sync_wanted: bool,
}

impl DiskState {
    /// The number of the newest ended cycle; 0 before the first.
    pub(super) fn ended(&self) -> CycleNo {
        self.ended.as_ref().map_or(CycleNo(0), |cycle| cycle.cycle)
    }

    /// The newest cycle, open or not.
    pub(super) fn newest(&self) -> Option<&CycleRecord> {
        self.open.as_ref().map(|open| &open.record).or(self.ended.as_ref())
    }
}

/// A cycle that has not ended.
#[derive(Clone, Debug)]
pub(super) struct OpenCycle {
    pub(super) record: CycleRecord,
    /// What is recorded as stored.
    pub(super) segments: StoredSegments,
    /// Parts of the digests that are in the store.
    pub(super) digests: BTreeSet<u64>,
}

impl OpenCycle {
    pub(super) fn new(record: CycleRecord) -> Self {
        Self { record, segments: StoredSegments::default(), digests: BTreeSet::new() }
    }

    /// The cycle and its manifest, once committed.
    pub(super) fn reference(&self) -> Option<CycleRef> {
        self.record.manifest.map(|manifest| CycleRef { cycle: self.record.cycle, manifest })
    }

    /// How many planned sectors lie in stored segments. A block that was stored twice counts twice, up to the whole.
    pub(super) fn sectors_stored(&self) -> SectorCount {
        SectorCount(self.segments.blocks().saturating_mul(BLOCK_SECTORS).min(self.record.sectors.0))
    }

    /// How many blocks the cycle's stream has.
    pub(super) fn blocks(&self) -> u64 {
        block_count(self.record.sectors)
    }
}
