//! Opening segments: checked against the plan, hashed, and turned into what is to be done to the target. No I/O.

use sluice_platform::{AlignedBuf, BufPool};
use sluice_proto::header::Suite;
use sluice_proto::keys::DataKey;
use sluice_proto::manifest::SegmentEntry;
use sluice_proto::segment::{BlockDecoder, FrameData, Segment};
use sluice_proto::stream::BlockCv;
use sluice_proto::{
    BLOCK_BYTES, BLOCK_SECTORS, BlockNo, ByteCount, CycleNo, Digest, DiskId, Extent, FormatError, FormatErrorKind,
    Generation, SectorCount,
};
use std::sync::LazyLock;

/// Data that is written or read in one go at most: what a buffer of the shared pool holds.
pub(super) const BUFFER_BYTES: u64 = 1 << 20;
/// Less than this gets memory of its own.
const POOLED_BYTES_MIN: u64 = BUFFER_BYTES / 4;
/// Plaintext that is decoded before it is written, where a segment is decoded piece by piece.
const STEP_BYTES: u64 = 4 << 20;
/// Blocks that are decoded before they are written: zeros hold no plaintext.
const STEP_BLOCKS: usize = 1024;

/// What all segments of a cycle share.
#[derive(Debug)]
pub(crate) struct Cycle {
    pub disk: DiskId,
    pub generation: Generation,
    pub cycle: CycleNo,
    pub suite: Suite,
    pub key: DataKey,
    /// The source's sectors.
    pub sectors: SectorCount,
    /// The plan's sectors.
    pub stream: SectorCount,
}

/// A segment that is to be opened, and what it must come to.
#[derive(Debug)]
pub(crate) struct Job {
    pub name: String,
    pub first: BlockNo,
    pub len: ByteCount,
    pub hash: Digest,
    /// The salt that the manifest names; unknown before the commit.
    pub salt: Option<Digest>,
    /// The extents of each of its blocks, by the plan.
    pub blocks: Vec<Vec<Extent>>,
}

impl Job {
    /// The job for an entry of a manifest, with the extents of its blocks.
    pub fn of(entry: &SegmentEntry, blocks: Vec<Vec<Extent>>) -> Self {
        Self {
            name: entry.name(),
            first: entry.first,
            len: entry.len,
            hash: entry.hash,
            salt: Some(entry.salt),
            blocks,
        }
    }

    /// The first block behind it.
    pub fn end(&self) -> BlockNo {
        BlockNo(self.first.0 + self.blocks.len() as u64)
    }

    /// The disk's bytes that it holds.
    pub fn bytes(&self) -> ByteCount {
        ByteCount(self.blocks.iter().flatten().map(|e| e.bytes().0).sum())
    }
}

/// Memory for plaintext, shared by all disks of the process: as much as one of them holds at full speed.
static BUFFERS: LazyLock<BufPool> = LazyLock::new(|| BufPool::new(48, BUFFER_BYTES as usize));

/// Memory for `len` bytes: from the pool where it is worth it and one is free, so that large pieces are not given back to
/// the allocator and asked for again all the time. It never waits: who holds buffers may need more to go on.
pub(super) fn buffer(len: u64) -> AlignedBuf {
    let pooled = (POOLED_BYTES_MIN..=BUFFER_BYTES).contains(&len).then(|| BUFFERS.try_take()).flatten();
    pooled.unwrap_or_else(|| AlignedBuf::new(len as usize))
}

/// Something to do to the target.
#[derive(Debug)]
pub(crate) enum Op {
    /// The extents' bytes, one behind the other.
    Write(Vec<Extent>, AlignedBuf),
    Zero(Extent),
}

impl Op {
    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        let room = match self {
            Self::Write(_, buf) => buf.capacity(),
            Self::Zero(_) => 0,
        };
        room + size_of::<Self>()
    }
}

/// A segment that was found right in every respect.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What its blocks' chaining values are, at the source.
    pub cvs: Vec<BlockCv>,
    /// Its blocks that hold nothing but zeros.
    pub zeros: Vec<BlockNo>,
    /// What it does to the target; none where that is too much to be held.
    pub ops: Option<Vec<Op>>,
}

fn bad<T>(kind: FormatErrorKind, context: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::new(kind, context))
}

