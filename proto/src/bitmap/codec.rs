//! The bitmap's stable form on disk and on the wire. It is our own, so that no library's format becomes a promise of ours.
//!
//! | bytes | what | why |
//! |---|---|---|
//! | 0..4 | magic `SLBM` | says what the file is |
//! | 4..6 | version, 1 | |
//! | 6..8 | reserved, 0 | |
//! | 8..16 | bytes that follow the header | a cut tail is seen before it is read |
//! | 16..32 | first 16 bytes of BLAKE3 over bytes 0..16 and all that follow the header | finds damage; it is no proof of origin |
//! | 32.. | records, ascending | |
//!
//! Numbers in the header are little-endian; in records they are LEB128 varints. A record begins with a number whose lowest
//! bit is its kind. Both kinds count from a cursor, which is the end of the record before (0 at the start):
//!
//! - **run**, `gap << 1`, then `len`: `gap` sectors that are not in the set, then `len` that are.
//! - **chunk**, `gap << 1 | 1`, then 8192 bytes: 65,536 sectors, aligned to as many, lowest bit of the first byte first.
//!   `gap` is the number of whole chunks between the cursor (rounded up to a chunk) and this one.
//!
//! A chunk is written as such where the runs in it, each cut at the chunk's edges, would take more than 8192 bytes by
//! themselves; elsewhere runs are as long as possible, over the edges of chunks that are not. This makes the form canonical:
//! one set has one encoding. Plain runs alone would take four bytes a sector for scattered sectors; plain chunks alone 16
//! GiB for a full disk of 64 TiB.

use super::SectorBitmap;
use super::shard::{SHARD_BITS, SHARD_LAST, Shard};
use crate::{DISK_SECTORS_MAX, Extent, SectorCount};
use roaring::RoaringBitmap;

const MAGIC: [u8; 4] = *b"SLBM";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
/// Sectors in a chunk.
const CHUNK_SECTORS: u64 = 1 << 16;
/// Bytes of a chunk's plain bitmap.
const CHUNK_BYTES: usize = (CHUNK_SECTORS / 8) as usize;

/// Why bytes are not the bitmap of this disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BitmapError {
    /// Fewer bytes than the header has, or a record that ends in the middle.
    #[error("the bitmap is cut short after {0} bytes")]
    Truncated(usize),
    /// It does not begin with the magic.
    #[error("this is not a sector bitmap: it does not begin with SLBM")]
    Magic,
    /// A version that this program does not know.
    #[error("the bitmap has version {0}, this program knows version 1: it was written by a newer Sluice")]
    Version(u16),
    /// The header's length is not that of what follows.
    #[error("the bitmap's header says {claimed} bytes follow, but {found} do")]
    Length {
        /// What the header says.
        claimed: u64,
        /// What is there.
        found: u64,
    },
    /// The bytes are damaged.
    #[error("the bitmap is damaged: its checksum does not fit")]
    Checksum,
    /// It holds sectors that the disk does not have.
    #[error("the bitmap reaches beyond the disk, which has {disk} sectors")]
    BeyondDisk {
        /// The disk's size.
        disk: SectorCount,
    },
    /// The bytes mean something, but not in the one way that it may be written.
    #[error("the bitmap is not in canonical form")]
    NotCanonical,
}

pub(super) fn encode(bitmap: &SectorBitmap) -> Vec<u8> {
    let mut writer = Writer { out: vec![0; HEADER_BYTES], cursor: 0, run: None, chunk: Chunk::default() };
    for run in bitmap.runs() {
        writer.add(run);
    }
    writer.finish_chunk();
    writer.finish_run();
    let mut out = writer.out;
    let len = (out.len() - HEADER_BYTES) as u64;
    out[0..4].copy_from_slice(&MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[8..16].copy_from_slice(&len.to_le_bytes());
    let checksum = checksum(&out);
    out[16..32].copy_from_slice(&checksum);
    out
}

/// `bytes` is at least a header.
fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..16]).update(&bytes[HEADER_BYTES..]);
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    short
}

/// Writes records while runs come in, ascending.
struct Writer {
    out: Vec<u8>,
    /// The end of the last record.
    cursor: u64,
    /// A run that is not yet written, as what follows may lengthen it.
    run: Option<Extent>,
    chunk: Chunk,
}

/// The runs in the chunk that is being looked at, cut at its edges.
#[derive(Default)]
struct Chunk {
    no: u64,
    /// First sector and end, counted from the chunk's start.
    runs: Vec<(u32, u32)>,
    /// What the runs would take by themselves.
    cost: usize,
}

impl Writer {
    /// Cuts a run at the edges of the chunks at its two ends; the chunks between are full, which is never worth a bitmap.
    fn add(&mut self, run: Extent) {
        let (mut start, end) = (run.start.0, run.end().0);
        let head = end.min((start / CHUNK_SECTORS + 1) * CHUNK_SECTORS);
        self.add_to_chunk(start, head);
        start = head;
        let whole = end / CHUNK_SECTORS * CHUNK_SECTORS;
        if start < whole {
            self.finish_chunk();
            self.push_run(Extent::new(start, whole - start));
            start = whole;
        }
        if start < end {
            self.add_to_chunk(start, end);
        }
    }

    fn add_to_chunk(&mut self, start: u64, end: u64) {
        let no = start / CHUNK_SECTORS;
        if self.chunk.no != no {
            self.finish_chunk();
            self.chunk.no = no;
        }
        let within = |sector: u64| (sector - no * CHUNK_SECTORS) as u32;
        let (start, end) = (within(start), within(end));
        let before = self.chunk.runs.last().map_or(0, |last| last.1);
        self.chunk.cost += varint_len(u64::from(start - before) << 1) + varint_len(u64::from(end - start));
        self.chunk.runs.push((start, end));
    }

