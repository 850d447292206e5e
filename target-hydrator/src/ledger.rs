//! The ledger: what the hydrator knows of one target, in one small file that is replaced whole.
//!
//! Layout: magic, version, length, then JSON, then the first eight bytes of its BLAKE3. It is written before the first
//! byte of a cycle reaches the target and after the last one was read back, so that a crash in between is known for
//! what it is: a cycle to be applied again.

mod applied;
mod unflushed;

pub use applied::AppliedGroup;
pub use unflushed::UNFLUSHED_NAME;

use crate::state::{StateError, StateStore};
use crate::target::{Fingerprint, WriterMark};
use serde::{Deserialize, Serialize};
use sluice_platform::device::Medium;
use sluice_proto::wire::CycleRef;
use sluice_proto::{
    BlockNo, ByteCount, CycleNo, DISK_SECTORS_MAX, Digest, DiskId, Generation, SectorBitmap, SectorCount,
};
use std::sync::Arc;

/// The ledger's name in the state folder.
pub const LEDGER_NAME: &str = "ledger";
/// The bitmap of sectors that may not be as the last verified cycle left them.
pub const TORN_NAME: &str = "torn-sectors";
const MAGIC: [u8; 8] = *b"SLUICLED";
/// The version that this Sluice writes. Change log: 1, the first; `growing`, `writing` and `device` came later and are left out where
/// there is none, so that a program which doesn't know them reads the ledgers of images at rest.
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 16;
const SUM_BYTES: usize = 8;
pub(crate) const LEDGER_BYTES_MAX: u64 = 64 << 20;
const TORN_BYTES_MAX: u64 = 1 << 30;

/// What a target holds and how far the hydrator has come with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The disk that the target is of.
    pub disk: DiskId,
    /// The source's true size in bytes; the target may be padded with zeros beyond it.
    pub source_size: ByteCount,
    /// The source's size, in bytes, that the target is being grown to: its file may be something between the two sizes. None
    /// at other times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growing: Option<ByteCount>,
    /// The sectors that it had before that, as far as the source reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growing_from: Option<SectorCount>,
    /// From which sector on it is made zeros then, as a comparison took it for such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growing_zeros: Option<SectorCount>,
    /// The target, once it was decided upon.
    pub target: Option<TargetRecord>,
    /// The newest generation that was seen: an older one is refused.
    pub generation: Generation,
    /// The public key of the agent that signed the disk's first data key, in hexadecimal: no other may sign.
    pub signer: Option<HexBytes>,
    /// What the target looked like after it was last flushed; none while a cycle is being written.
    pub fingerprint: Option<Fingerprint>,
    /// By whom it is being written while there is no fingerprint. None where the target bears no mark: it can't, or it was begun
    /// by a program that knew none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<Writing>,
    /// The last cycle that the target was proven to hold.
    pub verified: Option<VerifiedCycle>,
    /// What is being done to the target.
    pub state: State,
    /// Why the target may differ from the last verified cycle in sectors that nobody has noted: only a cycle that
    /// compares them all ends this.
    pub doubt: Option<String>,
    /// The cycle for which the target's digests were made, as long as nothing was written since.
    pub compared: Option<CycleNo>,
    /// The comparison that was begun last, noted before any of its digests is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// How many sectors were read for that; those behind counted as zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<SectorCount>,
}

/// What was begun on the target, so that whoever goes on with it sees whether another has written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writing {
    /// The mark that the target bears since before the first write, or is about to get.
    pub mark: WriterMark,
    /// The target before that: as long as it is still that, the mark was not put there yet.
    pub before: Fingerprint,
}

/// A comparison of the target with its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The cycle that it is for.
    pub cycle: CycleNo,
    /// Its number, which the manifest of a resync that is planned by it names.
    pub number: Digest,
    /// The target when it began. Read again, it is the same comparison only where that is the same.
    pub fingerprint: Fingerprint,
}

/// A target and whether it was made whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecord {
    /// Its path.
    pub path: String,
    /// Its format's name.
    pub format: String,
    /// False from the decision to make it until it was made: what stands there then is a beginning of ours.
    pub made: bool,
    /// The block device that it is; none for an image, and where nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceRecord>,
}

/// A block device when it was opened last, so that another one under its name is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRecord {
    /// What tells its medium apart from others.
    #[serde(default, skip_serializing_if = "Medium::is_unknown")]
    pub medium: Medium,
    /// Its size in bytes.
    pub size: ByteCount,
}

