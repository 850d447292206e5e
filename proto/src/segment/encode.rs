//! Making segments: blocks are encoded side by side on several cores, then laid one behind the other.

use super::{
    DIGEST_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, INDEX_ENTRY_BYTES, SEGMENT_BLOCKS_MAX,
    SEGMENT_BYTES_TARGET, index_part, segment_name,
};
use crate::header::{HEADER_BYTES, Header, Suite};
use crate::keys::{DataKey, ObjectKey, Part};
use crate::stream::{BlockCv, BlockHasher};
use crate::units::{BlockNo, Extent, GRAIN_SECTORS, SECTOR_BYTES, SectorCount};
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
        Self { key: Arc::new(data_key.object_key(header)), stream, zstd }
    }

    /// Changes the zstd level from the next frame on. Levels: zstd's own, negative ones too.
    pub fn set_level(&mut self, level: i32) {
        if let Some(zstd) = &mut self.zstd {
            // A level that the library refuses leaves the old one, which compresses just as correctly.
            let _ = zstd.set_compression_level(level);
        }
    }

    /// Encodes `block`, whose plaintext is `data`: the sectors of `extents`, one behind the other. `out` is reused.
    pub fn encode(&mut self, block: BlockNo, extents: &[Extent], data: &[u8], mut out: Vec<u8>) -> EncodedBlock {
        debug_assert_eq!(extents.iter().map(|e| e.bytes().0).sum::<u64>(), data.len() as u64);
        out.clear();
        let mut hasher = BlockHasher::new(block, self.stream);
        hasher.update(data);
        let mut frames = FrameWriter { encoder: self, block, out: &mut out, frames: 0, zeros: None };
        let mut rest = data;
        for extent in extents {
            for piece in grains_of(*extent) {
                let (bytes, tail) = rest.split_at(piece.bytes().0 as usize);
                rest = tail;
                match is_zero(bytes) {
                    true => frames.zero(piece),
                    false => frames.data(piece, bytes),
                }
            }
        }
        frames.flush_zeros();
        let frames = frames.frames;
        EncodedBlock { block, bytes: out, frames, cv: hasher.finish() }
    }
}

/// Appends frames to a block.
struct FrameWriter<'a> {
    encoder: &'a mut BlockEncoder,
    block: BlockNo,
    out: &'a mut Vec<u8>,
    frames: u32,
    /// Zeros seen and not yet written: neighbours become one frame.
    zeros: Option<Extent>,
}

impl FrameWriter<'_> {
    fn zero(&mut self, piece: Extent) {
        match &mut self.zeros {
            Some(run) if run.end() == piece.start => run.len.0 += piece.len.0,
            _ => {
                self.flush_zeros();
                self.zeros = Some(piece);
            }
        }
    }

    fn flush_zeros(&mut self) {
        let Some(extent) = self.zeros.take() else { return };
        let sealed_len = self.encoder.key.overhead();
        let header = self.header(FrameKind::Zero, extent, sealed_len);
        self.out.extend_from_slice(&header);
        self.seal(&header, self.out.len());
    }

    fn data(&mut self, piece: Extent, bytes: &[u8]) {
        self.flush_zeros();
        let at = self.out.len();
        self.out.resize(at + FRAME_HEADER_BYTES, 0);
        self.out.extend_from_slice(blake3::hash(bytes).as_bytes());
        let body = self.out.len();
        let kind = match self.compress(body, bytes) {
            true => FrameKind::Zstd,
            false => {
                self.out.truncate(body);
                self.out.extend_from_slice(bytes);
                FrameKind::Stored
            }
        };
        let sealed_len = self.out.len() - at - FRAME_HEADER_BYTES + self.encoder.key.overhead();
        let header = self.header(kind, piece, sealed_len);
        self.out[at..at + FRAME_HEADER_BYTES].copy_from_slice(&header);
        self.seal(&header, at + FRAME_HEADER_BYTES);
    }

    /// Compresses `bytes` to the end of the output; false where that saves nothing.
    fn compress(&mut self, body: usize, bytes: &[u8]) -> bool {
        let Some(zstd) = &mut self.encoder.zstd else { return false };
        // The room is one byte less than the plaintext: what does not fit does not pay.
        self.out.resize(body + bytes.len() - 1, 0);
        match zstd.compress_to_buffer(bytes, &mut self.out[body..]) {
            Ok(len) => {
                self.out.truncate(body + len);
                true
            }
            Err(_) => false,
        }
    }

    fn header(&self, kind: FrameKind, extent: Extent, sealed_len: usize) -> [u8; FRAME_HEADER_BYTES] {
        FrameHeader { number: self.frames, kind, extent, sealed_len: sealed_len as u32 }.encode()
    }

    fn seal(&mut self, header: &[u8], from: usize) {
        let part = Part { block: self.block.0, frame: self.frames };
        self.encoder.key.seal(part, header, self.out, from);
        self.frames += 1;
    }
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
        let header = Header { fields: [first.0, 0, 0], ..header.clone() };
        let key = data_key.object_key(&header);
        // Room for all that it may come to, so that it is not copied as it grows; what is not used is never touched.
        let mut out = Vec::with_capacity(SEGMENT_BYTES_TARGET + SEGMENT_BYTES_TARGET / 4);
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
