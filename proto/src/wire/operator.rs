//! What people and their programs see of disks and cycles.

use crate::cycle::{Consistency, CycleKind, FailReason, State as CycleState, TrackerKind};
use crate::disk::State as DiskPhase;
use crate::stream::Digest;
use crate::units::{ByteCount, CycleNo, DiskId, Generation, SectorCount};
use serde::{Deserialize, Serialize};

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// The disk.
    pub disk: DiskId,
    /// What people call it.
    pub name: String,
    /// The agent that protects it.
    pub agent: String,
    /// Its size.
    pub size: ByteCount,
    /// Its generation.
    pub generation: Generation,
    /// Where it stands.
    pub phase: DiskPhase,
    /// The newest cycle.
    pub cycle: Option<CycleView>,
    /// When the newest verified cycle was begun, in milliseconds since 1970 UTC: the age of the target's data.
    pub verified_start_ms: Option<u64>,
    /// When the next cycle is due, in milliseconds since 1970 UTC.
    pub due_ms: Option<u64>,
}

/// A cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleView {
    /// Its number.
    pub cycle: CycleNo,
    /// Its kind.
    pub kind: CycleKind,
    /// How far it has come.
    pub state: CycleState,
    /// Who noted the dirty sectors.
    pub tracker: Option<TrackerKind>,
    /// What can be said of the instant that it shows, once committed.
    pub consistency: Option<Consistency>,
    /// How many sectors are planned.
    pub sectors: SectorCount,
    /// How many of them are in stored segments (from the number of their blocks).
    pub sectors_stored: SectorCount,
    /// Bytes that came over the port.
    pub bytes_sent: ByteCount,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub start_ms: u64,
    /// When it ended, likewise.
    pub end_ms: Option<u64>,
    /// BLAKE3 of the stream at the source, once the hydrator has told it.
    pub source_digest: Option<Digest>,
    /// BLAKE3 of the stream read back from the target.
    pub target_digest: Option<Digest>,
    /// Whether both bitmaps were equal, once compared.
    pub bitmaps_equal: Option<bool>,
    /// Why it failed.
    pub reason: Option<FailReason>,
    /// The same in words; or why a delta became a resync.
    pub detail: Option<String>,
}

/// A time of day and the limit that holds in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowView {
    /// For example `Mon-Fri 08:00-18:00`.
    pub when: String,
    /// For example `20Mbit/s`.
    pub limit: String,
}

/// What the operator may change while everything runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyView {
    /// The shortest pause between two deltas, in milliseconds.
    pub min_interval_ms: u64,
    /// The longest, in milliseconds.
    pub max_interval_ms: u64,
    /// The limit outside of all windows, for example `200Mbit/s`; none is no limit.
    pub limit: Option<String>,
    /// Times of day with limits of their own; the first that holds counts.
    pub windows: Vec<WindowView>,
    /// How often the whole target is compared with the source, in milliseconds; none is never.
    pub scrub_interval_ms: Option<u64>,
    /// At what rate, in bytes a second.
    pub scrub_rate: Option<u64>,
}

/// Stands behind the question mark of a request for cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HowMany {
    /// How many, at most.
    #[serde(default = "twenty")]
    pub limit: u32,
}

fn twenty() -> u32 {
    20
}

/// Orders the final cycle of a disk, or takes the order back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalOrder {
    /// False takes it back.
    pub wanted: bool,
}