/// Checks what needs no decoding: length, hash, structure, place, and the seal of the index. It must have `blocks` blocks.
fn enter<'a>(
    cycle: &Cycle,
    job: &Job,
    blocks: u64,
    bytes: &'a [u8],
) -> Result<(Segment<'a>, Vec<BlockCv>), FormatError> {
    if bytes.len() as u64 != job.len.0 {
        return bad(FormatErrorKind::Truncated, format!("{} bytes where there should be {}", bytes.len(), job.len));
    }
    if Digest::of(bytes) != job.hash {
        return bad(FormatErrorKind::Forged, "its BLAKE3 is another");
    }
    let segment = Segment::parse(bytes)?;
    segment.header().expect(cycle.disk, cycle.generation, cycle.cycle)?;
    if segment.header().suite != cycle.suite {
        return bad(FormatErrorKind::Suite, "sealed in another way than its cycle");
    }
    if job.salt.is_some_and(|salt| salt.0 != segment.header().salt) {
        return bad(FormatErrorKind::Misplaced, "of another attempt than the manifest names");
    }
    if segment.first() != job.first || segment.blocks() != blocks {
        return bad(FormatErrorKind::Misplaced, format!("{:?} where {:?} was due", segment.first(), job.first));
    }
    let cvs = segment.block_cvs(&segment.key(&cycle.key))?;
    Ok((segment, cvs))
}

/// Checks a segment in full: every frame decoded, every extent by the plan, every block's hash. Keeps what it does to the
/// target where that is `keep_max` bytes at most.
pub(crate) fn open(cycle: &Cycle, job: &Job, bytes: &[u8], keep_max: u64) -> Result<Opened, FormatError> {
    let (segment, cvs) = enter(cycle, job, job.blocks.len() as u64, bytes)?;
    let mut plan: Vec<Walk<'_>> = job.blocks.iter().map(|extents| Walk::new(extents)).collect();
    open_blocks(cycle, &segment, cvs, keep_max, |position, extent| match extent {
        Some(extent) => plan[position].take(extent),
        None => plan[position].end(),
    })
}

/// The same while the plan is not known yet. Gives the salt, and the digest of the sectors that it brings.
pub(crate) fn open_ahead(
    cycle: &Cycle,
    job: &Job,
    blocks: u64,
    bytes: &[u8],
    keep_max: u64,
) -> Result<(Opened, Digest, Digest), FormatError> {
    let (segment, cvs) = enter(cycle, job, blocks, bytes)?;
    let mut extents: Vec<Vec<Extent>> = vec![Vec::new(); cvs.len()];
    let opened = open_blocks(cycle, &segment, cvs, keep_max, |position, extent| {
        let Some(extent) = extent else { return Ok(()) };
        match extents[position].last_mut().filter(|last| last.end() == extent.start) {
            Some(last) => last.len.0 += extent.len.0,
            None => extents[position].push(extent),
        }
        Ok(())
    })?;
    Ok((opened, Digest(segment.header().salt), plan_digest(&extents)))
}

/// A digest of which sectors blocks bring.
pub(super) fn plan_digest(blocks: &[Vec<Extent>]) -> Digest {
    let mut bytes = Vec::new();
    for extents in blocks {
        bytes.extend_from_slice(&(extents.len() as u64).to_le_bytes());
        for extent in extents {
            bytes.extend_from_slice(&extent.start.0.to_le_bytes());
            bytes.extend_from_slice(&extent.len.0.to_le_bytes());
        }
    }
    Digest::of(&bytes)
}

/// Opens every block, and checks its hash; `see` may refuse an extent of a block, or that it ends there.
fn open_blocks(
    cycle: &Cycle,
    segment: &Segment<'_>,
    cvs: Vec<BlockCv>,
    keep_max: u64,
    mut see: impl FnMut(usize, Option<Extent>) -> Result<(), FormatError>,
) -> Result<Opened, FormatError> {
    let key = segment.key(&cycle.key);
    let mut decoder = BlockDecoder::new(cycle.stream);
    let (mut ops, mut zeros) = (Some(Ops::default()), Vec::new());
    for (position, cv) in cvs.iter().enumerate() {
        let block = BlockNo(segment.first().0 + position as u64);
        let mut is_zero = true;
        if let Some(kept) = &mut ops {
            kept.begin_block(cycle, block);
        }
        let decoded = decoder.decode(segment, &key, position, cycle.sectors, |extent, data| {
            see(position, Some(extent))?;
            is_zero &= data == FrameData::Zeros;
            if let Some(kept) = &mut ops {
                kept.push(extent, data);
            }
            Ok::<_, FormatError>(())
        })?;
        see(position, None)?;
        if decoded.cv != *cv {
            return bad(FormatErrorKind::Forged, format!("{block:?} is not what its index says"));
        }
        if is_zero {
            zeros.push(block);
        }
        if ops.as_ref().is_some_and(|kept| kept.bytes > keep_max) {
            ops = None;
        }
    }
    Ok(Opened { cvs, zeros, ops: ops.map(|kept| kept.list) })
}

