//! Trackers: what knows which sectors of a disk may have changed.

pub mod ebpf;
pub mod scan;

use serde::{Deserialize, Serialize};
use sluice_proto::bitmap::SectorBitmap;
pub use sluice_proto::cycle::TrackerKind;
use std::fmt;
use std::path::PathBuf;

/// Watches one disk, interval by interval.
///
/// The promise: a sector whose contents changed after the interval began, as a read after the end of the interval may
/// see it, is in that interval's marks or in a later one's, unless the tracker says [`Doubt`].
pub trait Tracker: Send + Sync {
    /// How this tracker knows.
    fn kind(&self) -> TrackerKind;
    /// Ends the running interval and begins the next, at one instant. Returns all sectors marked since the last released
    /// swap; they come again with every swap until [`Tracker::release`].
    fn swap(&mut self) -> Result<Swap, TrackerError>;
    /// What has been marked since the last swap, without ending the interval. After the last read of a cycle, an answer
    /// that has no sector in common with what was read, and no doubt, proves that the reads saw one instant.
    fn peek(&mut self) -> Result<Swap, TrackerError>;
    /// The sectors of the last swap are safely kept elsewhere: they may be forgotten here. Nothing without a swap. The
    /// release's number, which rises from one to the next, is kept where the marks are, before any of them goes.
    fn release(&mut self, number: u64) -> Result<(), TrackerError>;
    /// Names this unbroken run of tracking: equal epochs mean that tracking never stopped in between. A swap may find that
    /// it did, and begin another run: it has a doubt then, and what earlier swaps marked does not come again.
    fn epoch(&self) -> TrackingEpoch;
    /// The number of the newest release of this run of tracking; 0 before the first. An agent whose record is behind it
    /// was put back to an older state, and no longer holds what was released to it.
    fn released(&self) -> u64;
}

/// What an interval marked.
#[derive(Clone, Debug)]
pub struct Swap {
    /// The sectors that may have changed; more than did, never fewer, unless there is doubt.
    pub dirty: SectorBitmap,
    /// Why marks may be missing. The disk must then be compared as a whole.
    pub doubt: Option<Doubt>,
}

/// The name of an unbroken run of tracking.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrackingEpoch {
    /// Random bytes, made when the tracking began.
    pub run: [u8; 16],
    /// The boot it began in, by the kernel's own random name: no tracking outlives its kernel.
    pub boot: [u8; 16],
}

impl fmt::Debug for TrackingEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {:032x} of boot {:032x}", u128::from_be_bytes(self.run), u128::from_be_bytes(self.boot))
    }
}

/// Why a tracker cannot promise that it has seen every change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// Tracking begins now: nothing is known of what came before.
    Begun,
    /// The caller has no record of this run of tracking, so it cannot know what was released to whom.
    NoRecord,
    /// Another run of tracking than the caller knows.
    OtherEpoch,
    /// Marks were released of which the caller has no record: its state is older than that.
    StateRestored,
    /// What was pinned is not ours, or of a layout that this program does not know; it was replaced.
    ForeignPins(String),
    /// A program was taken off its tracepoint while it was tracking. It began anew with the swap that says this.
    Detached,
    /// It was ours, but for another disk, partition or size.
    DiskChanged(String),
    /// Writes may have gone unmarked: the kernel skipped ends of writes whose starts are not known either.
    MissedEvents {
        /// How many there may be at most.
        skipped: u64,
    },
    /// The start of a write may have gone unmarked; its end was marked. No change is lost, but reads of this interval
    /// are not proved to be of one instant. Only [`Tracker::peek`] says this.
    MissedStart,
    /// A command went to the disk past the block layer (SG_IO, NVMe passthrough), which says nothing about sectors.
    Passthrough,
    /// An operation that this tracker does not know.
    UnknownOperation,
    /// A write ended whose sectors could not be told.
    UnknownWrite,
    /// The tables and the programs do not fit together.
    Damaged,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun => write!(f, "tracking has only now begun"),
            Self::NoRecord => write!(f, "tracking was running, but there is no record of it here"),
            Self::OtherEpoch => write!(f, "tracking was interrupted since the last cycle"),
            Self::StateRestored => {
                write!(f, "the agent's state was put back to an older one than tracking goes on from")
            }
            Self::ForeignPins(what) => write!(f, "what was pinned there is not ours and was replaced: {what}"),
            Self::Detached => write!(f, "a tracking program was taken off the kernel's tracepoint by somebody"),
            Self::DiskChanged(what) => write!(f, "the disk is not what it was: {what}"),
            Self::MissedEvents { skipped } => write!(f, "the kernel skipped events of up to {skipped} writes"),
            Self::MissedStart => write!(f, "the kernel skipped the start of a write"),
            Self::Passthrough => write!(f, "a command went to the disk past the block layer"),
            Self::UnknownOperation => write!(f, "the disk did an operation that this version does not know"),
            Self::UnknownWrite => write!(f, "a write ended whose place is not known"),
            Self::Damaged => write!(f, "the tracker's tables are damaged"),
        }
    }
}

/// Tracking failed. Nothing is known then of the interval that runs: the disk must be compared as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// The machine cannot do it.
    #[error("cannot track {device}: {why}", device = .device.display())]
    Unavailable {
        /// The disk.
        device: PathBuf,
        /// What is missing and what to do.
        why: String,
    },
    /// The path is not a disk that can be tracked.
    #[error("{device} cannot be tracked: {why}", device = .device.display())]
    Device {
        /// The disk.
        device: PathBuf,
        /// Why not.
        why: String,
    },
    /// The kernel refused a step.
    #[error("tracking of {device}: {step}", device = .device.display())]
    Kernel {
        /// The disk.
        device: PathBuf,
        /// What was being done.
        step: String,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
