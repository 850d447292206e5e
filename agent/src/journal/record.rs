//! The records of the journal, as they stand on disk.

use super::JournalError;
use crate::tracker::TrackingEpoch;
use serde::{Deserialize, Serialize};
use sluice_platform::device::Medium;
use sluice_proto::cycle::{CycleKind, TrackerKind};
use sluice_proto::keys::{DataKey, KeyEnvelope};
use sluice_proto::stream::BlockCv;
use sluice_proto::wire::CycleRef;
use sluice_proto::{ByteCount, CycleNo, Digest, DiskId, Generation};

/// The version of these records that this agent writes. Change log: 1, the first.
const VERSION: u32 = 1;

/// Who a disk is and what its target holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The record's version.
    pub version: u32,
    /// The disk.
    pub disk: DiskId,
    /// The source's size in bytes when it was first protected, or last grown.
    pub size: ByteCount,
    /// The generation in force.
    pub generation: Generation,
    /// Its data key; the file is readable by its owner alone.
    pub data_key: Secret,
    /// The same key, wrapped for the hydrator.
    pub envelope: KeyEnvelope,
    /// The last cycle that was proven.
    pub verified: Option<CycleRef>,
    /// The newest cycle whose verdict has been dealt with.
    pub settled: CycleNo,
    /// The delta that a new generation cut off between its commit and its verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<CycleRef>,
    /// The unbroken run of tracking that has seen every write since the last swap.
    pub epoch: Option<TrackingEpoch>,
    /// The number of the newest release that the tracker was asked for, noted before it is: no number is used twice, also
    /// where the one that had it was cut off.
    #[serde(default)]
    pub released: u64,
    /// Why source and target must be compared before anything else can be trusted.
    pub doubt: Option<String>,
    /// What tells the source's medium apart: another one under its name is not copied over the target.
    #[serde(default, skip_serializing_if = "unnamed")]
    pub medium: Medium,
}

/// A data key on disk: 64 hexadecimal digits, never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Digest);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The record of `key`.
    pub fn of(key: &DataKey) -> Self {
        Self(Digest(*key.expose()))
    }

    /// The key.
    pub fn key(&self) -> DataKey {
        DataKey::new(self.0.0)
    }
}

impl Identity {
    /// A new disk's, in its first generation.
    pub fn new(disk: DiskId, size: ByteCount, key: &DataKey, envelope: KeyEnvelope) -> Self {
        Self {
            version: VERSION,
            disk,
            size,
            generation: envelope.generation,
            data_key: Secret::of(key),
            envelope,
            verified: None,
            settled: CycleNo(0),
            cut_off: None,
            epoch: None,
            released: 0,
            doubt: None,
            medium: Medium::default(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        json(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let identity: Self = from_json("disk.json", bytes)?;
        if identity.released == u64::MAX {
            return Err(JournalError("disk.json: damaged: no release has that number".to_owned()));
        }
        Ok(identity)
    }
}

/// The cycle that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The record's version.
    pub version: u32,
    /// The cycle.
    pub cycle: CycleNo,
    /// Its kind.
    pub kind: CycleKind,
    /// Who noted the sectors.
    pub tracker: TrackerKind,
    /// The cycle before it, from the order that began it.
    pub previous: Option<CycleRef>,
    /// Why it compares, where it does.
    pub doubt: Option<String>,
    /// True where every sector came from the tracker, none from a comparison that took time.
    pub one_instant: bool,
    /// The number of the release that the tracker is asked for once the plan is durable; 0 where it was asked before.
    #[serde(default, skip_serializing_if = "nothing")]
    pub released: u64,
    /// The comparison with the target that it was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Digest>,
}

fn unnamed(medium: &Medium) -> bool {
    !medium.is_known()
}

fn nothing(released: &u64) -> bool {
    *released == 0
}

impl Plan {
    /// A plan for `cycle`.
    pub fn new(cycle: CycleNo, kind: CycleKind, tracker: TrackerKind, previous: Option<CycleRef>) -> Self {
        Self {
            version: VERSION,
            cycle,
            kind,
            tracker,
            previous,
            doubt: None,
            one_instant: false,
            released: 0,
            comparison: None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        json(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        from_json("plan.json", bytes)
    }
}

fn json<T: Serialize>(record: &T) -> Vec<u8> {
    // These types have string keys and no failing serialisers.
    serde_json::to_vec_pretty(record).unwrap_or_default()
}

fn from_json<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T, JournalError> {
    let version = serde_json::from_slice::<serde_json::Value>(bytes)
        .ok()
        .and_then(|value| value.get("version")?.as_u64())
        .ok_or_else(|| {
            JournalError(format!("{name}: damaged; put back a copy, or remove it to protect the disk anew"))
        })?;
    if version > u64::from(VERSION) {
        return Err(JournalError(format!("{name}: written by a newer agent (version {version}); update this one")));
    }
    serde_json::from_slice(bytes).map_err(|e| JournalError(format!("{name}: {e}")))
}

/// A segment that the appliance has, as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its cycle.
    pub cycle: CycleNo,
    /// Its first block.
    pub first: u64,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub hash: Digest,
    /// The salt of its attempt.
    pub salt: Digest,
    /// The chaining values of its blocks.
    pub cvs: Vec<BlockCv>,
}

impl Noted {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(88 + self.cvs.len() * 32);
        for number in [self.cycle.0, self.first, self.len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.hash.0);
        out.extend_from_slice(&self.salt.0);
        self.cvs.iter().for_each(|cv| out.extend_from_slice(&cv.0));
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let damaged = || JournalError("segments.log: damaged entry".into());
        let (head, cvs) = bytes.split_at_checked(88).ok_or_else(damaged)?;
        if cvs.is_empty() || cvs.len() % 32 != 0 {
            return Err(damaged());
        }
        let number = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| damaged());
        let digest = |bytes: &[u8]| bytes.try_into().map_err(|_| damaged());
        let first = number(8)?;
        first.checked_add((cvs.len() / 32) as u64).ok_or_else(damaged)?;
        Ok(Self {
            cycle: CycleNo(number(0)?),
            first,
            len: number(16)?,
            hash: Digest(digest(&head[24..56])?),
            salt: Digest(digest(&head[56..88])?),
            cvs: cvs.chunks_exact(32).map(|cv| digest(cv).map(BlockCv)).collect::<Result<_, _>>()?,
        })
    }
}
