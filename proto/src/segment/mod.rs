//! Segments: objects of many frames, with an index, each frame sealed on its own.
//!
//! Layout: header (128 bytes; its fields are first block, number of blocks, offset of the index), then the frames of
//! each block, then the index: for each block its offset, length and number of frames, and sealed behind them the
//! blocks' chaining values. FORMAT.md says why each field exists.

mod decode;
mod encode;

pub(crate) use encode::is_zero;

pub use decode::{BlockDecoder, Decoded, FrameData, Segment};
pub use encode::{BlockEncoder, EncodedBlock, SegmentWriter};

use crate::cursor::Cursor;
use crate::error::{FormatError, FormatErrorKind, bad};
use crate::keys::Part;
use crate::units::{BLOCK_SECTORS, BlockNo, Extent};

/// A segment is cut once its frames reach this many bytes.
pub const SEGMENT_BYTES_TARGET: usize = 4 << 20;
/// Blocks in a segment at most: a run of zeros of 16 GiB is one segment.
pub const SEGMENT_BLOCKS_MAX: u64 = 16_384;
/// The largest segment that a reader accepts: the target, one more block of incompressible single sectors, the index.
pub const SEGMENT_BYTES_MAX: u64 = 8 << 20;
/// Frames in a block, or runs in a gathered frame, at most: one a sector.
pub const BLOCK_FRAMES_MAX: u32 = BLOCK_SECTORS as u32;

const FRAME_HEADER_BYTES: usize = 32;
/// What a gathered frame's payload has before its runs: check, number of runs, bytes of data.
const GATHERED_HEAD_BYTES: usize = 40;
const RUN_BYTES: usize = 16;
const INDEX_ENTRY_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;

/// The key of a segment as stored: first block and the first bytes of the salt, so that no attempt overwrites another.
pub fn segment_name(first: BlockNo, salt: &[u8; 32]) -> String {
    use std::fmt::Write;
    let mut name = format!("s{:010}-", first.0);
    for byte in &salt[..8] {
        let _ = write!(name, "{byte:02x}");
    }
    name + ".seg"
}

/// What [`segment_name`] made a name of: the first block and the first bytes of the salt; `None` for any other name.
pub fn parse_segment_name(name: &str) -> Option<(BlockNo, [u8; 8])> {
    let (first, salt) = name.strip_prefix('s')?.strip_suffix(".seg")?.split_once('-')?;
    let salt = u64::from_str_radix(salt, 16).ok()?.to_be_bytes();
    let first = BlockNo(first.parse().ok()?);
    let mut whole = [0; 32];
    whole[..8].copy_from_slice(&salt);
    (segment_name(first, &whole) == name).then_some((first, salt))
}

/// How a frame carries its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    /// BLAKE3 of the plaintext, then the plaintext.
    Stored = 1,
    /// BLAKE3 of the plaintext, then one zstd frame of it.
    Zstd = 2,
    /// All zeros, discarded or written: no payload.
    Zero = 3,
    /// A whole block: its chaining value, its runs of sectors, then the plaintext of those that hold data.
    Gathered = 4,
    /// The same with one zstd frame in the place of the plaintext.
    GatheredZstd = 5,
}

impl FrameKind {
    fn is_gathered(self) -> bool {
        matches!(self, Self::Gathered | Self::GatheredZstd)
    }
}

/// Neighbouring sectors of a gathered frame, all of zeros or all with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    extent: Extent,
    zeros: bool,
}

impl Run {
    fn encode(&self) -> [u8; RUN_BYTES] {
        let mut out = [0; RUN_BYTES];
        out[..8].copy_from_slice(&self.extent.start.0.to_le_bytes());
        out[8..12].copy_from_slice(&(self.extent.len.0 as u32).to_le_bytes());
        out[12] = u8::from(self.zeros);
        out
    }

    fn decode(c: &mut Cursor<'_>) -> Result<Self, FormatError> {
        let extent = Extent::new(c.u64()?, u64::from(c.u32()?));
        let zeros = match c.u8()? {
            0 => false,
            1 => true,
            other => return bad(FormatErrorKind::Impossible, format!("gathered frame: run of kind {other}")),
        };
        c.reserved(3)?;
        Ok(Self { extent, zeros })
    }
}

/// A frame's header: also what its seal is bound to.
#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    number: u32,
    kind: FrameKind,
    /// Of a gathered frame: its first sector, and how many sectors it has in all.
    extent: Extent,
    sealed_len: u32,
}

impl FrameHeader {
    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&self.number.to_le_bytes());
        out[4] = self.kind as u8;
        out[8..16].copy_from_slice(&self.extent.start.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.extent.len.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.sealed_len.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut c = Cursor::new(bytes, "frame header");
        let number = c.u32()?;
        let kind = match c.u8()? {
            1 => FrameKind::Stored,
            2 => FrameKind::Zstd,
            3 => FrameKind::Zero,
            4 => FrameKind::Gathered,
            5 => FrameKind::GatheredZstd,
            other => return bad(FormatErrorKind::Impossible, format!("frame header: kind {other}")),
        };
        c.reserved(3)?;
        let extent = Extent::new(c.u64()?, c.u64()?);
        let sealed_len = c.u32()?;
        c.reserved(4)?;
        Ok(Self { number, kind, extent, sealed_len })
    }
}

/// The nonce of a segment's index: no frame has this number.
fn index_part(first: BlockNo) -> Part {
    Part { block: first.0, frame: u32::MAX }
}

#[cfg(test)]
mod tests;
