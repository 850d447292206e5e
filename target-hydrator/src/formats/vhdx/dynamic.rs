//! The block map of a dynamic VHDX, and writing to one in place. New blocks go to the file's end; the table follows
//! through the log when their data is on stable storage.

use super::super::io::put_le64;
use super::super::live::FileRange;
use super::super::open::{ReadRange, by_block, push_range};
use super::super::table::BlockTable;
use super::super::{FormatError, FormatErrorKind, Step};
use super::bat::{ABSENT, ENTRIES_PER_PAGE, Geometry, pack};
use super::region::Place;
use super::session::Page;
use super::{FILE_BYTES_MAX, LOG_SECTOR, MIB};
use sluice_proto::Extent;
use std::collections::BTreeSet;

/// A VHDX's block map, with what has changed in it and is not yet in the file.
#[derive(Debug)]
pub(in crate::formats) struct DynamicVhdx {
    geometry: Geometry,
    bat: Place,
    table: BlockTable,
    /// The end of what is in use, a whole MiB: where the file ends.
    end: u64,
    /// True where `end` has moved since the last steps.
    grown: bool,
    /// Pages of the table that were changed and not handed out.
    dirty: BTreeSet<u64>,
    /// Blocks that were made since the table was last handed out.
    fresh: BTreeSet<u64>,
}

impl DynamicVhdx {
    pub(super) fn new(geometry: Geometry, bat: Place, table: BlockTable, end: u64) -> Self {
        Self { geometry, bat, table, end, grown: false, dirty: BTreeSet::new(), fresh: BTreeSet::new() }
    }

    /// Where the file ends once the steps before data were done.
    pub(in crate::formats) fn end(&self) -> u64 {
        self.end
    }

    /// Makes the file end where the table says: what a crash left behind that would not read as zeros.
    pub(in crate::formats) fn recovery(&mut self, file_size: u64) -> Vec<Step> {
        if file_size == self.end { Vec::new() } else { vec![Step::SetLen(self.end), Step::Sync] }
    }

    pub(in crate::formats) fn resolve_read(&self, disk: Extent) -> Vec<ReadRange> {
        let mut ranges = Vec::new();
        for (block, part) in by_block(disk, self.geometry.block_bytes) {
            push_range(&mut ranges, part, self.place(block).map(|at| self.file_offset(at, part)));
        }
        ranges
    }

    /// Where to write these sectors. Blocks that are not there are put at the file's end.
    pub(in crate::formats) fn resolve_write(&mut self, disk: Extent) -> Result<Vec<FileRange>, FormatError> {
        let mut ranges = Vec::new();
        for (block, part) in by_block(disk, self.geometry.block_bytes) {
            let at = match self.place(block) {
                Some(at) => at,
                None => self.allocate(block)?,
            };
            let fresh = self.fresh.contains(&block);
            ranges.push(FileRange { disk: part, file_offset: self.file_offset(at, part), fresh });
        }
        Ok(ranges)
    }

    /// To be done before data is written to ranges that `resolve_write` gave: new blocks are whole in the file, zeros.
    pub(in crate::formats) fn steps_before_data(&mut self) -> Vec<Step> {
        if std::mem::take(&mut self.grown) { vec![Step::SetLen(self.end)] } else { Vec::new() }
    }

    /// The pages of the table that were changed, and where they go.
    pub(in crate::formats) fn take_dirty(&mut self) -> Vec<Page> {
        self.fresh.clear();
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|page| (self.bat.offset + page * LOG_SECTOR, self.encode(page))).collect()
    }

    /// States that mean the same as "not present" in a disk without a parent are written as that.
    fn encode(&self, page: u64) -> Box<[u8; LOG_SECTOR as usize]> {
        let mut bytes = Box::new([0; LOG_SECTOR as usize]);
        for slot in 0..ENTRIES_PER_PAGE {
            let block = self.geometry.block(page * ENTRIES_PER_PAGE + slot);
            if let Some(at) = block.and_then(|block| self.place(block)) {
                put_le64(&mut bytes[..], slot as usize * 8, pack(at));
            }
        }
        bytes
    }

    /// The byte of the file where the block starts.
    fn place(&self, block: u64) -> Option<u64> {
        let mib = self.table.get(block);
        (mib != ABSENT).then(|| u64::from(mib) * MIB)
    }

    fn file_offset(&self, at: u64, part: Extent) -> u64 {
        at + part.start.offset() % self.geometry.block_bytes
    }

    fn allocate(&mut self, block: u64) -> Result<u64, FormatError> {
        let at = self.end;
        if at + self.geometry.block_bytes > FILE_BYTES_MAX {
            let text = "the VHDX file has reached 80 TiB: more is in it than its disk can have";
            return Err(FormatError::new(FormatErrorKind::Size, text));
        }
        self.table.set(block, (at / MIB) as u32);
        self.dirty.insert(self.geometry.entry(block) / ENTRIES_PER_PAGE);
        self.fresh.insert(block);
        self.end = at + self.geometry.block_bytes;
        self.grown = true;
        Ok(at)
    }
}
