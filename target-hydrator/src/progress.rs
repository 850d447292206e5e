//! What the hydrator is doing, for whoever shows it.

use sluice_proto::{ByteCount, CycleNo, DiskId};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// The step that a disk is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Phase {
    /// Nothing to do.
    #[default]
    Waiting,
    /// Reading the target to tell the agent its digests.
    Comparing,
    /// Checking every segment before the first byte is written.
    Checking,
    /// Writing and reading back.
    Writing,
    /// Reading the whole target, in a final cycle.
    WholeDisk,
}

/// How far a disk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DiskProgress {
    /// The cycle.
    pub cycle: CycleNo,
    /// The step.
    pub phase: Phase,
    /// Bytes of the disk that the step has done.
    pub done: ByteCount,
    /// Bytes of the disk that it has to do.
    pub total: ByteCount,
}

/// Why a disk does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How often the same step has failed in a row.
    pub tries: u32,
    /// What failed the last time, and what to do.
    pub why: String,
}

/// The progress of all disks; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    steps: watch::Sender<BTreeMap<DiskId, DiskProgress>>,
    troubles: watch::Sender<BTreeMap<DiskId, Trouble>>,
}

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows the progress of all disks.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<DiskId, DiskProgress>> {
        self.steps.subscribe()
    }

    /// Follows which disks do not get on. The hydrator itself never gives up.
    pub fn troubles(&self) -> watch::Receiver<BTreeMap<DiskId, Trouble>> {
        self.troubles.subscribe()
    }

    /// Notes that a step failed and is tried again.
    pub(crate) fn failed(&self, disk: DiskId, why: String) {
        self.troubles.send_modify(|disks| {
            let tries = disks.get(&disk).map_or(0, |trouble| trouble.tries);
            disks.insert(disk, Trouble { tries: tries.saturating_add(1), why });
        });
    }

    /// Notes that a disk gets on.
    pub(crate) fn gets_on(&self, disk: DiskId) {
        self.troubles.send_if_modified(|disks| disks.remove(&disk).is_some());
    }

    /// Begins a step.
    pub(crate) fn begin(&self, disk: DiskId, cycle: CycleNo, phase: Phase, total: ByteCount) {
        let progress = DiskProgress { cycle, phase, done: ByteCount(0), total };
        self.steps.send_modify(|disks| {
            disks.insert(disk, progress);
        });
    }

    /// Adds to what the step has done.
    pub(crate) fn add(&self, disk: DiskId, bytes: ByteCount) {
        self.steps.send_modify(|disks| {
            if let Some(progress) = disks.get_mut(&disk) {
                progress.done.0 = (progress.done.0 + bytes.0).min(progress.total.0);
            }
        });
    }

    /// Ends all steps.
    pub(crate) fn idle(&self, disk: DiskId) {
        self.steps.send_modify(|disks| {
            if let Some(progress) = disks.get_mut(&disk) {
                progress.phase = Phase::Waiting;
            }
        });
    }
}
