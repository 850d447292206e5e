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

/// The progress of all disks; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Progress(watch::Sender<BTreeMap<DiskId, DiskProgress>>);

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows the progress of all disks.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<DiskId, DiskProgress>> {
        self.0.subscribe()
    }

    /// Begins a step.
    pub(crate) fn begin(&self, disk: DiskId, cycle: CycleNo, phase: Phase, total: ByteCount) {
        let progress = DiskProgress { cycle, phase, done: ByteCount(0), total };
        self.0.send_modify(|disks| {
            disks.insert(disk, progress);
        });
    }

    /// Adds to what the step has done.
    pub(crate) fn add(&self, disk: DiskId, bytes: ByteCount) {
        self.0.send_modify(|disks| {
            if let Some(progress) = disks.get_mut(&disk) {
                progress.done.0 = (progress.done.0 + bytes.0).min(progress.total.0);
            }
        });
    }

    /// Ends all steps.
    pub(crate) fn idle(&self, disk: DiskId) {
        self.0.send_modify(|disks| {
            if let Some(progress) = disks.get_mut(&disk) {
                progress.phase = Phase::Waiting;
            }
        });
    }
}