/// The next piece of a segment that was found right before: what to do for some blocks from `position` on, and the
/// position behind them. The chaining values come with the first piece.
pub(crate) fn open_piece(
    cycle: &Cycle,
    job: &Job,
    bytes: &[u8],
    position: usize,
) -> Result<(Vec<Op>, usize, Vec<BlockCv>), FormatError> {
    // The store might have been changed since: the hash is checked again before the first piece.
    let (segment, cvs) = match position {
        0 => enter(cycle, job, job.blocks.len() as u64, bytes)?,
        _ => (Segment::parse(bytes)?, Vec::new()),
    };
    let key = segment.key(&cycle.key);
    let mut decoder = BlockDecoder::new(cycle.stream);
    let mut ops = Ops::default();
    let mut next = position;
    while next < job.blocks.len() && ops.bytes < STEP_BYTES && next - position < STEP_BLOCKS {
        let mut plan = Walk::new(&job.blocks[next]);
        ops.begin_block(cycle, BlockNo(job.first.0 + next as u64));
        decoder.decode(&segment, &key, next, cycle.sectors, |extent, data| {
            plan.take(extent)?;
            ops.push(extent, data);
            Ok::<_, FormatError>(())
        })?;
        plan.end()?;
        next += 1;
    }
    Ok((ops.list, next, cvs))
}

/// Walks the planned extents of a block: frames must bring exactly these, in their order.
struct Walk<'a> {
    extents: &'a [Extent],
    /// Sectors of the first extent that frames have brought.
    taken: u64,
}

impl<'a> Walk<'a> {
    fn new(extents: &'a [Extent]) -> Self {
        Self { extents, taken: 0 }
    }

    /// Takes a frame's extent.
    fn take(&mut self, frame: Extent) -> Result<(), FormatError> {
        let outside =
            || FormatError::new(FormatErrorKind::Impossible, format!("{frame} are not the plan's next sectors"));
        let mut rest = frame;
        while !rest.is_empty() {
            let (run, others) = self.extents.split_first().ok_or_else(outside)?;
            if rest.start.0 != run.start.0 + self.taken {
                return Err(outside());
            }
            let step = rest.len.0.min(run.len.0 - self.taken);
            self.taken += step;
            rest = Extent::new(rest.start.0 + step, rest.len.0 - step);
            if self.taken == run.len.0 {
                self.extents = others;
                self.taken = 0;
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), FormatError> {
        match self.extents.first() {
            None => Ok(()),
            Some(run) => bad(FormatErrorKind::Impossible, format!("planned {run} are missing")),
        }
    }
}

/// Gathers what blocks hold into few, large operations: one for all data of a block, however scattered it is. Operations of a
/// segment have no sector in common, so their order does not matter.
#[derive(Default)]
struct Ops {
    list: Vec<Op>,
    /// The write that data is added to while it has room.
    open: Option<usize>,
    /// Memory that the operations take.
    bytes: u64,
    /// Bytes of the block that were not brought yet.
    block_left: u64,
}

impl Ops {
    fn begin_block(&mut self, cycle: &Cycle, block: BlockNo) {
        let behind = SectorCount(cycle.stream.0.saturating_sub(block.0.saturating_mul(BLOCK_SECTORS)));
        self.block_left = behind.bytes().0.min(BLOCK_BYTES);
    }

    fn push(&mut self, extent: Extent, data: FrameData<'_>) {
        let left = self.block_left;
        self.block_left = left.saturating_sub(extent.bytes().0);
        let bytes = match (data, self.list.last_mut()) {
            (FrameData::Bytes(bytes), _) => bytes,
            (FrameData::Zeros, Some(Op::Zero(last))) if last.end() == extent.start => {
                last.len.0 += extent.len.0;
                return;
            }
            (FrameData::Zeros, _) => return self.add(Op::Zero(extent)),
        };
        match self.open.and_then(|at| self.list.get_mut(at)) {
            Some(Op::Write(extents, buf)) if buf.spare() >= bytes.len() => {
                match extents.last_mut().filter(|last| last.end() == extent.start) {
                    Some(last) => last.len.0 += extent.len.0,
                    None => extents.push(extent),
                }
                buf.extend_from_slice(bytes);
            }
            _ => {
                let mut buf = buffer(left.min(BUFFER_BYTES).max(bytes.len() as u64));
                buf.extend_from_slice(bytes);
                self.open = Some(self.list.len());
                self.add(Op::Write(vec![extent], buf));
            }
        }
    }

    fn add(&mut self, op: Op) {
        self.bytes += op.memory() as u64;
        self.list.push(op);
    }
}
