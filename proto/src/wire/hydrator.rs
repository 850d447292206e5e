//! Between a hydrator and the appliance.

use super::agent::{CycleRef, StoredSegment};
use crate::cycle::{CycleKind, FailReason, State as CycleState};
use crate::keys::KeyEnvelope;
use crate::stream::Digest;
use crate::units::{BlockNo, ByteCount, CycleNo, DiskId, Generation, SectorCount};
use serde::{Deserialize, Serialize};

/// Says which claim on a disk a hydrator holds: a later claim ends every earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lease(pub u64);

/// Asks for work, and may be held open until something has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkRequest {
    /// The revision of the last reply; 0 at first.
    pub seen: u64,
    /// How long the request may be held, in milliseconds.
    pub wait_ms: u64,
}

/// A disk's cycle as a hydrator needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The disk.
    pub disk: DiskId,
    /// What people call it.
    pub name: String,
    /// The source's size.
    pub size: ByteCount,
    /// The generation.
    pub generation: Generation,
    /// The generation's data key, wrapped.
    pub envelope: KeyEnvelope,
    /// The cycle that is open.
    pub cycle: CycleNo,
    /// Its kind.
    pub kind: CycleKind,
    /// How far it has come.
    pub state: CycleState,
    /// How many sectors are planned.
    pub sectors: SectorCount,
    /// What is stored of an initial cycle that is still being shipped: it may be applied ahead of its commit, as there is
    /// nothing on the target yet that it could harm. Of every other cycle what may be checked ahead. Only the first, ascending,
    /// where there are many: the others follow when these are applied, or are found in the manifest.
    pub stored: Vec<StoredSegment>,
    /// Blocks of an initial cycle, from the first on, that a hydrator has durably applied: their segments may be gone from
    /// the store, and are not named in `stored`.
    #[serde(default, skip_serializing_if = "nothing")]
    pub applied: BlockNo,
    /// BLAKE3 of the manifest, once it is committed.
    pub manifest: Option<Digest>,
    /// The last verified cycle.
    pub verified: Option<CycleRef>,
    /// The agent asks for the digests of the target's grains, to compare with.
    pub digests_wanted: bool,
    /// Bytes a second at most to be read for these digests.
    pub read_rate: Option<u64>,
}

/// Work of which nothing was applied ahead is told as it always was.
fn nothing(applied: &BlockNo) -> bool {
    *applied == BlockNo(0)
}

/// The answer to [`WorkRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkReply {
    /// Rises whenever anything below has changed.
    pub revision: u64,
    /// One entry for each disk that has an open cycle.
    pub work: Vec<Work>,
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimReply {
    /// To be named in the verdict.
    pub lease: Lease,
}

/// Says what of an initial cycle is durably on the target, so that the store need keep it no longer. Asked again it changes
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedRequest {
    /// The generation.
    pub generation: Generation,
    /// The claim under which they were applied.
    pub lease: Lease,
    /// The first block that is not applied yet: all before it are.
    pub end: BlockNo,
    /// The segments that were applied since the last time.
    pub names: Vec<String>,
}

/// What the hydrator found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", deny_unknown_fields)]
pub enum Outcome {
    /// Bitmaps, checksums and digests are equal, read back from the medium.
    Verified {
        /// BLAKE3 of the stream as read back.
        target_digest: Digest,
        /// BLAKE3 of the whole target, in a final cycle.
        whole_disk: Option<Digest>,
        /// Proves to the agent that this comes from the hydrator ([`DataKey::proof`](crate::keys::DataKey::proof)).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<Digest>,
    },
    /// Something differs or could not be done.
    Failed {
        /// Why.
        reason: FailReason,
        /// In words.
        detail: String,
        /// Whether the bitmaps were equal, where it came to that.
        bitmaps_equal: Option<bool>,
        /// BLAKE3 of the stream as read back, where it came to that.
        target_digest: Option<Digest>,
    },
}

/// Reports the end of a cycle. Asked again with the same outcome it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictRequest {
    /// The generation.
    pub generation: Generation,
    /// The claim under which the cycle was applied.
    pub lease: Lease,
    /// BLAKE3 of the manifest that was applied; none where it could not even be read.
    pub manifest: Option<Digest>,
    /// BLAKE3 of the stream as the source had it, from the manifest.
    pub source_digest: Option<Digest>,
    /// What was found.
    pub outcome: Outcome,
}