    fn finish_chunk(&mut self) {
        let runs = std::mem::take(&mut self.chunk.runs);
        let base = self.chunk.no * CHUNK_SECTORS;
        if std::mem::take(&mut self.chunk.cost) > CHUNK_BYTES {
            self.finish_run();
            let gap = self.chunk.no - self.cursor.div_ceil(CHUNK_SECTORS);
            put_varint(&mut self.out, gap << 1 | 1);
            self.out.extend_from_slice(&plain(&runs));
            self.cursor = base + CHUNK_SECTORS;
        } else {
            for (start, end) in &runs {
                self.push_run(Extent::new(base + u64::from(*start), u64::from(end - start)));
            }
        }
        self.chunk.runs = runs;
        self.chunk.runs.clear();
    }

    fn push_run(&mut self, piece: Extent) {
        match &mut self.run {
            Some(run) if run.end() == piece.start => run.len.0 += piece.len.0,
            _ => {
                self.finish_run();
                self.run = Some(piece);
            }
        }
    }

    fn finish_run(&mut self) {
        if let Some(run) = self.run.take() {
            put_varint(&mut self.out, (run.start.0 - self.cursor) << 1);
            put_varint(&mut self.out, run.len.0);
            self.cursor = run.end().0;
        }
    }
}

/// A chunk's plain bitmap, lowest bit first.
fn plain(runs: &[(u32, u32)]) -> [u8; CHUNK_BYTES] {
    let mut bytes = [0; CHUNK_BYTES];
    for (start, end) in runs {
        for sector in *start..*end {
            bytes[sector as usize / 8] |= 1 << (sector % 8);
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], disk: SectorCount) -> Result<SectorBitmap, BitmapError> {
    let records = check_header(bytes)?;
    let disk = SectorCount(disk.0.min(DISK_SECTORS_MAX));
    let mut reader = Reader { all: records, rest: records, cursor: 0 };
    let mut bitmap = SectorBitmap::new();
    while !reader.rest.is_empty() {
        let head = reader.varint()?;
        match head & 1 {
            0 => reader.run(head >> 1, disk, &mut bitmap)?,
            _ => reader.chunk(head >> 1, disk, &mut bitmap)?,
        }
    }
    // One set has one encoding. Writing it again finds whatever else could be wrong: runs that touch, runs where a chunk
    // is due and the reverse, numbers with leading zeros, a reserved byte.
    if encode(&bitmap) == bytes { Ok(bitmap) } else { Err(BitmapError::NotCanonical) }
}

/// Checks the header and returns the records.
fn check_header(bytes: &[u8]) -> Result<&[u8], BitmapError> {
    let (Some(header), Some(records)) = (bytes.first_chunk::<HEADER_BYTES>(), bytes.get(HEADER_BYTES..)) else {
        return Err(BitmapError::Truncated(bytes.len()));
    };
    let field = |from: usize| u64::from_le_bytes(std::array::from_fn(|i| header[from + i]));
    if header[0..4] != MAGIC {
        return Err(BitmapError::Magic);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != VERSION {
        return Err(BitmapError::Version(version));
    }
    let (claimed, found) = (field(8), records.len() as u64);
    if claimed != found {
        return Err(BitmapError::Length { claimed, found });
    }
    if checksum(bytes) != header[16..32] {
        return Err(BitmapError::Checksum);
    }
    Ok(records)
}

/// Reads records; everything that it takes from the input is checked before it is used.
struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
    /// The end of the last record.
    cursor: u64,
}

impl Reader<'_> {
    fn run(&mut self, gap: u64, disk: SectorCount, bitmap: &mut SectorBitmap) -> Result<(), BitmapError> {
        let len = self.varint()?;
        if len == 0 {
            return Err(BitmapError::NotCanonical);
        }
        let run = Extent::new(self.cursor.saturating_add(gap), len);
        if !run.is_within(disk) {
            return Err(BitmapError::BeyondDisk { disk });
        }
        bitmap.set(run);
        self.cursor = run.end().0;
        Ok(())
    }

    fn chunk(&mut self, gap: u64, disk: SectorCount, bitmap: &mut SectorBitmap) -> Result<(), BitmapError> {
        let start = self.cursor.div_ceil(CHUNK_SECTORS).saturating_add(gap).saturating_mul(CHUNK_SECTORS);
        if start >= disk.0 {
            return Err(BitmapError::BeyondDisk { disk });
        }
        let Some((plain, rest)) = self.rest.split_first_chunk::<CHUNK_BYTES>() else {
            return Err(self.cut_short());
        };
        self.rest = rest;
        self.cursor = start + CHUNK_SECTORS;
        let bits = RoaringBitmap::from_lsb0_bytes((start as u32) & SHARD_LAST, plain);
        let Some(last) = bits.max() else { return Err(BitmapError::NotCanonical) };
        let shard_start = start >> SHARD_BITS << SHARD_BITS;
        if shard_start + u64::from(last) >= disk.0 {
            return Err(BitmapError::BeyondDisk { disk });
        }
        let Some(read) = Shard::from_bits(bits) else { return Err(BitmapError::NotCanonical) };
        // The disk has 2^37 sectors at most, so that the shard's number fits.
        bitmap.add_shard((start >> SHARD_BITS) as u32, read);
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, BitmapError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.rest.split_first() else { return Err(self.cut_short()) };
            self.rest = rest;
            let digits = u64::from(byte & 0x7f);
            if shift == 63 && digits > 1 {
                break;
            }
            value |= digits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BitmapError::NotCanonical)
    }

    fn cut_short(&self) -> BitmapError {
        BitmapError::Truncated(HEADER_BYTES + self.all.len())
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
