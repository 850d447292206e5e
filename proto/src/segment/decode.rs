//! Reading segments that may be hostile: nothing is believed before its seal, nothing allocated by what a length claims.

use super::{
    BLOCK_FRAMES_MAX, DIGEST_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, INDEX_ENTRY_BYTES, Run,
    SEGMENT_BLOCKS_MAX, SEGMENT_BYTES_MAX, index_part,
};
use crate::cursor::Cursor;
use crate::error::{FormatError, FormatErrorKind, bad};
use crate::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use crate::keys::{DataKey, ObjectKey, Part};
use crate::stream::{BlockCv, BlockHasher, block_count};
use crate::units::{BLOCK_SECTORS, BlockNo, DISK_SECTORS_MAX, Extent, GRAIN_SECTORS, Sector, SectorCount};

/// Where a block's frames lie in the segment.
#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    offset: usize,
    len: usize,
    frames: u32,
}

/// A segment whose structure has been checked. What needs no key can be asked at once.
#[derive(Debug)]
pub struct Segment<'a> {
    header: Header,
    bytes: &'a [u8],
    index: Vec<IndexEntry>,
}

impl<'a> Segment<'a> {
    /// Checks the structure of a segment.
    ///
    /// # Errors
    /// Any [`FormatError`] but those that need the key.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let header = Header::decode(ObjectKind::Segment, bytes)?;
        let [first, blocks, index_at] = header.fields;
        if bytes.len() as u64 > SEGMENT_BYTES_MAX {
            return bad(FormatErrorKind::Impossible, format!("segment: {} bytes", bytes.len()));
        }
        if blocks == 0 || blocks > SEGMENT_BLOCKS_MAX || first.checked_add(blocks).is_none() {
            return bad(FormatErrorKind::Impossible, format!("segment: {blocks} blocks from {first}"));
        }
        let overhead = if header.suite == Suite::Plain { 0 } else { crate::keys::TAG_BYTES };
        let tail = blocks as usize * (INDEX_ENTRY_BYTES + DIGEST_BYTES) + overhead;
        if index_at < HEADER_BYTES as u64 || index_at.checked_add(tail as u64) != Some(bytes.len() as u64) {
            return bad(FormatErrorKind::Truncated, "segment: index does not end where the segment does");
        }
        let index = Self::index(bytes, index_at as usize, blocks as usize)?;
        Ok(Self { header, bytes, index })
    }

    fn index(bytes: &[u8], index_at: usize, blocks: usize) -> Result<Vec<IndexEntry>, FormatError> {
        let mut c = Cursor::new(&bytes[index_at..], "segment index");
        let mut expected = HEADER_BYTES;
        let mut index = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            let (offset, len, frames) = (c.u64()?, c.u32()? as usize, c.u32()?);
            if offset != expected as u64 || frames == 0 || frames > BLOCK_FRAMES_MAX {
                return bad(FormatErrorKind::Impossible, "segment index: blocks do not lie one behind the other");
            }
            index.push(IndexEntry { offset: expected, len, frames });
            expected = match expected.checked_add(len) {
                Some(end) if end <= index_at => end,
                _ => return bad(FormatErrorKind::Impossible, "segment index: a block beyond the index"),
            };
        }
        match expected == index_at {
            true => Ok(index),
            false => bad(FormatErrorKind::Impossible, "segment index: bytes that no block owns"),
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The first block.
    pub fn first(&self) -> BlockNo {
        BlockNo(self.header.fields[0])
    }

    /// How many blocks it holds.
    pub fn blocks(&self) -> u64 {
        self.index.len() as u64
    }

    /// How many frames it holds.
    pub fn frames(&self) -> u64 {
        self.index.iter().map(|e| u64::from(e.frames)).sum()
    }

    /// The extents that the frame headers name, for a reader without the key: of a gathered frame where it begins and how
    /// many sectors it has, as where they lie is sealed. Not yet proven by any seal.
    ///
    /// # Errors
    /// A frame header that no writer makes.
    pub fn claimed_extents(&self) -> Result<Vec<Extent>, FormatError> {
        let mut extents = Vec::new();
        for entry in &self.index {
            let mut c = Cursor::new(&self.bytes[entry.offset..entry.offset + entry.len], "frame");
            let mut total = 0_u64;
            for _ in 0..entry.frames {
                let frame = FrameHeader::decode(c.bytes(FRAME_HEADER_BYTES)?)?;
                c.bytes(frame.sealed_len as usize)?;
                // Whoever adds these up or asks for their ends must not have to fear that the sum wraps.
                total = total.saturating_add(frame.extent.len.0);
                if total > BLOCK_SECTORS || !frame.extent.is_within(SectorCount(DISK_SECTORS_MAX)) {
                    return bad(FormatErrorKind::Impossible, "frame header: more than a block, or than any disk");
                }
                extents.push(frame.extent);
            }
            c.end()?;
        }
        Ok(extents)
    }

    /// Opens the index: the blocks' chaining values, which prove header and index too.
    ///
    /// # Errors
    /// `Forged`.
    pub fn block_cvs(&self, key: &ObjectKey) -> Result<Vec<BlockCv>, FormatError> {
        let index_at = self.header.fields[2] as usize;
        let table = index_at + self.index.len() * INDEX_ENTRY_BYTES;
        let aad = [&self.bytes[..HEADER_BYTES], &self.bytes[index_at..table]].concat();
        let mut cvs = Vec::new();
        key.open(index_part(self.first()), &aad, &self.bytes[table..], &mut cvs, "segment index")?;
        if cvs.len() != self.index.len() * DIGEST_BYTES {
            return bad(FormatErrorKind::Impossible, "segment index: chaining values");
        }
        let cv = |chunk: &[u8]| {
            let mut cv = [0; DIGEST_BYTES];
            cv.copy_from_slice(chunk);
            BlockCv(cv)
        };
        Ok(cvs.chunks_exact(DIGEST_BYTES).map(cv).collect())
    }

    /// The key of this segment under the generation's data key.
    pub fn key(&self, data_key: &DataKey) -> ObjectKey {
        data_key.object_key(&self.header)
    }

    /// The frames of the block at `position` (0 is the segment's first), and how many they are.
    fn block_bytes(&self, position: usize) -> (&'a [u8], u32) {
        let entry = self.index[position];
        (&self.bytes[entry.offset..entry.offset + entry.len], entry.frames)
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameData<'a> {
    /// The sectors' bytes.
    Bytes(&'a [u8]),
    /// Zeros only.
    Zeros,
}

/// A block that was opened and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many sectors it has.
    pub sectors: SectorCount,
    /// The chaining value of its plaintext. The segment's index names the same for a block that its writer made.
    pub cv: BlockCv,
}

/// Opens blocks, one at a time; each worker thread has its own. Contexts and buffers are reused.
pub struct BlockDecoder {
    stream: SectorCount,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    opened: Vec<u8>,
    plain: Vec<u8>,
    runs: Vec<Run>,
}

impl BlockDecoder {
    /// A decoder for blocks of a cycle whose stream has `stream` sectors.
    pub fn new(stream: SectorCount) -> Self {
        Self { stream, zstd: None, opened: Vec::new(), plain: Vec::new(), runs: Vec::new() }
    }

    /// Opens and checks every frame of the block at `position` of `segment`, and hands what is in them, in order, to `sink`.
    ///
    /// Nothing of a frame reaches `sink` before its seal and its BLAKE3 were found right. Extents ascend, do not overlap and
    /// stay within `disk`.
    ///
    /// # Errors
    /// Any [`FormatError`]; or what `sink` returns.
    pub fn decode<E: From<FormatError>>(
        &mut self,
        segment: &Segment<'_>,
        key: &ObjectKey,
        position: usize,
        disk: SectorCount,
        mut sink: impl FnMut(Extent, FrameData<'_>) -> Result<(), E>,
    ) -> Result<Decoded, E> {
        let (bytes, frames) = segment.block_bytes(position);
        let block = BlockNo(segment.first().0 + position as u64);
        if block.0 >= block_count(self.stream) {
            let text = format!("block {} of a stream of {} sectors", block.0, self.stream);
            return Err(FormatError::new(FormatErrorKind::Impossible, text).into());
        }
        let mut c = Cursor::new(bytes, "frame");
        let mut place = Place { behind: Sector(0), total: 0, disk };
        let mut hasher = BlockHasher::new(block, self.stream);
        for number in 0..frames {
            let header_bytes = c.bytes(FRAME_HEADER_BYTES)?;
            let header = FrameHeader::decode(header_bytes)?;
            let sealed = c.bytes(header.sealed_len as usize)?;
            if header.number != number {
                let text = format!("frame {} in the place of frame {number}", header.number);
                return Err(FormatError::new(FormatErrorKind::Misplaced, text).into());
            }
            key.open(Part { block: block.0, frame: number }, header_bytes, sealed, &mut self.opened, "frame")?;
            if header.kind.is_gathered() {
                let cv = self.gathered(&header, frames, &mut place, hasher)?;
                self.hand_out(&mut sink)?;
                c.end()?;
                return Ok(Decoded { sectors: SectorCount(place.total), cv });
            }
            place.take(header.extent, header.kind == FrameKind::Zero)?;
            let data = self.plaintext(&header)?;
            match data {
                FrameData::Bytes(bytes) => hasher.update(bytes),
                FrameData::Zeros => hasher.update_zeros(header.extent.bytes().0),
            }
            sink(header.extent, data)?;
        }
        c.end()?;
        Ok(Decoded { sectors: SectorCount(place.total), cv: hasher.finish() })
    }

    /// Reads a gathered frame whose payload is in `self.opened`; afterwards its runs are in `self.runs` and their data in
    /// `self.plain`, both found right.
    fn gathered(
        &mut self,
        header: &FrameHeader,
        frames: u32,
        place: &mut Place,
        mut hasher: BlockHasher,
    ) -> Result<BlockCv, FormatError> {
        if frames != 1 {
            return bad(FormatErrorKind::Impossible, "gathered frame: not alone in its block");
        }
        let mut c = Cursor::new(&self.opened, "gathered frame");
        let check: [u8; DIGEST_BYTES] = c.array()?;
        let (runs, body_len) = (c.u32()?, c.u32()? as usize);
        if runs == 0 || runs > BLOCK_FRAMES_MAX {
            return bad(FormatErrorKind::Impossible, format!("gathered frame: {runs} runs"));
        }
        self.runs.clear();
        for _ in 0..runs {
            let run = Run::decode(&mut c)?;
            // Its length is bounded by a block's, whatever grains it crosses.
            place.take(run.extent, true)?;
            self.runs.push(run);
        }
        let first = self.runs.first().map(|run| run.extent.start);
        if (first, place.total) != (Some(header.extent.start), header.extent.len.0) {
            return bad(FormatErrorKind::Impossible, "gathered frame: other sectors than its header says");
        }
        let body = c.bytes(body_len)?;
        c.end()?;
        let len: u64 = self.runs.iter().filter(|run| !run.zeros).map(|run| run.extent.bytes().0).sum();
        match header.kind {
            FrameKind::Gathered => {
                self.plain.clear();
                self.plain.extend_from_slice(body);
            }
            _ => inflate(&mut self.zstd, body, &mut self.plain, len as usize)?,
        }
        if self.plain.len() as u64 != len {
            return bad(FormatErrorKind::Impossible, "gathered frame: another length than its runs");
        }
        let mut rest = &self.plain[..];
        for run in &self.runs {
            let len = run.extent.bytes().0;
            if run.zeros {
                hasher.update_zeros(len);
            } else {
                let (bytes, tail) = rest.split_at(len as usize);
                hasher.update(bytes);
                rest = tail;
            }
        }
        let cv = hasher.finish();
        match cv.0 == check {
            true => Ok(cv),
            false => bad(FormatErrorKind::Forged, "frame: BLAKE3 of the plaintext"),
        }
    }

    fn hand_out<E>(&self, sink: &mut impl FnMut(Extent, FrameData<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut rest = &self.plain[..];
        for run in &self.runs {
            if run.zeros {
                sink(run.extent, FrameData::Zeros)?;
            } else {
                let (bytes, tail) = rest.split_at(run.extent.bytes().0 as usize);
                rest = tail;
                sink(run.extent, FrameData::Bytes(bytes))?;
            }
        }
        Ok(())
    }

    /// The checked plaintext of the frame whose opened payload is in `self.opened`.
    fn plaintext(&mut self, header: &FrameHeader) -> Result<FrameData<'_>, FormatError> {
        if header.kind == FrameKind::Zero {
            return match self.opened.is_empty() {
                true => Ok(FrameData::Zeros),
                false => bad(FormatErrorKind::Impossible, "zero frame with a payload"),
            };
        }
        let len = header.extent.bytes().0 as usize;
        if self.opened.len() < DIGEST_BYTES {
            return bad(FormatErrorKind::Truncated, "frame: no digest");
        }
        let (digest, body) = self.opened.split_at(DIGEST_BYTES);
        let plain = match header.kind {
            FrameKind::Stored => body,
            _ => {
                inflate(&mut self.zstd, body, &mut self.plain, len)?;
                &self.plain
            }
        };
        if plain.len() != len {
            return bad(FormatErrorKind::Impossible, "frame: another length than its extent");
        }
        if blake3::hash(plain).as_bytes() != digest {
            return bad(FormatErrorKind::Forged, "frame: BLAKE3 of the plaintext");
        }
        Ok(FrameData::Bytes(plain))
    }
}

/// Decompresses `body` into `plain`. The room is `len`, a block's bytes at most, whatever the zstd frame claims.
fn inflate(
    zstd: &mut Option<zstd::bulk::Decompressor<'static>>,
    body: &[u8],
    plain: &mut Vec<u8>,
    len: usize,
) -> Result<(), FormatError> {
    if zstd.is_none() {
        *zstd = zstd::bulk::Decompressor::new().ok();
    }
    let Some(zstd) = zstd else {
        return bad(FormatErrorKind::Impossible, "zstd: no memory for a context");
    };
    plain.resize(len, 0);
    match zstd.decompress_to_buffer(body, &mut plain[..]) {
        Ok(n) => {
            plain.truncate(n);
            Ok(())
        }
        Err(_) => bad(FormatErrorKind::Forged, "frame: zstd can't read it"),
    }
}

/// Where a block's next sectors may be.
struct Place {
    behind: Sector,
    /// The block's sectors so far.
    total: u64,
    disk: SectorCount,
}

impl Place {
    /// Sectors must ascend, stay on the disk, be no more than a block's, and, but where `any_grains`, within one grain.
    fn take(&mut self, extent: Extent, any_grains: bool) -> Result<(), FormatError> {
        let disk = self.disk;
        if extent.is_empty() || !extent.is_within(disk) {
            return bad(FormatErrorKind::Impossible, format!("frame: {extent:?} of a disk of {disk} sectors"));
        }
        if extent.start < self.behind {
            return bad(FormatErrorKind::Impossible, "frame: extents do not ascend");
        }
        if !any_grains && extent.start.grain() != (extent.end().0 - 1) / GRAIN_SECTORS {
            return bad(FormatErrorKind::Impossible, "frame: data of more than one grain");
        }
        self.behind = extent.end();
        self.total += extent.len.0;
        match self.total > BLOCK_SECTORS {
            true => bad(FormatErrorKind::Impossible, "block: more than 1 MiB"),
            false => Ok(()),
        }
    }
}
