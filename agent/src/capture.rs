//! Capturing a cycle: the planned sectors are read, sealed and shipped, block by block.
//!
//! Reading, encoding and uploading overlap: one loop polls what is read and what is under way. What lies between the
//! stages is bounded by the pool of block buffers and by the number of segments under way. Blocks leave the encoders in
//! order, so segments are cut in order; they may be stored in any order.
//!
//! Memory of one disk at full speed, as counted from the defaults: 6 block buffers of 1 MiB; 7 encoded blocks of 1.04 MiB
//! at most (2048 single sectors, each with its entry in the table of runs); 5 segments of 4 to 5.1 MiB (four under way and
//! one that waits); 6 contexts of zstd below 0.5 MiB: some 40 MiB.

mod cut;
mod encoders;
mod upload;

pub use encoders::{Encoded, Encoders};

use crate::journal::{Journal, JournalError, Plan, StoredSegments};
use crate::source::{Source, SourceError};
use crate::tracker::TrackerError;
use crate::workers::{Place, Workers};
use cut::Cutter;
use futures_util::stream::{self, StreamExt};
use sluice_client::{AgentApi, ApiError};
use sluice_platform::BufPool;
use sluice_proto::cycle::CycleKind;
use sluice_proto::env::Entropy;
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::segment::SEGMENT_BYTES_TARGET;
use sluice_proto::stream::Blocks;
use sluice_proto::{BLOCK_BYTES, BlockNo, Digest, FormatError, SectorBitmap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use upload::Uploads;

/// What a cycle's capture has done so far; read while it runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes read from the source, those of comparisons included.
    pub bytes_read: AtomicU64,
    /// Bytes of segments sent.
    pub bytes_sent: AtomicU64,
    /// Bytes of the plan that are stored.
    pub bytes_stored: AtomicU64,
    /// Bytes of the plan.
    pub bytes_planned: AtomicU64,
    /// Bytes compared, and to be compared.
    pub bytes_compared: AtomicU64,
}

/// How capturing is done.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// How payloads are sealed.
    pub suite: Suite,
    /// zstd's level.
    pub level: i32,
    /// Segments that may be under way to the appliance at once.
    pub uploads: usize,
    /// Block buffers: what is read ahead, 1 MiB each.
    pub buffers: usize,
    /// What a segment holds before the next is begun, in bytes.
    pub segment_bytes: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { suite: Suite::Aes256Gcm, level: 1, uploads: 4, buffers: 6, segment_bytes: SEGMENT_BYTES_TARGET }
    }
}

/// Capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source can't be read: the cycle fails.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source is not there any more: the cycle fails, and so does every other until the source is opened anew.
    #[error(transparent)]
    Vanished(SourceError),
    /// The source has grown: the cycle fails, and the disk is opened and tracked anew in its new size.
    #[error(transparent)]
    Grown(SourceError),
    /// The appliance refuses or is away: the cycle may go on later.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The agent's own state can't be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The digests of the target can't be read.
    #[error("the target's digests: {0}")]
    Format(#[from] FormatError),
    /// The tracker can't go on.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
}

/// What capturing needs beside the journal.
pub struct Capture {
    /// The disk.
    pub source: Arc<dyn Source>,
    /// Where segments go.
    pub api: Arc<dyn AgentApi>,
    /// Where encoding runs.
    pub workers: Workers,
    /// Salts.
    pub entropy: Arc<dyn Entropy>,
    /// How.
    pub options: CaptureOptions,
    /// What is told of it while it runs.
    pub counts: Arc<Counts>,
    /// The block buffers.
    pub pool: BufPool,
}

impl Capture {
    /// Capture with buffers as `options` say.
    pub fn new(
        source: Arc<dyn Source>,
        api: Arc<dyn AgentApi>,
        workers: Workers,
        entropy: Arc<dyn Entropy>,
        options: CaptureOptions,
    ) -> Self {
        let pool = workers.buffers().for_blocks(options.buffers);
        Self { source, api, workers, entropy, options, counts: Arc::default(), pool }
    }

