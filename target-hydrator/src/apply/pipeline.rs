//! Moving one cycle's segments: fetched, opened, written, read back. Several at a time, each in bounded memory.

use super::ahead::Checked;
use super::budget::Budget;
use super::claim::Claim;
use super::segment::{Cycle, Job, Op, Opened, buffer, open, open_ahead, open_piece};
use super::stop::Stop;
use crate::compute::Compute;
use crate::progress::Progress;
use crate::spool::Spool;
use crate::target::Target;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use sluice_platform::AlignedBuf;
use sluice_proto::cycle::FailReason;
use sluice_proto::manifest::cycle_folder;
use sluice_proto::stream::{BlockCv, BlockHasher, Blocks, StreamDigest};
use sluice_proto::wire::StoredSegment;
use sluice_proto::{BLOCK_BYTES, BlockNo, ByteCount, Digest, Extent, FormatError, GRAIN_SECTORS, Sector, SectorBitmap};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Segments of one disk in flight.
pub(crate) const LANES: usize = 3;
/// Requests to the target that are in flight for one segment.
const DEPTH: usize = 16;
/// Blocks of a segment that are read back at once.
const BLOCKS_AHEAD: usize = 2;
/// The plaintext of one segment that is held at most.
const KEEP_BYTES: u64 = 16 << 20;

/// What all segments of a cycle are moved by.
pub(crate) struct Pipeline {
    pub cycle: Arc<Cycle>,
    pub spool: Spool,
    pub target: Arc<dyn Target>,
    pub compute: Compute,
    pub progress: Progress,
    pub budget: Budget,
    pub zeros: Zeros,
    /// Under which the target is written; none for what only checks or reads.
    pub claim: Option<Claim>,
    /// A first copy, which gives way to other cycles.
    pub initial: bool,
}

/// The chaining values of blocks that were checked and hold nothing but zeros: where such a block turns out to be a hole when
/// it is read back, they need not be computed again. On a sparse disk that is a third of all the work.
#[derive(Debug, Default)]
pub(crate) struct Zeros(Mutex<BTreeMap<BlockNo, BlockCv>>);

impl Zeros {
    fn note(&self, first: BlockNo, opened: &Opened) {
        let value = |block: &BlockNo| Some((*block, *opened.cvs.get((block.0 - first.0) as usize)?));
        self.0.lock().extend(opened.zeros.iter().filter_map(value));
    }

    /// Each is asked for once.
    fn take(&self, block: BlockNo) -> Option<BlockCv> {
        self.0.lock().remove(&block)
    }
}

/// Runs futures, [`LANES`] at a time, and gives their results in the futures' order.
pub(crate) async fn in_lanes<T, F>(work: impl IntoIterator<Item = F>) -> Result<Vec<T>, Stop>
where
    F: Future<Output = Result<T, Stop>> + Send,
{
    stream::iter(work).buffered(LANES).try_collect().await
}

impl Pipeline {
    /// Fetches a segment and checks it in full; keeps a local copy where the store is far away. What it does to the target
    /// is held where there is room, with the room.
    pub async fn check(self: Arc<Self>, job: Arc<Job>) -> Result<(Opened, Option<OwnedSemaphorePermit>), Stop> {
        let _room = self.budget.segment().await;
        let bytes = self.fetch(&job).await?;
        let room = self.budget.hold(job.bytes().0);
        let opened = self.open(&job, &bytes, keep_max(room.as_ref())).await?;
        self.spool.keep(&self.key(&job), bytes).await?;
        self.progress.add(self.cycle.disk, job.bytes());
        Ok((opened, room))
    }

    /// The same before the commit, as far as that can be.
    pub async fn check_ahead(self: Arc<Self>, stored: StoredSegment) -> Result<Checked, Stop> {
        let _room = self.budget.segment().await;
        let StoredSegment { name, first, blocks, len, hash } = stored;
        let job = Arc::new(Job { name, first, len, hash, salt: None, blocks: Vec::new() });
        let bytes = self.fetch(&job).await?;
        let room = self.budget.hold(blocks.saturating_mul(BLOCK_BYTES));
        let (cycle, at, object, most) = (self.cycle.clone(), job.clone(), bytes.clone(), keep_max(room.as_ref()));
        let opened = self.compute.run(move || open_ahead(&cycle, &at, blocks, &object, most)).await?;
        let (opened, salt, plan) = opened.map_err(|e| corrupt(&job, &e))?;
        self.spool.keep(&self.key(&job), bytes).await?;
        let room = room.filter(|_| opened.ops.is_some());
        Ok(Checked { hash, salt, plan, opened, room })
    }

