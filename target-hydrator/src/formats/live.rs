//! Writing to an image in place, while its metadata stays valid at every moment.

use super::open::{Map, OpenedImage, ReadRange, check_range};
use super::{Format, FormatError, ReadAt, Step, vhdx};
use sluice_proto::env::Entropy;
use sluice_proto::{ByteCount, Extent};

/// A part of the disk and where in the file to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Which sectors of the disk.
    pub disk: Extent,
    /// The byte of the file that holds the first of them; the others follow. A multiple of 4096 plus the distance of
    /// `disk.start` from a multiple of 8 sectors, in images that Sluice made.
    pub file_offset: u64,
    /// True where the block was not in the file before: what is not written of it reads as zeros.
    pub fresh: bool,
}

/// An image that is written in place. One owner; the order of a batch of writes is
///
/// 1. [`resolve_write`](Self::resolve_write) for all its extents (and [`resolve_present`](Self::resolve_present) for
///    those that become zeros: punch what it gives, nothing else),
/// 2. the [`steps_before_data`](Self::steps_before_data),
/// 3. the data, in any order and in parallel,
/// 4. the [`steps_after_data`](Self::steps_after_data), of which the first is a [`Step::Sync`] and the last one too:
///    with that the batch is on stable storage, no other flush is needed.
///
/// A crash anywhere leaves an image that opens, in which all blocks that were not written read as before. Whether
/// overwritten sectors hold the old or the new bytes is for the caller's journal to know. After an error in a step or in
/// the data, drop it and open the image again: it no longer knows what is in the file.
#[derive(Debug)]
pub struct LiveImage {
    format: Format,
    virtual_size: ByteCount,
    map: Map,
    vhdx: Option<vhdx::Session>,
}

impl LiveImage {
    /// Takes over an opened image. The steps, often none, are to be done before anything else: they finish what a
    /// crash cut short.
    pub fn new(image: OpenedImage, ids: &dyn Entropy) -> (Self, Vec<Step>) {
        let mut live =
            Self { format: image.format, virtual_size: image.virtual_size, map: image.map, vhdx: image.vhdx };
        let mut steps = live.vhdx.as_mut().map_or_else(Vec::new, |session| session.recovery(ids));
        match &mut live.map {
            Map::Linear { .. } => {}
            Map::Vhd(map) => steps.extend(map.recovery(image.file_size.0)),
            Map::Vhdx(map) => steps.extend(map.recovery(image.file_size.0)),
        }
        (live, steps)
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of the disk that a guest sees.
    pub fn virtual_size(&self) -> ByteCount {
        self.virtual_size
    }

    /// For raw and fixed images: the byte of the file that holds byte 0 of the disk; all others follow in order, and
    /// `resolve_write` always says the same.
    pub fn linear_start(&self) -> Option<u64> {
        match self.map {
            Map::Linear { start } => Some(start),
            _ => None,
        }
    }

    /// Where to write these sectors, in order and without gaps; makes the blocks that are not there. `reader` is the
    /// image itself. A raw image's last sector may be partial: its file holds only the bytes that exist.
    pub fn resolve_write(&mut self, reader: &dyn ReadAt, disk: Extent) -> Result<Vec<FileRange>, FormatError> {
        check_range(disk, self.virtual_size)?;
        match &mut self.map {
            Map::Linear { start } => {
                Ok(vec![FileRange { disk, file_offset: *start + disk.start.offset(), fresh: false }])
            }
            Map::Vhd(map) => map.resolve_write(reader, disk),
            Map::Vhdx(map) => map.resolve_write(disk),
        }
    }

    /// Where these sectors are at the moment, in order and without gaps, what was resolved for writing included.
    pub fn resolve_read(&self, reader: &dyn ReadAt, disk: Extent) -> Result<Vec<ReadRange>, FormatError> {
        check_range(disk, self.virtual_size)?;
        self.map.resolve_read(reader, disk)
    }

    /// The parts of these sectors that are in the file: to make sectors zero, punch these. No block is made for zeros.
    pub fn resolve_present(&self, reader: &dyn ReadAt, disk: Extent) -> Result<Vec<FileRange>, FormatError> {
        let ranges = self.resolve_read(reader, disk)?;
        let present = |range: ReadRange| {
            range.file_offset.map(|file_offset| FileRange { disk: range.disk, file_offset, fresh: false })
        };
        Ok(ranges.into_iter().filter_map(present).collect())
    }

    /// What to do before data is written, or holes are punched.
    pub fn steps_before_data(&mut self, ids: &dyn Entropy) -> Vec<Step> {
        let mut steps = self.vhdx.as_mut().map_or_else(Vec::new, |session| session.begin_writing(ids));
        match &mut self.map {
            Map::Linear { .. } => {}
            Map::Vhd(map) => steps.extend(map.steps_before_data()),
            Map::Vhdx(map) => steps.extend(map.steps_before_data()),
        }
        steps
    }

    /// What to do after the data was written. Starts and ends with [`Step::Sync`].
    pub fn steps_after_data(&mut self, ids: &dyn Entropy) -> Vec<Step> {
        match (&mut self.map, &mut self.vhdx) {
            (Map::Vhd(map), _) => map.steps_after_data(),
            (Map::Vhdx(map), Some(session)) => {
                let mut steps = vec![Step::Sync];
                let end = map.end();
                steps.extend(session.commit(map.take_dirty(), end, ids));
                steps
            }
            _ => vec![Step::Sync],
        }
    }

    /// The changed parts of the block table, for a file that is not yet an image: the export's.
    pub(super) fn take_table_writes(&mut self) -> Vec<(u64, Vec<u8>)> {
        match &mut self.map {
            Map::Linear { .. } => Vec::new(),
            Map::Vhd(map) => map.take_dirty(),
            Map::Vhdx(map) => map.take_dirty().into_iter().map(|(at, page)| (at, page.to_vec())).collect(),
        }
    }

    /// What new blocks need besides their data: for an export, whose end comes later.
    pub(super) fn take_bitmap_writes(&mut self) -> Vec<Step> {
        match &mut self.map {
            Map::Vhd(map) => map.take_bitmap_writes(),
            Map::Linear { .. } | Map::Vhdx(_) => Vec::new(),
        }
    }

    /// What makes a dynamic image's file end where it should.
    pub(super) fn end_step(&self) -> Vec<Step> {
        match &self.map {
            Map::Linear { .. } => Vec::new(),
            Map::Vhd(map) => vec![map.end_step()],
            Map::Vhdx(map) => vec![Step::SetLen(map.end())],
        }
    }
}