    /// Ships every block of the journal's plan that is not stored yet. `each` sees what was read, block by block, with the
    /// digests of its grains where `grains` asks for them.
    ///
    /// # Errors
    /// [`CaptureError`]; what was stored until then is in the journal.
    pub async fn ship(
        &self,
        journal: &mut Journal,
        grains: bool,
        mut each: impl FnMut(&Encoded) + Send,
    ) -> Result<(), CaptureError> {
        let Some((plan, bitmap)) = journal.plan().map(|(plan, bitmap)| (plan.clone(), bitmap.clone())) else {
            return Ok(());
        };
        let have = journal.stored().stretches();
        self.counts.bytes_planned.store(bitmap.count().bytes().0, Ordering::Relaxed);
        let missing = Blocks::of(&bitmap).filter(move |(block, _)| !is_stored(&have, block.0));
        let (key, header) = (journal.identity().data_key.key(), self.attempt(journal, &plan));
        let encoders =
            Encoders::new(&key, &header, bitmap.count(), self.options.level, self.workers.buffers().for_sealed());
        let encoders = Arc::new(encoders.with_grains(grains));
        // A first copy and a comparison are long.
        let place = match plan.kind {
            CycleKind::Initial | CycleKind::Resync => self.workers.place(bitmap.count().bytes().0),
            CycleKind::Delta | CycleKind::Final => Place::FIRST,
        };
        let mut uploads = Uploads::new(self, &plan, &header, &encoders, place);
        let blocks = stream::iter(missing)
            .map(|(block, extents)| self.encode(&encoders, plan.kind, place, block, extents))
            .buffered(self.options.buffers.max(1));
        let blocks = std::pin::pin!(blocks);
        let cutter = Cutter::new(&key, &header, &encoders, self.options.segment_bytes);
        let result = run(blocks, cutter, &mut uploads, journal, &mut each).await;
        if let Err(CaptureError::Api(_)) = &result {
            // What is on its way may well arrive: then it need not be sent again.
            uploads.settle_rest(journal).await?;
        }
        result
    }

    /// Reads and encodes one block; that of a first copy gives way to other disks' deltas.
    async fn encode(
        &self,
        encoders: &Arc<Encoders>,
        kind: CycleKind,
        place: Place,
        block: BlockNo,
        extents: Vec<sluice_proto::Extent>,
    ) -> Result<Encoded, CaptureError> {
        if kind == CycleKind::Initial {
            self.workers.precedence().give_way().await;
        }
        let buf = self.pool.take().await;
        let (buf, read) = self.source.read(&extents, buf).await;
        read?;
        self.counts.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let encoders = Arc::clone(encoders);
        Ok(self.workers.run(place, move || encoders.encode(block, &extents, &buf)).await)
    }

    /// The header of a new attempt: its salt was never used before.
    fn attempt(&self, journal: &Journal, plan: &Plan) -> Header {
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt);
        let identity = journal.identity();
        Header {
            kind: ObjectKind::Segment,
            suite: self.options.suite,
            disk: identity.disk,
            generation: identity.generation,
            cycle: plan.cycle,
            salt,
            fields: [0; 3],
        }
    }
}

/// True where one of the ranges of blocks holds `block`.
fn is_stored(have: &[(u64, u64)], block: u64) -> bool {
    let behind = have.partition_point(|(first, _)| *first <= block);
    behind > 0 && block < have[behind - 1].1
}

/// Reads, cuts and sends until all is stored. Neither side waits for the other but for room.
async fn run(
    mut blocks: impl stream::Stream<Item = Result<Encoded, CaptureError>> + Unpin + Send,
    mut cutter: Cutter<'_>,
    uploads: &mut Uploads<'_>,
    journal: &mut Journal,
    each: &mut (impl FnMut(&Encoded) + Send),
) -> Result<(), CaptureError> {
    loop {
        while uploads.has_room()
            && let Some(segment) = cutter.next_segment()
        {
            uploads.start(segment);
        }
        if cutter.is_done() && uploads.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(stored) = uploads.next(), if !uploads.is_empty() => uploads.note(stored?, journal)?,
            block = blocks.next(), if cutter.wants_block() => match block {
                Some(block) => {
                    let block = block?;
                    each(&block);
                    cutter.push(block);
                }
                None => cutter.end(),
            },
        }
    }
}

/// The planned sectors that `stored` holds already, in bytes.
pub fn stored_bytes(bitmap: &SectorBitmap, stored: &StoredSegments) -> u64 {
    let stream = bitmap.count().bytes().0;
    stored
        .iter()
        .map(|s| {
            let from = s.first * BLOCK_BYTES;
            (from + s.blocks * BLOCK_BYTES).min(stream).saturating_sub(from)
        })
        .sum()
}

/// The salt of an attempt as the journal keeps it.
fn salt_of(header: &Header) -> Digest {
    Digest(header.salt)
}

#[cfg(test)]
mod tests;
