//! Between an agent and the appliance.

use crate::cycle::{CycleKind, FailReason, State as CycleState, TrackerKind};
use crate::keys::KeyEnvelope;
use crate::stream::Digest;
use crate::units::{BlockNo, ByteCount, CycleNo, Generation, SectorCount};
use serde::{Deserialize, Serialize};

/// Makes a disk known, or a new generation of it. Asked again it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// What people call the disk: the host's name and the device's.
    pub name: String,
    /// The disk's size in bytes. It may grow with a new generation, never shrink.
    pub size: ByteCount,
    /// The device's logical sector in bytes: 512 or 4096.
    pub logical_sector: u32,
    /// The generation that begins or goes on.
    pub generation: Generation,
    /// Its data key, wrapped for the hydrator.
    pub envelope: KeyEnvelope,
}

/// A cycle and its manifest's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CycleRef {
    /// The cycle's number.
    pub cycle: CycleNo,
    /// BLAKE3 of its manifest.
    pub manifest: Digest,
}

/// What the appliance knows of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskStatus {
    /// The generation in force.
    pub generation: Generation,
    /// The last verified cycle.
    pub verified: Option<CycleRef>,
    /// The cycle that is neither verified nor failed, and its state.
    pub open: Option<(CycleNo, CycleState)>,
}

/// Asks what to do next, and may be held open until there is something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextRequest {
    /// The generation that the agent believes in.
    pub generation: Generation,
    /// The newest cycle whose verdict the agent has safely noted. The appliance repeats a later verdict until then.
    pub settled: CycleNo,
    /// The cycle that the agent has begun and not settled, so that an appliance restored from an old state learns of it.
    pub running: Option<CycleNo>,
    /// How long the request may be held, in milliseconds.
    pub wait_ms: u64,
}

/// What became of a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", deny_unknown_fields)]
pub enum Verdict {
    /// The target holds it, proven.
    Verified {
        /// The cycle.
        cycle: CycleNo,
        /// BLAKE3 of its manifest.
        manifest: Digest,
        /// BLAKE3 of the stream as read back from the target.
        target_digest: Digest,
        /// The hydrator's proof ([`DataKey::proof`](crate::keys::DataKey::proof)); none from one that can't give it yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<Digest>,
    },
    /// It failed; its sectors go into the next.
    Failed {
        /// The cycle.
        cycle: CycleNo,
        /// Why.
        reason: FailReason,
        /// In words.
        detail: String,
    },
}

impl Verdict {
    /// The cycle that it is about.
    pub fn cycle(&self) -> CycleNo {
        match self {
            Self::Verified { cycle, .. } | Self::Failed { cycle, .. } => *cycle,
        }
    }
}

/// The order to begin a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Its number.
    pub cycle: CycleNo,
    /// Its kind. An agent in doubt makes a resync of a delta.
    pub kind: CycleKind,
    /// The cycle before it.
    pub previous: Option<CycleRef>,
    /// Bytes a second at most to be read for comparing; `None` is no limit. A scrub is a resync with a limit.
    pub read_rate: Option<u64>,
}

/// The answer to [`NextRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextReply {
    /// The oldest verdict that the agent has not settled.
    pub verdict: Option<Verdict>,
    /// A cycle to begin. Never together with a verdict.
    pub start: Option<Start>,
    /// When the next cycle is due, in milliseconds from now, where that is known.
    pub due_ms: Option<u64>,
}

/// Opens a cycle that the agent has planned; asked again it tells what is stored already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// The generation.
    pub generation: Generation,
    /// The kind that it has become.
    pub kind: CycleKind,
    /// Who noted the dirty sectors.
    pub tracker: TrackerKind,
    /// How many sectors are planned.
    pub sectors: SectorCount,
    /// Why a delta became a resync, in words.
    pub doubt: Option<String>,
    /// The last name of the answer before, where that said that there is more: it is told from behind this one on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A segment that is safely in the cache store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSegment {
    /// Its name within the cycle.
    pub name: String,
    /// Its first block.
    pub first: BlockNo,
    /// How many blocks it holds.
    pub blocks: u64,
    /// Its length in bytes.
    pub len: ByteCount,
    /// BLAKE3 of its bytes.
    pub hash: Digest,
}

/// The answer to [`OpenRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenReply {
    /// What need not be sent again, ascending by name; [`SEGMENTS_TOLD_MAX`](super::SEGMENTS_TOLD_MAX) at most.
    pub stored: Vec<StoredSegment>,
    /// There is more: the agent asks again, from behind the last of these on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// The agent can't finish a cycle: it has failed, and its sectors go into the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// The generation.
    pub generation: Generation,
    /// Why.
    pub reason: FailReason,
    /// In words: the device, the sectors, what to do.
    pub detail: String,
}

/// Stands behind the question mark of every other request that writes, and of those that ask about a cycle: the generation
/// that is believed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InGeneration {
    /// The generation.
    pub generation: Generation,
}

/// Stands behind the question mark of a request for digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedDigests {
    /// The generation.
    pub generation: Generation,
    /// How long the request may be held, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}
