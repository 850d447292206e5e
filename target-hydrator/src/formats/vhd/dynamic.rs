//! The block map of a dynamic VHD, and writing to one in place.
//!
//! A new block goes behind the footer: first the footer is written again behind the new block, then the data, and the
//! table entry only after both are on stable storage. The old footer's sector is left alone. So a crash anywhere
//! leaves either the old table, which knows nothing of the space at the end, or the new one with its data; the footer
//! is at the end or, if the file's growth was lost half-way, still in its copy at the start.

use super::super::io::{put_be32, read_error};
use super::super::live::FileRange;
use super::super::open::{ReadRange, by_block, push_range};
use super::super::table::BlockTable;
use super::super::{FormatError, FormatErrorKind, ReadAt, Step};
use super::footer::FOOTER_BYTES;
use super::header::DynamicHeader;
use super::{DATA_ALIGN, FREE};
use parking_lot::Mutex;
use sluice_proto::{Extent, SECTOR_BYTES};
use std::collections::BTreeSet;

/// Entries of the block table in one of its sectors.
const ENTRIES_PER_SECTOR: u64 = SECTOR_BYTES / 4;

/// A dynamic VHD's block map, with what has changed in it and is not yet in the file.
#[derive(Debug)]
pub(in crate::formats) struct DynamicVhd {
    header: DynamicHeader,
    table: BlockTable,
    footer: Box<[u8; FOOTER_BYTES]>,
    /// The end of what is in use: the footer's place. Exactly there and nowhere behind, since others (QEMU) put their
    /// next block at the end of the last one, over the footer, and take what is behind it for zeros.
    end: u64,
    head_ok: bool,
    tail_ok: bool,
    /// Bitmaps of new blocks, by their offset; not yet handed out.
    new_bitmaps: Vec<u64>,
    /// Sectors of the block table that were changed and not handed out.
    dirty: BTreeSet<u64>,
    /// Blocks that were made since the table was last handed out.
    fresh: BTreeSet<u64>,
    /// Blocks whose sector bitmaps are known to be full: new ones, and those that were looked at. Each is read once,
    /// also by who only reads: whoever walks a disk asks for the same blocks over and over.
    full: Mutex<BTreeSet<u64>>,
}

impl DynamicVhd {
    pub(super) fn new(
        header: DynamicHeader,
        table: BlockTable,
        footer: Box<[u8; FOOTER_BYTES]>,
        end: u64,
        [head_ok, tail_ok]: [bool; 2],
    ) -> Self {
        Self {
            header,
            table,
            footer,
            end,
            head_ok,
            tail_ok,
            new_bitmaps: Vec::new(),
            dirty: BTreeSet::new(),
            fresh: BTreeSet::new(),
            full: Mutex::default(),
        }
    }

    /// Steps that make the file end where its tables say, with a footer: for a file whose growth was cut short. Space
    /// behind the last block is given back, so that it reads as zeros when it is used.
    pub(in crate::formats) fn recovery(&mut self, file_size: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.head_ok {
            steps.extend([Step::Write(0, self.footer.to_vec()), Step::Sync]);
        }
        if !self.tail_ok || file_size != self.end + FOOTER_BYTES as u64 {
            // In this order: a file that ends with a block ends with its guest's bytes.
            steps.extend([Step::Write(self.end, self.footer.to_vec()), Step::Sync]);
            steps.extend([Step::SetLen(self.end + FOOTER_BYTES as u64), Step::Sync]);
        }
        (self.head_ok, self.tail_ok) = (true, true);
        steps
    }

    pub(in crate::formats) fn resolve_read(
        &self,
        reader: &dyn ReadAt,
        disk: Extent,
    ) -> Result<Vec<ReadRange>, FormatError> {
        let mut ranges = Vec::new();
        for (block, part) in by_block(disk, u64::from(self.header.block_bytes)) {
            let Some((bitmap, _)) = self.place(block) else {
                push_range(&mut ranges, part, None);
                continue;
            };
            if self.is_full(reader, block, bitmap)? {
                push_range(&mut ranges, part, Some(self.file_offset(bitmap, part)));
                continue;
            }
            // A sector whose bit is clear was never written and reads as zeros, whatever the block holds there.
            let bits = self.read_bitmap(reader, bitmap, part)?;
            let mut at = part.start.0;
            for run in bits.chunk_by(|a, b| a == b) {
                let part = Extent::new(at, run.len() as u64);
                push_range(&mut ranges, part, run[0].then(|| self.file_offset(bitmap, part)));
                at += part.len.0;
            }
        }
        Ok(ranges)
    }

    /// Where to write these sectors. Blocks that are not there are put at the file's end; what of them is not written
    /// reads as zeros.
    pub(in crate::formats) fn resolve_write(
        &mut self,
        reader: &dyn ReadAt,
        disk: Extent,
    ) -> Result<Vec<FileRange>, FormatError> {
        let mut ranges = Vec::new();
        for (block, part) in by_block(disk, u64::from(self.header.block_bytes)) {
            let (bitmap, fresh) = match self.place(block) {
                Some((bitmap, fresh)) => (bitmap, fresh),
                None => (self.allocate(block)?, true),
            };
            self.check_bitmap(reader, block, bitmap)?;
            ranges.push(FileRange { disk: part, file_offset: self.file_offset(bitmap, part), fresh });
        }
        Ok(ranges)
    }

