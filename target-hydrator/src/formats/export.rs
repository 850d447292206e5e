//! Making a dynamic image in one sequential pass: only what isn't zero is written, and the headers last of all.

use super::io::is_zero;
use super::open::open_as;
use super::{Format, FormatError, Layout, LiveImage, ReadAt, Step, WriteAt, run_steps};
use sluice_proto::env::Entropy;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES};
use std::io;

/// What the pass hands in at a time, in sectors: 1 MiB.
const PIECE_SECTORS: u64 = 2048;

/// Writes a dynamic VHD or VHDX. The file is no image before [`finish`](Self::finish).
///
/// ```text
/// while let Some(piece) = exporter.next_piece() { read it; exporter.put(piece, &bytes, &mut file)?; }
/// exporter.finish(&mut file)?;
/// ```
#[derive(Debug)]
pub struct Exporter {
    layout: Layout,
    live: LiveImage,
    next: u64,
}

impl Exporter {
    /// Begins an export into an empty file. Only dynamic formats: the others are plain copies.
    pub fn new(format: Format, size: ByteCount, ids: &dyn Entropy, unix_ms: u64) -> Result<Self, FormatError> {
        if !format.is_dynamic() {
            return Err(FormatError::unsupported(format!("{format} is not a format of exports: write to it in place")));
        }
        let layout = Layout::create(format, size, ids, unix_ms)?;
        let image = open_as(format, &LayoutReader(&layout), layout.file_size)?;
        let (live, _) = LiveImage::new(image, ids);
        Ok(Self { layout, live, next: 0 })
    }

    /// The sectors to hand in next; `None` when all were. The last piece may reach behind the end of the source, by
    /// less than a MiB: hand in zeros for that.
    pub fn next_piece(&self) -> Option<Extent> {
        let left = self.layout.virtual_size.sectors_ceil().0.checked_sub(self.next).filter(|left| *left > 0)?;
        Some(Extent::new(self.next, left.min(PIECE_SECTORS)))
    }

    /// Writes what isn't zero of the piece that [`next_piece`](Self::next_piece) named; `bytes` has its length.
    pub fn put(&mut self, piece: Extent, bytes: &[u8], file: &mut dyn WriteAt) -> Result<(), FormatError> {
        if Some(piece) != self.next_piece() || bytes.len() as u64 != piece.bytes().0 {
            return Err(FormatError::unsupported(format!("{piece} are not the piece that the export waits for")));
        }
        self.next += piece.len.0;
        if is_zero(bytes) {
            return Ok(());
        }
        // A block's table entry is new in memory only: no reading happens, since all blocks are our own.
        for range in self.live.resolve_write(&LayoutReader(&self.layout), piece)? {
            let from = ((range.disk.start.0 - piece.start.0) * SECTOR_BYTES) as usize;
            let part = &bytes[from..from + range.disk.bytes().0 as usize];
            file.write_at(range.file_offset, part).map_err(write_error)?;
        }
        run_steps(file, self.live.take_bitmap_writes()).map_err(write_error)
    }

    /// Writes the table, then the headers, and syncs: from now on the file is an image.
    pub fn finish(mut self, file: &mut dyn WriteAt) -> Result<(), FormatError> {
        let table = self.live.take_table_writes().into_iter().map(|(at, bytes)| Step::Write(at, bytes));
        let free = self.layout.table_steps();
        let growth = self.live.end_step();
        let headers = self.layout.head_steps();
        run_steps(file, free.chain(table).chain(growth).chain([Step::Sync]).chain(headers)).map_err(write_error)
    }
}

fn write_error(e: io::Error) -> FormatError {
    FormatError::io("cannot write the exported image", e)
}

/// A new image as if it had been written: what the exporter opens, since the file has no headers yet.
pub(super) struct LayoutReader<'a>(pub(super) &'a Layout);

impl ReadAt for LayoutReader<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.0.file_size.0);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        let layout = self.0;
        let pieces = layout.pieces.iter().chain(&layout.tail).map(|(at, bytes)| (*at, bytes.clone()));
        for (at, bytes) in pieces.chain(layout.table.chunks_at(offset, end)) {
            let (from, to) = (at.max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let part = &bytes[(from - at) as usize..(to - at) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
            }
        }
        Ok(())
    }
}
