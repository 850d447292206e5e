//! What the appliance must not forget, behind a trait that SQLite and, later, PostgreSQL serve.
//!
//! Rows are small: bitmaps and extents live in manifests in the cache store. Every write is durable when its call returns,
//! and whole or not there at all; what may be done lazily says so, and survives a crash, but a power cut only once a later
//! write is durable. Every write names the generation that the writer believes in; one older than the disk's
//! is refused as [`RepositoryErrorKind::OldGeneration`], so that a second appliance working on an old copy does no harm.

#[cfg(test)]
pub(crate) mod contract;
mod error;
mod memory;
mod sqlite;

pub use error::{RepositoryError, RepositoryErrorKind};
pub use memory::MemoryRepository;
pub use sqlite::SqliteRepository;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sluice_proto::cycle::{Consistency, CycleKind, FailReason, State as CycleState, TrackerKind};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::keys::KeyEnvelope;
use sluice_proto::wire::{CycleRef, Lease, PolicyView, StoredSegment};
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, DiskId, Generation, SectorCount};

/// The answer of a repository.
pub type RepositoryResult<T> = Result<T, RepositoryError>;

/// The appliance's durable state.
#[async_trait]
pub trait Repository: Send + Sync {
    /// All disks, by id.
    async fn disks(&self) -> RepositoryResult<Vec<DiskRecord>>;

    /// Stores a disk and, with it or not at all, one of its cycles; each over what was there under the same key.
    ///
    /// The key of a disk is its id; that of a cycle is disk and number. Refused where the stored disk has a newer
    /// generation than `disk`, or where `cycle` is of another disk.
    async fn save(&self, disk: &DiskRecord, cycle: Option<&CycleRecord>) -> RepositoryResult<()>;