/// A cycle that was proven, with all that its report needs, so that the report can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedCycle {
    /// Cycle and manifest.
    pub cycle: CycleRef,
    /// The generation that it was of.
    pub generation: Generation,
    /// BLAKE3 of its stream, at the source and as read back.
    pub digest: Digest,
    /// BLAKE3 of the whole target, after a final cycle.
    pub whole_disk: Option<Digest>,
}

/// What is being done to the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", deny_unknown_fields)]
pub enum State {
    /// Nothing: it holds the last verified cycle, or nothing yet.
    #[default]
    Idle,
    /// Segments of an initial cycle are written as they arrive.
    Initial {
        /// The cycle.
        cycle: CycleNo,
        /// Its generation.
        generation: Generation,
        /// What is durably on the target, from block 0 on without a gap.
        applied: Vec<AppliedGroup>,
    },
    /// A cycle whose segments were all verified is being written. After a crash it is written again.
    Applying {
        /// Cycle and manifest.
        cycle: CycleRef,
    },
    /// Writing a cycle failed half-way. The sectors in `torn-sectors` hold old or new bytes until a later cycle brings
    /// them again.
    Torn {
        /// The cycle that failed.
        cycle: CycleNo,
    },
}

/// Bytes that are kept as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);

impl Serialize for HexBytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8); // below 16
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("pairs of hexadecimal digits are expected"))
    }
}

impl Ledger {
    /// The ledger of a disk that was never met before.
    pub fn new(disk: DiskId, source_size: ByteCount) -> Self {
        Self {
            disk,
            source_size,
            growing: None,
            growing_from: None,
            growing_zeros: None,
            target: None,
            generation: Generation(0),
            signer: None,
            fingerprint: None,
            writing: None,
            verified: None,
            state: State::Idle,
            doubt: None,
            compared: None,
            comparison: None,
            compared_to: None,
        }
    }

    /// True where its sizes are a disk's, and what is noted of a growth lies within what is grown to.
    fn has_sizes_of_disks(&self) -> bool {
        let is_disk = |size: ByteCount| (1..=DISK_SECTORS_MAX).contains(&size.sectors_ceil().0);
        let end = self.size_to_be().sectors_ceil();
        let within = [self.growing_from, self.growing_zeros].into_iter().flatten().all(|at| at <= end);
        is_disk(self.source_size) && is_disk(self.size_to_be()) && within
    }

    /// False while there is none, or one that was only begun to be made.
    pub fn target_is_made(&self) -> bool {
        self.target.as_ref().is_some_and(|record| record.made)
    }

    /// The source's size, in bytes, that the target has, or will have once its growth is brought to its end.
    pub fn size_to_be(&self) -> ByteCount {
        self.growing.unwrap_or(self.source_size)
    }

    /// The first block of this initial cycle that is not known to be durably on the target: 0 where another cycle, or none,
    /// is being applied.
    pub fn applied_end(&self, of: CycleNo, in_generation: Generation) -> BlockNo {
        match &self.state {
            State::Initial { cycle, generation, applied } if (*cycle, *generation) == (of, in_generation) => {
                AppliedGroup::end(applied)
            }
            _ => BlockNo(0),
        }
    }

    /// True where this very cycle was begun and cut short, and nobody has looked at the target since.
    pub fn was_cut_short(&self, of: CycleRef) -> bool {
        self.state == State::Applying { cycle: of } && self.fingerprint.is_none() && self.compared.is_none()
    }

