//! Reading the log (sections 2.3.2 and 2.3.3): which entries a crash left to be applied.

use super::super::io::{le32, read_error};
use super::super::{FormatError, ReadAt};
use super::header::Header;
use super::log_entry::{AT_CHECKSUM, EntryHeader};
use super::overlay::{Change, ChangeKind};
use super::{FILE_BYTES_MAX, LOG_SECTOR, checksum};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Programs make logs of 1 MiB; the log is held in memory while it is read.
const LOG_BYTES_MAX: u32 = 64 << 20;
/// No entry that a program writes zeroes more metadata than this in one go.
const ZERO_BYTES_MAX: u64 = 64 << 20;
/// A log full of forged entries costs no more work than this many times its length.
const CHECKSUM_EFFORT: u64 = 16;
const CHAIN_EFFORT: u64 = 1 << 20;

/// What a log holds that the file does not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) changes: Vec<Change>,
    /// The file must be at least so long.
    pub(super) last_file_offset: u64,
}

/// Reads what is to be applied. The header's log id is not nil.
pub(super) fn read(reader: &dyn ReadAt, header: &Header, file_size: u64) -> Result<Replay, FormatError> {
    if header.log_length > LOG_BYTES_MAX {
        return Err(FormatError::unsupported(format!(
            "the VHDX was not closed properly and its log of {} bytes is larger than Sluice reads (64 MiB): open it \
             once with Hyper-V or `qemu-img check -r all`",
            header.log_length
        )));
    }
    let mut ring = vec![0; header.log_length as usize];
    let at = header.log_offset;
    reader.read_at(at, &mut ring).map_err(|e| read_error("VHDX log", at, e))?;
    let ring = Ring { bytes: ring };
    let entries = ring.entries(header.log)?;
    let replay = ring.replay(&newest_chain(&entries, ring.len())?)?;
    check(&replay, &entries, file_size)?;
    Ok(replay)
}

fn check(replay: &Replay, entries: &BTreeMap<u32, EntryHeader>, file_size: u64) -> Result<(), FormatError> {
    let flushed = entries.values().map(|entry| entry.flushed_file_offset).max().unwrap_or(0);
    if flushed > file_size {
        return Err(FormatError::corrupt(format!(
            "the VHDX was cut: its log was written when it had {flushed} bytes, now it has {file_size}"
        )));
    }
    let zeroed: u64 = replay
        .changes
        .iter()
        .filter(|c| matches!(c.kind, ChangeKind::Zero(_)))
        .fold(0, |sum, c| sum.saturating_add(c.len()));
    if replay.last_file_offset > FILE_BYTES_MAX || zeroed > ZERO_BYTES_MAX {
        return Err(FormatError::corrupt(
            "the VHDX log makes the file larger than any VHDX, or clears more than 64 MiB",
        ));
    }
    Ok(())
}

/// The log: entries may go on at its start where its end comes.
struct Ring {
    bytes: Vec<u8>,
}

impl Ring {
    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// The entry at `at`, in one piece.
    fn whole(&self, at: u32, length: u32) -> Vec<u8> {
        let (at, length) = (at as usize, length as usize);
        let first = length.min(self.bytes.len() - at);
        let mut entry = self.bytes[at..at + first].to_vec();
        entry.extend_from_slice(&self.bytes[..length - first]);
        entry
    }

    /// All valid entries of the log with this id, by where they start.
    fn entries(&self, log: Uuid) -> Result<BTreeMap<u32, EntryHeader>, FormatError> {
        let mut entries = BTreeMap::new();
        let mut effort = u64::from(self.len()) * CHECKSUM_EFFORT;
        let mut at = 0;
        while at < self.len() {
            let sector = &self.bytes[at as usize..at as usize + LOG_SECTOR as usize];
            let mut step = LOG_SECTOR as u32;
            if let Some(header) = EntryHeader::decode(sector, self.len()).filter(|header| header.log == log) {
                effort = effort.checked_sub(u64::from(header.length)).ok_or_else(too_forged)?;
                let entry = self.whole(at, header.length);
                if checksum(&entry, AT_CHECKSUM) == le32(&entry, AT_CHECKSUM) {
                    step = header.length;
                    entries.insert(at, header);
                }
            }
            at = at.saturating_add(step);
        }
        Ok(entries)
    }

    /// The changes of these entries, in order.
    fn replay(&self, chain: &[(u32, &EntryHeader)]) -> Result<Replay, FormatError> {
        let mut replay = Replay::default();
        for (at, header) in chain {
            let changes = header.changes(&self.whole(*at, header.length));
            let torn = || FormatError::corrupt(format!("entry {} of the VHDX log is damaged", header.sequence));
            replay.changes.extend(changes.ok_or_else(torn)?);
            replay.last_file_offset = replay.last_file_offset.max(header.last_file_offset);
        }
        Ok(replay)
    }
}

/// The unbroken sequence with the highest number: its newest entry names the oldest one that still counts.
fn newest_chain(
    entries: &BTreeMap<u32, EntryHeader>,
    log_length: u32,
) -> Result<Vec<(u32, &EntryHeader)>, FormatError> {
    let mut newest: Vec<_> = entries.iter().collect();
    newest.sort_by_key(|(_, header)| std::cmp::Reverse(header.sequence));
    let mut effort = CHAIN_EFFORT;
    for (head_at, head) in newest {
        let mut chain = Vec::new();
        let mut at = head.tail;
        let mut expected = None;
        while let Some(entry) = entries.get(&at).filter(|e| expected.is_none_or(|sequence| e.sequence == sequence)) {
            effort = effort.checked_sub(1).ok_or_else(too_forged)?;
            chain.push((at, entry));
            if at == *head_at {
                return Ok(chain);
            }
            expected = entry.sequence.checked_add(1);
            at = ((u64::from(at) + u64::from(entry.length)) % u64::from(log_length)) as u32;
            if expected.is_none() || chain.len() > entries.len() {
                break;
            }
        }
    }
    Err(FormatError::corrupt("the VHDX was not closed properly and its log holds no complete sequence of entries"))
}

fn too_forged() -> FormatError {
    FormatError::corrupt("the VHDX log is full of entries that overlap: no program writes it so")
}

#[cfg(test)]
mod tests;
