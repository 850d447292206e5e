//! Making segments: blocks are encoded side by side on several cores, then laid one behind the other.

use super::{
    DIGEST_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, GATHERED_HEAD_BYTES, INDEX_ENTRY_BYTES, Run,
    SEGMENT_BLOCKS_MAX, SEGMENT_BYTES_TARGET, index_part, segment_name,
};
use crate::header::{HEADER_BYTES, Header, Suite};
use crate::keys::{DataKey, ObjectKey, Part};
use crate::stream::{BlockCv, BlockHasher};
use crate::units::{BlockNo, Extent, GRAIN_SECTORS, SECTOR_BYTES, SectorCount};
use std::io::Cursor;
use std::sync::Arc;

/// A block's frames, ready to be laid into a segment.
#[derive(Debug)]
pub struct EncodedBlock {
    /// Which block of the stream.
    pub block: BlockNo,
    /// Its frames.
    pub bytes: Vec<u8>,
    /// How many frames.
    pub frames: u32,
    /// The chaining value of its plaintext.
    pub cv: BlockCv,
}

/// Encodes blocks, one at a time; each worker thread has its own. Contexts and buffers are reused.
pub struct BlockEncoder {
    key: Arc<ObjectKey>,
    stream: SectorCount,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    runs: Vec<Run>,
    /// Data that lies between zeros, put together.
    joined: Vec<u8>,
}

impl BlockEncoder {
    /// An encoder for blocks of one attempt at a cycle whose stream has `stream` sectors.
    ///
    /// `header` is the attempt's: a salt serves one attempt only, and within it each block is encoded once.
    pub fn new(data_key: &DataKey, header: &Header, stream: SectorCount, level: i32) -> Self {
        let zstd = match header.suite {
            Suite::Plain => None,
            // Without memory for a context, frames are stored as they are.
            Suite::Aes256Gcm => zstd::bulk::Compressor::new(level).ok(),
        };
        let key = Arc::new(data_key.object_key(header));
        Self { key, stream, zstd, runs: Vec::new(), joined: Vec::new() }
    }

    /// Encodes `block`, whose plaintext is `data`: the sectors of `extents`, one behind the other. `out` is reused.
    pub fn encode(&mut self, block: BlockNo, extents: &[Extent], data: &[u8], mut out: Vec<u8>) -> EncodedBlock {
        debug_assert_eq!(extents.iter().map(|e| e.bytes().0).sum::<u64>(), data.len() as u64);
        out.clear();
        let mut hasher = BlockHasher::new(block, self.stream);
        hasher.update(data);
        let cv = hasher.finish();
        self.find_runs(extents, data);
        let frames = match self.runs.iter().all(|run| run.zeros) {
            true => self.zeros(block, &mut out),
            false => self.gathered(block, data, cv, &mut out),
        };
        EncodedBlock { block, bytes: out, frames, cv }
    }

    /// Zeros are looked for grain by grain; neighbours of a kind become one run.
    fn find_runs(&mut self, extents: &[Extent], mut data: &[u8]) {
        self.runs.clear();
        for piece in extents.iter().flat_map(|extent| grains_of(*extent)) {
            let (bytes, rest) = data.split_at(piece.bytes().0 as usize);
            data = rest;
            let zeros = is_zero(bytes);
            match self.runs.last_mut() {
                Some(run) if run.zeros == zeros && run.extent.end() == piece.start => run.extent.len.0 += piece.len.0,
                _ => self.runs.push(Run { extent: piece, zeros }),
            }
        }
    }

    /// A block without data: a frame for each of its runs.
    fn zeros(&self, block: BlockNo, out: &mut Vec<u8>) -> u32 {
        for (number, run) in (0..).zip(&self.runs) {
            let sealed_len = self.key.overhead() as u32;
            let header = FrameHeader { number, kind: FrameKind::Zero, extent: run.extent, sealed_len }.encode();
            out.extend_from_slice(&header);
            let from = out.len();
            self.key.seal(Part { block: block.0, frame: number }, &header, out, from);
        }
        self.runs.len() as u32
    }

    /// All of a block in one frame: hashed once, compressed and sealed in one go, however scattered its sectors are.
    fn gathered(&mut self, block: BlockNo, data: &[u8], cv: BlockCv, out: &mut Vec<u8>) -> u32 {
        out.resize(FRAME_HEADER_BYTES, 0);
        out.extend_from_slice(&cv.0);
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        self.runs.iter().for_each(|run| out.extend_from_slice(&run.encode()));
        let body = out.len();
        let mut joined = std::mem::take(&mut self.joined);
        let plain = without_zeros(&self.runs, data, &mut joined);
        let kind = match self.compress(plain, out) {
            true => FrameKind::GatheredZstd,
            false => {
                out.truncate(body);
                out.extend_from_slice(plain);
                FrameKind::Gathered
            }
        };
        self.joined = joined;
        let body_len = (out.len() - body) as u32;
        let at = FRAME_HEADER_BYTES + GATHERED_HEAD_BYTES;
        out[at - 4..at].copy_from_slice(&body_len.to_le_bytes());
        let sealed_len = (out.len() - FRAME_HEADER_BYTES + self.key.overhead()) as u32;
        let start = self.runs.first().map_or(0, |run| run.extent.start.0);
        let extent = Extent::new(start, data.len() as u64 / SECTOR_BYTES);
        let header = FrameHeader { number: 0, kind, extent, sealed_len }.encode();
        out[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        self.key.seal(Part { block: block.0, frame: 0 }, &header, out, FRAME_HEADER_BYTES);
        1
    }

    /// Compresses `plain` to the end of the output; false where that saves nothing.
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(zstd) = &mut self.zstd else { return false };
        // With room for whatever it becomes, equal data becomes equal bytes. The room is not cleared before it is written to,
        // which would cost as much as sealing does.
        out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let mut end = Cursor::new(std::mem::take(out));
        end.set_position(end.get_ref().len() as u64);
        let compressed = zstd.compress_to_buffer(plain, &mut end);
        *out = end.into_inner();
        // What needs as much room as the plaintext does not pay.
        compressed.is_ok_and(|len| len < plain.len())
    }
}