    /// To be done before data is written to ranges that `resolve_write` gave.
    pub(in crate::formats) fn steps_before_data(&mut self) -> Vec<Step> {
        if self.new_bitmaps.is_empty() {
            return Vec::new();
        }
        std::iter::once(self.end_step()).chain(self.take_bitmap_writes()).collect()
    }

    /// The footer, at the file's end as it now is.
    pub(in crate::formats) fn end_step(&self) -> Step {
        Step::Write(self.end, self.footer.to_vec())
    }

    /// The sector bitmaps of new blocks: all sectors in use.
    pub(in crate::formats) fn take_bitmap_writes(&mut self) -> Vec<Step> {
        let bytes = self.header.bitmap_bytes() as usize;
        self.new_bitmaps.drain(..).map(|at| Step::Write(at, vec![0xff; bytes])).collect()
    }

    /// To be done after the data was written.
    pub(in crate::formats) fn steps_after_data(&mut self) -> Vec<Step> {
        let sectors = self.take_dirty();
        if sectors.is_empty() {
            return vec![Step::Sync];
        }
        let writes = sectors.into_iter().map(|(at, bytes)| Step::Write(at, bytes));
        std::iter::once(Step::Sync).chain(writes).chain([Step::Sync]).collect()
    }

    /// The sectors of the block table that were changed, and where they go.
    pub(in crate::formats) fn take_dirty(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.fresh.clear();
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|sector| (self.header.table_offset + sector * SECTOR_BYTES, self.encode(sector)))
            .collect()
    }

    fn encode(&self, sector: u64) -> Vec<u8> {
        let mut bytes = vec![0xff; SECTOR_BYTES as usize];
        for entry in 0..ENTRIES_PER_SECTOR {
            put_be32(&mut bytes, entry as usize * 4, self.table.get(sector * ENTRIES_PER_SECTOR + entry));
        }
        bytes
    }

    /// Where the block's bitmap is, and whether its table entry is still to be written.
    fn place(&self, block: u64) -> Option<(u64, bool)> {
        let word = self.table.get(block);
        (word != FREE).then(|| (u64::from(word) * SECTOR_BYTES, self.fresh.contains(&block)))
    }

    fn file_offset(&self, bitmap: u64, part: Extent) -> u64 {
        bitmap + self.header.bitmap_bytes() + part.start.offset() % u64::from(self.header.block_bytes)
    }

    fn allocate(&mut self, block: u64) -> Result<u64, FormatError> {
        let data = (self.end + FOOTER_BYTES as u64 + self.header.bitmap_bytes()).next_multiple_of(DATA_ALIGN);
        let bitmap = data - self.header.bitmap_bytes();
        let word = u32::try_from(bitmap / SECTOR_BYTES).ok().filter(|word| *word != FREE).ok_or_else(|| {
            let text = "the dynamic VHD's file has reached 2 TiB, the most its table can point to: use vhdx-dynamic";
            FormatError::new(FormatErrorKind::Size, text)
        })?;
        self.table.set(block, word);
        self.dirty.insert(block / ENTRIES_PER_SECTOR);
        self.fresh.insert(block);
        self.full.get_mut().insert(block);
        self.new_bitmaps.push(bitmap);
        self.end = data + u64::from(self.header.block_bytes);
        Ok(bitmap)
    }

    /// Sluice and QEMU fill a block's bitmap when they make it. Another program's block that is partly used would
    /// need its unused sectors wiped as they are first written; such an image is refused rather than guessed at.
    fn check_bitmap(&self, reader: &dyn ReadAt, block: u64, bitmap: u64) -> Result<(), FormatError> {
        if !self.is_full(reader, block, bitmap)? {
            return Err(FormatError::unsupported(format!(
                "block {block} of the dynamic VHD is only partly in use: another program wrote this image. \
                 Convert it (qemu-img convert -O vpc) or begin a new target"
            )));
        }
        Ok(())
    }

    /// True where the block holds all of its sectors.
    fn is_full(&self, reader: &dyn ReadAt, block: u64, bitmap: u64) -> Result<bool, FormatError> {
        if self.full.lock().contains(&block) {
            return Ok(true);
        }
        let mut bits = vec![0; self.header.bitmap_bytes() as usize];
        reader.read_at(bitmap, &mut bits).map_err(|e| read_error("VHD's sector bitmap", bitmap, e))?;
        let used = self.header.block_bytes as usize / SECTOR_BYTES as usize / 8;
        let full = bits[..used].iter().all(|byte| *byte == 0xff);
        if full {
            self.full.lock().insert(block);
        }
        Ok(full)
    }

    /// A bool a sector of `part`, which lies in one block: true where the block holds it.
    fn read_bitmap(&self, reader: &dyn ReadAt, bitmap: u64, part: Extent) -> Result<Vec<bool>, FormatError> {
        let first = part.start.0 % (u64::from(self.header.block_bytes) / SECTOR_BYTES);
        let end = first + part.len.0;
        let from = bitmap + first / 8;
        let mut bits = vec![0; (end.div_ceil(8) - first / 8) as usize];
        reader.read_at(from, &mut bits).map_err(|e| read_error("VHD's sector bitmap", from, e))?;
        let bit = |sector: u64| bits[(sector / 8 - first / 8) as usize] & (0x80 >> (sector % 8)) != 0;
        Ok((first..end).map(bit).collect())
    }
}