    /// The ledger as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        // Every field is a plain value, so this cannot fail.
        let body = serde_json::to_vec_pretty(self).unwrap_or_default();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&body);
        let sum = Digest::of(&out);
        out.extend_from_slice(&sum.0[..SUM_BYTES]);
        out
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// In words: damaged, newer, not a ledger.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(&MAGIC) {
            return Err("this is not a ledger: it does not begin with SLUICLED".to_owned());
        }
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
            return Err("the ledger is cut short".to_owned());
        };
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(format!(
                "the ledger has version {version}, this program knows version {VERSION}: it was written by a newer \
                 Sluice; update this one"
            ));
        }
        let len = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
        if len.checked_add(SUM_BYTES) != Some(rest.len()) || head[10..12] != [0; 2] {
            return Err("the ledger is cut short".to_owned());
        }
        let (signed, sum) = bytes.split_at(bytes.len() - SUM_BYTES);
        if Digest::of(signed).0[..SUM_BYTES] != *sum {
            return Err("the ledger is damaged: its checksum does not fit".to_owned());
        }
        let ledger: Self =
            serde_json::from_slice(&rest[..len]).map_err(|e| format!("the ledger can't be read: {e}"))?;
        match &ledger.state {
            State::Initial { applied, .. } if !AppliedGroup::ascend(applied) => {
                Err("the ledger contradicts itself: what was applied of the initial cycle is out of order".to_owned())
            }
            _ if ledger.growing.is_some_and(|to| to <= ledger.source_size) => {
                Err("the ledger contradicts itself: its target is being grown to what it is already".to_owned())
            }
            _ if !ledger.has_sizes_of_disks() => {
                Err("the ledger contradicts itself: its sizes are none that a disk has, or that it grows within"
                    .to_owned())
            }
            _ => Ok(ledger),
        }
    }
}

/// A ledger and where it is kept.
#[derive(Clone)]
pub struct LedgerFile {
    /// What it says. Changes count once [`LedgerFile::save`] has returned.
    pub ledger: Ledger,
    store: Arc<dyn StateStore>,
}

impl LedgerFile {
    /// Reads the ledger of a disk, or begins one.
    ///
    /// # Errors
    /// It is damaged, newer, or that of another disk.
    pub async fn open(store: Arc<dyn StateStore>, disk: DiskId, size: ByteCount) -> Result<Self, StateError> {
        let ledger = match store.load(LEDGER_NAME, LEDGER_BYTES_MAX).await? {
            None => Ledger::new(disk, size),
            Some(bytes) => Ledger::decode(&bytes).map_err(|text| {
                StateError::new(format!(
                    "state in {}: {text}. If it is lost, remove the folder and begin with a new target",
                    store.describe()
                ))
            })?,
        };
        if ledger.disk != disk {
            let text = format!(
                "the target with its state in {} is that of disk {}, not of {disk}: give each disk a target of its own",
                store.describe(),
                ledger.disk
            );
            return Err(StateError::new(text));
        }
        Ok(Self { ledger, store })
    }

    /// Makes the ledger durable as it is.
    pub async fn save(&self) -> Result<(), StateError> {
        self.store.save(LEDGER_NAME, self.ledger.encode()).await
    }

    /// Makes the ledger durable as `change` makes it; where that fails it stays as it was, in memory too.
    pub async fn change(&mut self, change: impl FnOnce(&mut Ledger)) -> Result<(), StateError> {
        let mut ledger = self.ledger.clone();
        change(&mut ledger);
        self.store.save(LEDGER_NAME, ledger.encode()).await?;
        self.ledger = ledger;
        Ok(())
    }

    /// The same, with the sectors of a cycle that is about to be written added to those
    /// that can't be relied on.
    pub async fn mark_torn(&mut self, plan: &SectorBitmap, change: impl FnOnce(&mut Ledger)) -> Result<(), StateError> {
        let mut torn = self.torn().await?;
        torn.union_with(plan);
        let mut ledger = self.ledger.clone();
        change(&mut ledger);
        // Of the two the ledger is the last: before it says so nobody believes the other.
        self.store.save_all(vec![(TORN_NAME, torn.encode()), (LEDGER_NAME, ledger.encode())]).await?;
        self.ledger = ledger;
        Ok(())
    }

    /// The sectors that can't be relied on.
    pub async fn torn(&self) -> Result<SectorBitmap, StateError> {
        // In any other state the file, if there is one, is a leftover.
        if !matches!(self.ledger.state, State::Applying { .. } | State::Torn { .. }) {
            return Ok(SectorBitmap::new());
        }
        let Some(bytes) = self.store.load(TORN_NAME, TORN_BYTES_MAX).await? else { return Ok(SectorBitmap::new()) };
        SectorBitmap::decode(&bytes, self.ledger.source_size.sectors_ceil())
            .map_err(|e| StateError::new(format!("{TORN_NAME} in {}: {e}", self.store.describe())))
    }

    /// Forgets the sectors that couldn't be relied on, after the ledger says so.
    pub async fn clear_torn(&self) -> Result<(), StateError> {
        self.store.remove(TORN_NAME).await
    }
}

#[cfg(test)]
mod tests;
