//! The block allocation table (section 2.5): eight bytes a block, and after every chunk of blocks one for the sector
//! bitmap that only differencing disks have.

use super::super::io::{le64, read_error};
use super::super::table::BlockTable;
use super::super::{FormatError, ReadAt};
use super::MIB;
use super::region::Place;

/// Where a block's data is not in the file (states 0 to 3: not present, undefined, zero, unmapped): reads as zeros.
pub(super) const ABSENT: u32 = 0;
/// The block's data is in the file.
const FULLY_PRESENT: u64 = 6;
/// Only in differencing disks.
const PARTIALLY_PRESENT: u64 = 7;
/// Entries in a page of the table that goes through the log.
pub(super) const ENTRIES_PER_PAGE: u64 = super::LOG_SECTOR / 8;

/// How a disk is cut into blocks and its blocks into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) struct Geometry {
    pub(super) block_bytes: u64,
    /// Blocks of the disk.
    pub(super) blocks: u64,
    /// Blocks in a chunk: 2^23 sectors (section 2.5).
    chunk: u64,
}

impl Geometry {
    pub(super) fn new(disk_bytes: u64, block_bytes: u64, logical_sector: u32) -> Self {
        let chunk = (u64::from(logical_sector) << 23) / block_bytes;
        Self { block_bytes, blocks: disk_bytes.div_ceil(block_bytes), chunk }
    }

    /// Entries of the table, those of the sector bitmaps between them included.
    pub(super) fn entries(&self) -> u64 {
        self.blocks + (self.blocks - 1) / self.chunk
    }

    /// The entry of a block.
    pub(super) fn entry(&self, block: u64) -> u64 {
        block + block / self.chunk
    }

    /// The block of an entry; `None` for that of a sector bitmap and for one behind the last block's.
    pub(super) fn block(&self, entry: u64) -> Option<u64> {
        let (chunk, within) = (entry / (self.chunk + 1), entry % (self.chunk + 1));
        let block = chunk * self.chunk + within;
        (within < self.chunk && block < self.blocks).then_some(block)
    }

    /// Whole MiB that the table takes.
    pub(super) fn region_bytes(&self) -> u64 {
        (self.entries() * 8).next_multiple_of(MIB)
    }

    /// The bytes of `count` entries from `first` of a table in which all blocks are present, in order, from
    /// `data_start`; fewer at the table's end.
    pub(in crate::formats) fn full_entries(&self, first: u64, count: u64, data_start: u64) -> Vec<u8> {
        let end = (first + count).min(self.entries());
        let entry = |entry| self.block(entry).map_or(0, |block| pack(data_start + block * self.block_bytes));
        (first..end).flat_map(|e| u64::to_le_bytes(entry(e))).collect()
    }
}

/// The entry of a present block at this byte of the file, which is a whole MiB.
pub(super) fn pack(offset: u64) -> u64 {
    offset | FULLY_PRESENT
}

/// Reads the table in chunks. Words are the blocks' positions in MiB, or [`ABSENT`].
pub(super) fn read(
    reader: &dyn ReadAt,
    region: Place,
    geometry: &Geometry,
    file_size: u64,
) -> Result<BlockTable, FormatError> {
    if geometry.entries() * 8 > region.length {
        return Err(FormatError::corrupt(format!(
            "the VHDX block table has room for {} entries, its disk needs {}",
            region.length / 8,
            geometry.entries()
        )));
    }
    let mut table = BlockTable::new(geometry.blocks, ABSENT);
    let mut chunk = vec![0; 64 << 10];
    for first in (0..geometry.entries()).step_by(chunk.len() / 8) {
        let bytes = ((geometry.entries() - first) * 8).min(chunk.len() as u64) as usize;
        let at = region.offset + first * 8;
        reader.read_at(at, &mut chunk[..bytes]).map_err(|e| read_error("VHDX block table", at, e))?;
        for (entry, bytes) in (first..).zip(chunk[..bytes].chunks_exact(8)) {
            if let Some(block) = geometry.block(entry) {
                table.set(block, unpack(block, le64(bytes, 0), geometry, file_size)?);
            }
        }
    }
    Ok(table)
}

fn unpack(block: u64, entry: u64, geometry: &Geometry, file_size: u64) -> Result<u32, FormatError> {
    let offset = entry & !(MIB - 1);
    match entry & 7 {
        0..=3 => Ok(ABSENT),
        FULLY_PRESENT if offset >= MIB && offset.checked_add(geometry.block_bytes).is_some_and(|e| e <= file_size) => {
            // The file is at most `FILE_BYTES_MAX` long: 27 bits.
            Ok((offset / MIB) as u32)
        }
        FULLY_PRESENT => Err(FormatError::corrupt(format!(
            "the VHDX block table puts block {block} at byte {offset}, outside of the file"
        ))),
        PARTIALLY_PRESENT => Err(FormatError::corrupt(format!(
            "the VHDX block table calls block {block} partially present, but the disk has no parent"
        ))),
        state => {
            Err(FormatError::corrupt(format!("the VHDX block table gives block {block} the unknown state {state}")))
        }
    }
}

/// Refuses blocks that share bytes of the file with each other or with metadata; gives the end of what is in use.
pub(super) fn check_places(
    table: &BlockTable,
    geometry: &Geometry,
    taken: &[Place],
    file_size: u64,
) -> Result<u64, FormatError> {
    let per_block = geometry.block_bytes / MIB;
    // A bit for each MiB of the file: at most 10 MiB.
    let mut used = vec![0_u64; (file_size / MIB / 64 + 1) as usize];
    let mut end = taken.iter().map(|place| place.end()).fold(MIB, u64::max);
    for (block, mib) in table.used() {
        let place = Place { offset: u64::from(mib) * MIB, length: geometry.block_bytes };
        let mut free = !taken.iter().any(|other| other.overlaps(place));
        for at in u64::from(mib)..u64::from(mib) + per_block {
            let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
            free &= used[word] & bit == 0;
            used[word] |= bit;
        }
        if !free {
            return Err(FormatError::corrupt(format!(
                "the VHDX block table puts block {block} at byte {}, where other data is",
                place.offset
            )));
        }
        end = end.max(place.end());
    }
    Ok(end)
}

/// Where the data starts, if all blocks are present and follow each other.
pub(super) fn linear_start(table: &BlockTable, geometry: &Geometry) -> Option<u64> {
    let per_block = geometry.block_bytes / MIB;
    let start = u64::from(table.get(0));
    let in_order = (0..geometry.blocks).all(|block| {
        let mib = u64::from(table.get(block));
        mib != u64::from(ABSENT) && mib == start + block * per_block
    });
    in_order.then_some(start * MIB)
}