/// The data of the runs that have some, one behind the other: `data` itself where all have.
fn without_zeros<'a>(runs: &[Run], data: &'a [u8], joined: &'a mut Vec<u8>) -> &'a [u8] {
    if runs.iter().all(|run| !run.zeros) {
        return data;
    }
    joined.clear();
    let mut rest = data;
    for run in runs {
        let (bytes, tail) = rest.split_at(run.extent.bytes().0 as usize);
        rest = tail;
        if !run.zeros {
            joined.extend_from_slice(bytes);
        }
    }
    joined
}

/// Cuts an extent where it crosses from one grain of the disk to the next.
fn grains_of(extent: Extent) -> impl Iterator<Item = Extent> {
    let mut at = extent.start.0;
    std::iter::from_fn(move || {
        let end = extent.end().0.min((at / GRAIN_SECTORS + 1) * GRAIN_SECTORS);
        let piece = (at < end).then(|| Extent::new(at, end - at));
        at = end;
        piece
    })
}

/// True where every byte is zero; stops at the first sector that has another.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_BYTES as usize).all(|sector| sector.iter().fold(0, |any, byte| any | byte) == 0)
}

/// Lays encoded blocks into a segment.
pub struct SegmentWriter {
    header: Header,
    key: ObjectKey,
    out: Vec<u8>,
    index: Vec<u8>,
    cvs: Vec<u8>,
    blocks: u64,
}

impl SegmentWriter {
    /// A segment whose first block is `first`. `header` is the attempt's, as for [`BlockEncoder::new`].
    pub fn new(data_key: &DataKey, header: &Header, first: BlockNo) -> Self {
        Self::reusing(data_key, header, first, Vec::new())
    }

    /// The same, laid into `out`, whose bytes are dropped and whose room is reused.
    pub fn reusing(data_key: &DataKey, header: &Header, first: BlockNo, mut out: Vec<u8>) -> Self {
        let header = Header { fields: [first.0, 0, 0], ..header.clone() };
        let key = data_key.object_key(&header);
        // Room for all that it may come to, so that it is not copied as it grows; what is not used is never touched.
        out.clear();
        out.reserve(SEGMENT_BYTES_TARGET + SEGMENT_BYTES_TARGET / 4);
        out.resize(HEADER_BYTES, 0);
        Self { header, key, out, index: Vec::new(), cvs: Vec::new(), blocks: 0 }
    }

    /// The first block.
    pub fn first(&self) -> BlockNo {
        BlockNo(self.header.fields[0])
    }

    /// How many blocks it holds by now.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The name that the segment is stored under.
    pub fn name(&self) -> String {
        segment_name(self.first(), &self.header.salt)
    }

    /// Adds the next block. Blocks come in order, without a gap.
    pub fn push(&mut self, block: &EncodedBlock) {
        debug_assert_eq!(block.block.0, self.first().0 + self.blocks);
        self.index.extend_from_slice(&(self.out.len() as u64).to_le_bytes());
        self.index.extend_from_slice(&(block.bytes.len() as u32).to_le_bytes());
        self.index.extend_from_slice(&block.frames.to_le_bytes());
        self.cvs.extend_from_slice(&block.cv.0);
        self.out.extend_from_slice(&block.bytes);
        self.blocks += 1;
    }

    /// True once the segment should be finished and the next begun.
    pub fn is_full(&self) -> bool {
        self.out.len() >= SEGMENT_BYTES_TARGET || self.blocks >= SEGMENT_BLOCKS_MAX
    }

    /// The segment's bytes. It must hold a block.
    pub fn finish(mut self) -> Vec<u8> {
        debug_assert_eq!(self.index.len() as u64, self.blocks * INDEX_ENTRY_BYTES as u64);
        debug_assert_eq!(self.cvs.len() as u64, self.blocks * DIGEST_BYTES as u64);
        self.header.fields = [self.first().0, self.blocks, self.out.len() as u64];
        let header = self.header.encode();
        self.out[..HEADER_BYTES].copy_from_slice(&header);
        let aad = [&header[..], &self.index].concat();
        self.out.extend_from_slice(&self.index);
        let from = self.out.len();
        self.out.extend_from_slice(&self.cvs);
        self.key.seal(index_part(self.first()), &aad, &mut self.out, from);
        self.out
    }
}