    /// A cycle of a disk; `None` where it is not known.
    async fn cycle(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Option<CycleRecord>>;

    /// The newest `limit` cycles of a disk, newest first.
    async fn cycles(&self, disk: DiskId, limit: u32) -> RepositoryResult<Vec<CycleRecord>>;

    /// The oldest cycle of a disk that has ended (verified or failed) with a number above `after`.
    async fn first_ended(&self, disk: DiskId, after: CycleNo) -> RepositoryResult<Option<CycleRecord>>;

    /// Forgets all but the newest `keep` cycles of a disk, and their segments. Open cycles are never forgotten.
    async fn prune_cycles(&self, disk: DiskId, keep: u32) -> RepositoryResult<()>;

    /// The recorded segments of a cycle, by name.
    async fn segments(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Vec<StoredSegment>>;

    /// Records a segment that is safely in the cache store. The same name again replaces it. `cycle` is the cycle as it
    /// is with this segment (state and counters) and is stored with it or not at all. Refused where the disk is unknown or
    /// has a newer generation than `cycle`. May be done lazily: a segment that is not known is sent again.
    async fn add_segment(&self, cycle: &CycleRecord, segment: &StoredSegment) -> RepositoryResult<()>;

    /// Forgets segments of a cycle: these names, or all of them for `None`. Names that aren't there are no error. May be done
    /// lazily: what comes back of an open cycle comes back with the cycle's record of before, and its object is there still or is seen
    /// to be gone at the next start; what comes back of an ended one goes with the cycle.
    async fn forget_segments(&self, disk: DiskId, cycle: CycleNo, names: Option<&[String]>) -> RepositoryResult<()>;

    /// The policy that was set last; `None` before the first.
    async fn policy(&self) -> RepositoryResult<Option<PolicyView>>;

    /// Stores the policy.
    async fn set_policy(&self, policy: &PolicyView) -> RepositoryResult<()>;

    /// Adds an entry to the audit log, which is never changed afterwards. What the appliance itself did may be added lazily, as
    /// the record of the cycle tells it too; what a person or another machine did is durable.
    async fn log(&self, entry: &LogEntry) -> RepositoryResult<()>;

    /// The newest `limit` entries of the audit log, newest first; of one disk where it is given.
    async fn log_entries(&self, disk: Option<DiskId>, limit: u32) -> RepositoryResult<Vec<LogEntry>>;
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// The disk.
    pub disk: DiskId,
    /// What people call it.
    pub name: String,
    /// The agent that registered it, by the name in its certificate: nobody else may write to it.
    pub agent: String,
    /// The hydrator that claimed it first, by the name in its certificate; `None` before that.
    pub hydrator: Option<String>,
    /// The source's size.
    pub size: ByteCount,
    /// The device's logical sector in bytes.
    pub logical_sector: u32,
    /// The generation in force.
    pub generation: Generation,
    /// Its data key, wrapped for the hydrator.
    pub envelope: KeyEnvelope,
    /// Where the disk stands.
    pub phase: DiskPhase,
    /// The last verified cycle.
    pub verified: Option<CycleRef>,
    /// When the last verified cycle was begun, in milliseconds since 1970 UTC.
    pub verified_start_ms: Option<u64>,
    /// The highest number that a cycle of this disk was ever given; 0 before the first. Numbers are never used again.
    pub newest: CycleNo,
    /// The newest cycle whose verdict the agent has safely noted.
    pub settled: CycleNo,
    /// The last claim that was given out: rises with each.
    pub lease: Lease,
    /// An operator wants the final cycle.
    pub final_wanted: bool,
    /// When a comparison of the whole disks (initial, resync or final) was last verified, in milliseconds since 1970 UTC.
    pub compared_ms: Option<u64>,
    /// How many cycles have failed since the last one that was verified: the wait before the next grows with it.
    pub failures: u32,
}

/// A cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CycleRecord {
    /// The disk.
    pub disk: DiskId,
    /// The cycle's number within its disk.
    pub cycle: CycleNo,
    /// The generation that it belongs to.
    pub generation: Generation,
    /// Its kind: what was ordered, and from the opening on what it became.
    pub kind: CycleKind,
    /// How far it has come.
    pub state: CycleState,
    /// The verified cycle that it stands on.
    pub previous: Option<CycleRef>,
    /// Bytes a second at most to be read for comparing; `None` is no limit.
    pub read_rate: Option<u64>,
    /// Who noted the dirty sectors; `None` until it is opened.
    pub tracker: Option<TrackerKind>,
    /// What can be said of its instant; `None` until it is committed.
    pub consistency: Option<Consistency>,
    /// How many sectors are planned; 0 until it is opened.
    pub sectors: SectorCount,
    /// How many are in stored segments.
    pub sectors_stored: SectorCount,
    /// Blocks of an initial cycle, from the first on, that the hydrator holds durably: their segments may be gone.
    #[serde(default)]
    pub applied: BlockNo,
    /// Bytes of segments and manifest that came over the port, repeats included.
    pub bytes_sent: ByteCount,
    /// BLAKE3 of the manifest; `None` until it is committed.
    pub manifest: Option<Digest>,
    /// The agent has asked for the digests of the target's grains.
    pub digests_wanted: bool,
    /// When it was ordered, in milliseconds since 1970 UTC.
    pub start_ms: u64,
    /// When it ended, likewise.
    pub end_ms: Option<u64>,
    /// BLAKE3 of the stream at the source, as the hydrator read it in the sealed part of the manifest.
    pub source_digest: Option<Digest>,
    /// BLAKE3 of the stream as read back from the target.
    pub target_digest: Option<Digest>,
    /// BLAKE3 of the whole target, in a final cycle.
    pub whole_disk: Option<Digest>,
    /// The hydrator's proof for the agent that the cycle is verified.
    #[serde(default)]
    pub proof: Option<Digest>,
    /// Whether both bitmaps were equal, once compared.
    pub bitmaps_equal: Option<bool>,
    /// Why it failed; `Some` exactly where it did.
    pub reason: Option<FailReason>,
    /// The same in words; or why a delta became a resync.
    pub detail: Option<String>,
}

/// An entry of the audit log: who did what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Who: role and name of the certificate, or the appliance itself.
    pub who: String,
    /// The disk that it is about, if it is about one.
    pub disk: Option<DiskId>,
    /// What was done, as one word that programs go by: `registered`, `cycle_started`, `verified`, `policy_set` and so on.
    pub what: String,
    /// The rest, in words. Holds no secret.
    pub detail: String,
}

impl LogEntry {
    /// Who, where it is the appliance itself.
    pub const APPLIANCE: &str = "appliance";
}

impl CycleRecord {
    /// A cycle that was just ordered.
    pub fn planned(disk: DiskId, cycle: CycleNo, generation: Generation, kind: CycleKind, start_ms: u64) -> Self {
        Self {
            disk,
            cycle,
            generation,
            kind,
            state: CycleState::Planned,
            previous: None,
            read_rate: None,
            tracker: None,
            consistency: None,
            sectors: SectorCount(0),
            sectors_stored: SectorCount(0),
            applied: BlockNo(0),
            bytes_sent: ByteCount(0),
            manifest: None,
            digests_wanted: false,
            start_ms,
            end_ms: None,
            source_digest: None,
            target_digest: None,
            whole_disk: None,
            proof: None,
            bitmaps_equal: None,
            reason: None,
            detail: None,
        }
    }
}