    /// Writes a segment that was checked already. Gives the chaining values of its blocks at the source.
    pub async fn write(
        self: Arc<Self>,
        job: Arc<Job>,
        held: Option<(Opened, Option<OwnedSemaphorePermit>)>,
    ) -> Result<Vec<BlockCv>, Stop> {
        let _room = self.budget.segment().await;
        if let Some((Opened { cvs, ops: Some(ops), .. }, _held_room)) = held {
            self.carry_out(ops).await?;
            return Ok(cvs);
        }
        let bytes = self.fetch(&job).await?;
        self.write_in_pieces(&job, bytes).await
    }

    /// Checks a segment in full and then writes it. For initial cycles.
    pub async fn check_and_write(self: Arc<Self>, job: Arc<Job>) -> Result<Vec<BlockCv>, Stop> {
        let _room = self.budget.initial_segment().await;
        let bytes = self.fetch(&job).await?;
        self.write_checked(job, bytes).await
    }

    /// The same for a segment in whose place one was applied before: this one, or that of another attempt. `None` where the
    /// store no longer has it, as it lets go of what was applied.
    pub async fn check_and_write_again(self: Arc<Self>, job: Arc<Job>) -> Result<Option<Vec<BlockCv>>, Stop> {
        let _room = self.budget.initial_segment().await;
        match self.spool.find(&self.key(&job), job.len.0, job.hash, FailReason::SegmentCorrupt).await? {
            Some(bytes) => self.write_checked(job, bytes).await.map(Some),
            None => Ok(None),
        }
    }

    async fn write_checked(&self, job: Arc<Job>, bytes: Bytes) -> Result<Vec<BlockCv>, Stop> {
        let opened = self.open(&job, &bytes, KEEP_BYTES).await?;
        match opened.ops {
            Some(ops) => {
                drop(bytes);
                self.carry_out(ops).await?;
                Ok(opened.cvs)
            }
            None => self.write_in_pieces(&job, bytes).await,
        }
    }

    /// Reads a segment's sectors back from the medium; gives the chaining values of what is there.
    pub async fn read_back(self: Arc<Self>, job: Arc<Job>) -> Result<Vec<BlockCv>, Stop> {
        if self.initial {
            self.budget.give_way().await;
        }
        let (this, planned) = (self.clone(), job.clone());
        let blocks = stream::unfold((Holes::default(), 0), move |(mut holes, position)| {
            let (this, job) = (this.clone(), planned.clone());
            async move {
                let pieces = this.pieces(job.blocks.get(position)?, &mut holes).await;
                Some((pieces.map(|pieces| (position, pieces)), (holes, position + 1)))
            }
        });
        let read = |block: Result<(usize, Vec<Piece>), Stop>| {
            let (this, first) = (self.clone(), job.first);
            async move {
                let (position, pieces) = block?;
                this.read_block(BlockNo(first.0 + position as u64), pieces).await
            }
        };
        let cvs = blocks.map(read).buffered(BLOCKS_AHEAD).try_collect().await?;
        self.progress.add(self.cycle.disk, job.bytes());
        Ok(cvs)
    }

    /// What is to be read of a block, and what of it the target says is a hole.
    async fn pieces(&self, extents: &[Extent], holes: &mut Holes) -> Result<Vec<Piece>, Stop> {
        let mut pieces = Vec::with_capacity(extents.len());
        for extent in extents {
            let is_hole = holes.covers(&*self.target, *extent).await?;
            pieces.push(Piece { extent: *extent, is_hole });
        }
        Ok(pieces)
    }

    async fn read_block(self: Arc<Self>, block: BlockNo, pieces: Vec<Piece>) -> Result<BlockCv, Stop> {
        let known = self.zeros.take(block);
        if let Some(value) = known.filter(|_| pieces.iter().all(|piece| piece.is_hole)) {
            return Ok(value);
        }
        let wanted: Vec<Extent> = pieces.iter().filter(|piece| !piece.is_hole).map(|piece| piece.extent).collect();
        let bytes = match wanted.is_empty() {
            true => AlignedBuf::new(0),
            false => {
                let buf = buffer(wanted.iter().map(|extent| extent.bytes().0).sum());
                self.target.read_parts(&wanted, buf).await?
            }
        };
        let stream = self.cycle.stream;
        self.compute.run(move || hash_block(BlockHasher::new(block, stream), &pieces, &bytes)).await
    }

    /// BLAKE3 of the whole target, as far as the source reaches.
    pub async fn whole_digest(self: &Arc<Self>) -> Result<Digest, Stop> {
        let cycle = Cycle { key: self.cycle.key.clone(), stream: self.cycle.sectors, ..*self.cycle };
        let whole = Arc::new(Self {
            cycle: Arc::new(cycle),
            spool: self.spool.clone(),
            target: self.target.clone(),
            compute: self.compute,
            progress: self.progress.clone(),
            budget: self.budget.clone(),
            zeros: Zeros::default(),
            claim: None,
            initial: self.initial,
        });
        let plan = SectorBitmap::full(self.cycle.sectors);
        let read = |(block, extents)| {
            let job = Job {
                name: String::new(),
                first: block,
                len: ByteCount(0),
                hash: Digest([0; 32]),
                salt: None,
                blocks: vec![extents],
            };
            whole.clone().read_back(Arc::new(job))
        };
        let mut blocks = stream::iter(Blocks::of(&plan).map(read)).buffered(LANES);
        let mut digest = StreamDigest::default();
        while let Some(cvs) = blocks.try_next().await? {
            cvs.into_iter().for_each(|cv| digest.push(cv));
        }
        Ok(digest.finish())
    }

