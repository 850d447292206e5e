//! One entry of the log (section 2.3.1): a header with descriptors, then the data sectors they describe.

use super::super::io::{le32, le64, put_le32, put_le64};
use super::overlay::{Change, ChangeKind};
use super::{LOG_SECTOR, checksum, guids};
use uuid::Uuid;

const SECTOR: usize = LOG_SECTOR as usize;
const SIGNATURE: &[u8; 4] = b"loge";
pub(super) const AT_CHECKSUM: usize = 4;
const AT_LENGTH: usize = 8;
const AT_TAIL: usize = 12;
const AT_SEQUENCE: usize = 16;
const AT_COUNT: usize = 24;
const AT_GUID: usize = 32;
const AT_FLUSHED: usize = 48;
const AT_LAST: usize = 56;
const HEADER_BYTES: usize = 64;
const DESCRIPTOR_BYTES: usize = 32;

/// The header of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    /// Bytes of the whole entry, a multiple of 4096.
    pub(super) length: u32,
    /// Where in the log the oldest entry starts that had not been applied when this one was written.
    pub(super) tail: u32,
    pub(super) sequence: u64,
    pub(super) descriptors: u32,
    pub(super) log: Uuid,
    /// The file was at least so long, on stable storage, when the entry was written.
    pub(super) flushed_file_offset: u64,
    /// The file must be at least so long when the entry has been applied.
    pub(super) last_file_offset: u64,
}

impl EntryHeader {
    /// The header in the first sector of an entry; `None` where it can't be one. The checksum is not looked at.
    pub(super) fn decode(sector: &[u8], log_length: u32) -> Option<Self> {
        let header = Self {
            length: le32(sector, AT_LENGTH),
            tail: le32(sector, AT_TAIL),
            sequence: le64(sector, AT_SEQUENCE),
            descriptors: le32(sector, AT_COUNT),
            log: guids::get(sector, AT_GUID),
            flushed_file_offset: le64(sector, AT_FLUSHED),
            last_file_offset: le64(sector, AT_LAST),
        };
        let whole = |n: u32| n.is_multiple_of(LOG_SECTOR as u32);
        let valid = sector.starts_with(SIGNATURE)
            && whole(header.length)
            && (1..=log_length).contains(&header.length)
            && whole(header.tail)
            && header.tail < log_length
            && header.sequence > 0
            && descriptor_sectors(u64::from(header.descriptors)) * LOG_SECTOR <= u64::from(header.length);
        valid.then_some(header)
    }

    /// What the entry changes; `None` where its parts don't fit together. `entry` is the whole of it, in one piece.
    pub(super) fn changes(&self, entry: &[u8]) -> Option<Vec<Change>> {
        let data_start = (descriptor_sectors(u64::from(self.descriptors)) * LOG_SECTOR) as usize;
        let mut sectors = entry.get(data_start..)?.chunks_exact(SECTOR);
        let descriptors = entry.get(HEADER_BYTES..)?.chunks_exact(DESCRIPTOR_BYTES).take(self.descriptors as usize);
        let changes = descriptors.map(|descriptor| self.change(descriptor, &mut sectors)).collect();
        sectors.next().is_none().then_some(changes).flatten()
    }

    fn change<'a>(&self, descriptor: &[u8], sectors: &mut impl Iterator<Item = &'a [u8]>) -> Option<Change> {
        let offset = le64(descriptor, 16);
        if le64(descriptor, 24) != self.sequence || !offset.is_multiple_of(LOG_SECTOR) {
            return None;
        }
        let kind = match &descriptor[..4] {
            b"zero" => {
                // Whole sectors of the log, at least one: so many of them can't be in one entry that going through them takes long.
                let length = le64(descriptor, 8);
                if length == 0 || !length.is_multiple_of(LOG_SECTOR) {
                    return None;
                }
                ChangeKind::Zero(length)
            }
            b"desc" => {
                let sector = sectors.next()?;
                let sequence = u64::from(le32(sector, 4)) << 32 | u64::from(le32(sector, SECTOR - 4));
                if !sector.starts_with(b"data") || sequence != self.sequence {
                    return None;
                }
                let mut data = Box::new([0; SECTOR]);
                data.copy_from_slice(sector);
                // The sector's first eight and last four bytes made room for its mark and the sequence number.
                data[..8].copy_from_slice(&descriptor[8..16]);
                data[SECTOR - 4..].copy_from_slice(&descriptor[4..8]);
                ChangeKind::Data(data)
            }
            _ => return None,
        };
        Some(Change { offset, kind })
    }
}

/// Sectors that the header and so many descriptors take.
fn descriptor_sectors(descriptors: u64) -> u64 {
    (HEADER_BYTES as u64 + descriptors * DESCRIPTOR_BYTES as u64).div_ceil(LOG_SECTOR)
}

/// How many data sectors one entry can carry in a log of so many bytes.
pub(super) fn capacity(log_length: u64) -> usize {
    // A bound of our own keeps an entry under 4 MiB, however large the log.
    let sectors = (log_length / LOG_SECTOR).min(1024);
    (1..sectors).rev().find(|n| n + descriptor_sectors(*n) <= sectors).unwrap_or(1) as usize
}

/// An entry that stands alone at the log's start and sets these sectors of the file, which is `file_size` bytes long.
pub(super) fn encode(log: Uuid, sequence: u64, sectors: &[(u64, Box<[u8; SECTOR]>)], file_size: u64) -> Vec<u8> {
    let data_start = (descriptor_sectors(sectors.len() as u64) * LOG_SECTOR) as usize;
    let mut bytes = vec![0; data_start + sectors.len() * SECTOR];
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(SIGNATURE);
    put_le32(&mut bytes, AT_LENGTH, length);
    put_le32(&mut bytes, AT_TAIL, 0);
    put_le64(&mut bytes, AT_SEQUENCE, sequence);
    put_le32(&mut bytes, AT_COUNT, sectors.len() as u32);
    guids::put(&mut bytes, AT_GUID, log);
    put_le64(&mut bytes, AT_FLUSHED, file_size);
    put_le64(&mut bytes, AT_LAST, file_size);
    for (i, (offset, data)) in sectors.iter().enumerate() {
        let descriptor = HEADER_BYTES + i * DESCRIPTOR_BYTES;
        bytes[descriptor..descriptor + 4].copy_from_slice(b"desc");
        bytes[descriptor + 4..descriptor + 8].copy_from_slice(&data[SECTOR - 4..]);
        bytes[descriptor + 8..descriptor + 16].copy_from_slice(&data[..8]);
        put_le64(&mut bytes, descriptor + 16, *offset);
        put_le64(&mut bytes, descriptor + 24, sequence);
        let at = data_start + i * SECTOR;
        bytes[at..at + SECTOR].copy_from_slice(&data[..]);
        bytes[at..at + 4].copy_from_slice(b"data");
        put_le32(&mut bytes, at + 4, (sequence >> 32) as u32);
        put_le32(&mut bytes, at + SECTOR - 4, sequence as u32);
    }
    let sum = checksum(&bytes, AT_CHECKSUM);
    put_le32(&mut bytes, AT_CHECKSUM, sum);
    bytes
}