    async fn fetch(&self, job: &Job) -> Result<Bytes, Stop> {
        self.spool.get(&self.key(job), job.len.0, job.hash, FailReason::SegmentCorrupt).await
    }

    fn key(&self, job: &Job) -> String {
        format!("{}/{}", cycle_folder(self.cycle.disk, self.cycle.generation, self.cycle.cycle), job.name)
    }

    async fn open(&self, job: &Arc<Job>, bytes: &Bytes, keep_max: u64) -> Result<Opened, Stop> {
        let (cycle, at, bytes) = (self.cycle.clone(), job.clone(), bytes.clone());
        let opened =
            self.compute.run(move || open(&cycle, &at, &bytes, keep_max)).await?.map_err(|e| corrupt(job, &e))?;
        self.zeros.note(job.first, &opened);
        Ok(opened)
    }

    async fn write_in_pieces(&self, job: &Arc<Job>, bytes: Bytes) -> Result<Vec<BlockCv>, Stop> {
        let (mut position, mut cvs) = (0, Vec::new());
        while position < job.blocks.len() {
            let (cycle, at, bytes) = (self.cycle.clone(), job.clone(), bytes.clone());
            let piece = self.compute.run(move || open_piece(&cycle, &at, &bytes, position)).await?;
            let (ops, next, values) = piece.map_err(|e| corrupt(job, &e))?;
            self.carry_out(ops).await?;
            position = next;
            cvs.extend(values);
        }
        Ok(cvs)
    }

    /// Before a batch is written or flushed: the disk must still be ours.
    pub async fn check_claim(&self) -> Result<(), Stop> {
        self.claim()?.check().await
    }

    fn claim(&self) -> Result<&Claim, Stop> {
        self.claim.as_ref().ok_or_else(|| Stop::Later("the disk was not claimed".to_owned()))
    }

    async fn carry_out(&self, ops: Vec<Op>) -> Result<(), Stop> {
        self.claim()?.check_lately().await?;
        let carry_out = |op| async move {
            let target = self.target.clone();
            let bytes = match op {
                Op::Write(extents, buf) => {
                    let len = buf.len() as u64;
                    target.write_parts(&extents, buf).await?;
                    len
                }
                Op::Zero(extent) => {
                    target.zero(extent).await?;
                    extent.bytes().0
                }
            };
            self.progress.add(self.cycle.disk, ByteCount(bytes));
            Ok::<_, Stop>(())
        };
        stream::iter(ops.into_iter().map(carry_out)).buffer_unordered(DEPTH).try_collect().await
    }
}

/// How much of a segment's plaintext is held, given the room that there is for it.
fn keep_max(room: Option<&OwnedSemaphorePermit>) -> u64 {
    if room.is_some() { KEEP_BYTES * 2 } else { 0 }
}

fn corrupt(job: &Job, error: &FormatError) -> Stop {
    Stop::format(FailReason::SegmentCorrupt, &format!("segment {}", job.name), error)
}

struct Piece {
    extent: Extent,
    /// The target says that nothing is there.
    is_hole: bool,
}

/// Hashes a block of which `read` has all that is no hole.
fn hash_block(mut hasher: BlockHasher, pieces: &[Piece], mut read: &[u8]) -> BlockCv {
    for piece in pieces {
        let len = piece.extent.bytes().0;
        if piece.is_hole {
            hasher.update_zeros(len);
        } else {
            let (bytes, rest) = read.split_at(len as usize);
            hasher.update(bytes);
            read = rest;
        }
    }
    hasher.finish()
}

/// Remembers where the target's next data begins, so that a hole is asked about once and never read.
#[derive(Default)]
pub(crate) struct Holes {
    asked: Sector,
    data: Option<Extent>,
    known: bool,
}

impl Holes {
    /// True where the target says that it has nothing in the extent. Short extents are read anyway.
    pub async fn covers(&mut self, target: &dyn Target, extent: Extent) -> Result<bool, Stop> {
        if extent.len.0 < GRAIN_SECTORS {
            return Ok(false);
        }
        let stale =
            !self.known || extent.start < self.asked || self.data.is_some_and(|data| data.end() <= extent.start);
        if stale {
            self.data = target.next_data(extent.start).await?;
            self.asked = extent.start;
            self.known = true;
        }
        Ok(self.data.is_none_or(|data| data.start >= extent.end()))
    }
}
