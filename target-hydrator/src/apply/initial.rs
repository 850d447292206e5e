//! Applying an initial cycle while it still arrives: there is nothing yet on the target that it could spoil.
//!
//! Segments are applied from the disk's start on without a gap, each checked in full before it is written. Whatever goes
//! wrong here fails nothing: the commit tells which segments count, and what was not applied by then is applied then.

use super::claim::Claim;
use super::commit::{BATCH_BYTES, BATCH_SEGMENTS};
use super::pipeline::{LANES, Pipeline, in_lanes};
use super::segment::{Cycle, Job};
use super::session::Session;
use super::stop::Stop;
use crate::ledger::{AppliedGroup, Ledger, State};
use crate::progress::Phase;
use crate::target::Target;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use sluice_proto::manifest::cycle_folder;
use sluice_proto::segment::SEGMENT_BLOCKS_MAX;
use sluice_proto::stream::{BlockCv, StreamDigest, block_count};
use sluice_proto::wire::{StoredSegment, Work};
use sluice_proto::{BLOCK_SECTORS, BlockNo, ByteCount, CycleNo, Extent, Generation, SectorCount};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What of an initial cycle was applied by this process before its commit.
pub(super) struct Streamed {
    pipeline: Arc<Pipeline>,
    /// The digest of what was read back, from block 0 on; none where an earlier process applied the beginning.
    pub digest: Option<StreamDigest>,
    end: BlockNo,
    /// What is on the target behind `end`, not yet flushed and read back.
    behind: Option<Behind>,
    /// Something was wrong with a segment: the rest waits for the commit.
    stopped: bool,
}

/// Segments that were checked and written.
struct Behind {
    batch: Vec<Arc<Job>>,
    /// The chaining values of their blocks at the source.
    source: Vec<Vec<BlockCv>>,
}

impl Streamed {
    /// True where it is of this cycle, sealed in the same way.
    pub fn is_of(&self, cycle: &Cycle) -> bool {
        let own = &self.pipeline.cycle;
        (own.generation, own.cycle, own.suite, own.stream) == (cycle.generation, cycle.cycle, cycle.suite, cycle.stream)
    }

    /// The first block that it hasn't applied.
    pub fn end(&self) -> BlockNo {
        self.end
    }
}

impl Session {
    /// True where segments of this work can be applied ahead of its commit.
    pub fn can_stream(&self, work: &Work) -> bool {
        let whole = work.sectors == work.size.sectors_ceil();
        let stopped = self.streamed.as_ref().is_some_and(|s| s.pipeline.cycle.cycle == work.cycle && s.stopped);
        // A target that has to grow first does so by the manifest.
        let ledger = &self.file.ledger;
        let fits = work.size == ledger.source_size || !ledger.target_is_made();
        let newer = self.file.ledger.verified.is_none_or(|v| v.cycle.cycle < work.cycle);
        let behind = self.streamed.as_ref().is_some_and(|s| s.behind.is_some());
        let more = !work.stored.is_empty() || behind;
        let open = work.kind == CycleKind::Initial && work.manifest.is_none() && more;
        // What somebody else applied in our place is gone from the store: the commit says what becomes of that.
        let ours = self.file.ledger.applied_end(work.cycle, work.generation) >= work.applied;
        open && whole && fits && newer && ours && !stopped && work.generation >= self.file.ledger.generation
    }

    /// Takes one step: writes the next few segments that have arrived, while those of the step before are flushed and read
    /// back. Gives the names of those that are proven and noted by now, so that the store need keep them no longer; `None`
    /// where there was nothing to do.
    ///
    /// # Errors
    /// The segments are left to the commit.
    pub async fn stream(&mut self, work: &Work, claim: &Claim) -> Result<Option<Vec<String>>, Stop> {
        let result = self.stream_step(work, claim).await;
        if let Err(stop) = &result {
            self.settle(stop).await;
        }
        if matches!(result, Err(Stop::Fail(_)))
            && let Some(streamed) = &mut self.streamed
        {
            // What was read back until now stood on tables that may have changed since: all is read once more at the commit.
            (streamed.stopped, streamed.digest) = (true, None);
        }
        result
    }

    async fn stream_step(&mut self, work: &Work, claim: &Claim) -> Result<Option<Vec<String>>, Stop> {
        let pipeline = self.streaming(work, claim).await?;
        if self.streamed.as_ref().is_some_and(|s| s.behind.is_some()) || !work.stored.is_empty() {
            claim.check().await?;
        }
        let behind = self.streamed.as_mut().and_then(|streamed| streamed.behind.take());
        let applied = self.file.ledger.applied_end(work.cycle, work.generation);
        let from = behind.as_ref().and_then(|b| b.batch.last()).map_or(applied, |job| job.end());
        let batch = next_jobs(work, from, pipeline.cycle.stream);
        if batch.is_empty() && behind.is_none() {
            return Ok(None);
        }
        let writes: Vec<_> = batch.iter().map(|job| pipeline.clone().check_and_write(job.clone())).collect();
        // Both come to their end, whatever the other does: what is noted as applied and the digest of it go together.
        let (source, names) = tokio::join!(in_lanes(writes), self.prove_behind(&pipeline, behind));
        let (source, names) = (source?, names?);
        if let Some(streamed) = self.streamed.as_mut().filter(|_| !batch.is_empty()) {
            streamed.behind = Some(Behind { batch, source });
        }
        Ok(Some(names))
    }

    /// What was read back ahead of the commit counts no longer: the disk may have been another's since.
    pub fn doubt_streamed(&mut self) {
        self.streamed.iter_mut().for_each(|streamed| streamed.digest = None);
    }

    /// Brings what was written ahead of the commit to its end. What can't be proven is left to the commit.
    pub(super) async fn end_streaming(&mut self) -> Result<(), Stop> {
        let Some(streamed) = &mut self.streamed else { return Ok(()) };
        let (pipeline, behind) = (streamed.pipeline.clone(), streamed.behind.take());
        match self.prove_behind(&pipeline, behind).await {
            Err(Stop::Fail(failure)) => {
                tracing::warn!(disk = %pipeline.cycle.disk, "to be written again: {}", failure.detail);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Flushes what was written, reads it back and notes it. Gives the segments' names.
    async fn prove_behind(&mut self, pipeline: &Arc<Pipeline>, behind: Option<Behind>) -> Result<Vec<String>, Stop> {
        let Some(Behind { batch, source }) = behind else { return Ok(Vec::new()) };
        pipeline.target.sync().await?;
        let target = Self::read_batch(pipeline, &batch).await?;
        if source != target {
            return Err(Stop::fail(FailReason::DigestMismatch, "the target does not hold what was written to it"));
        }
        let State::Initial { applied, .. } = &self.file.ledger.state else { return Ok(Vec::new()) };
        let mut groups = applied.clone();
        batch.iter().for_each(|j| AppliedGroup::push(&mut groups, j.first, j.blocks.len() as u64, j.hash));
        let end = AppliedGroup::end(&groups);
        self.note_applied(groups).await?;
        if let Some(streamed) = &mut self.streamed {
            streamed.end = end;
            if let Some(digest) = &mut streamed.digest {
                target.iter().flatten().for_each(|cv| digest.push(*cv));
            }
        }
        Ok(batch.iter().map(|job| job.name.clone()).collect())
    }

    /// What the cycle's segments are moved by; begins the cycle where it is new.
    async fn streaming(&mut self, work: &Work, claim: &Claim) -> Result<Arc<Pipeline>, Stop> {
        let end = self.file.ledger.applied_end(work.cycle, work.generation);
        if let Some(streamed) = &mut self.streamed
            && (streamed.pipeline.cycle.cycle, streamed.pipeline.cycle.generation) == (work.cycle, work.generation)
            // Under another claim nothing counts as proven: somebody may have had the disk in between.
            && streamed.pipeline.claim.as_ref().is_some_and(|before| before.lease == claim.lease)
        {
            if streamed.end != end {
                // Noted, but not counted: the commit reads it back.
                (streamed.digest, streamed.end) = (None, end);
            }
            return Ok(streamed.pipeline.clone());
        }
        let key = self.unlock(work).await?;
        let target = self.target(work, claim).await?;
        let suite = self.suite(work).await?;
        let pipeline = self.pipeline(work, Some(claim), key, suite, work.sectors, target.clone());
        self.begin_initial(work.cycle, work.generation, &*target).await?;
        let end = self.file.ledger.applied_end(work.cycle, work.generation);
        self.env.progress.begin(work.disk, work.cycle, Phase::Writing, ByteCount(work.sectors.bytes().0 * 2));
        let digest = (end == BlockNo(0)).then(StreamDigest::default);
        self.streamed = Some(Streamed { pipeline: pipeline.clone(), digest, end, behind: None, stopped: false });
        Ok(pipeline)
    }

    /// How the cycle is sealed, by the header of a stored segment; every other one must be sealed alike.
    pub(super) async fn suite(&self, work: &Work) -> Result<Suite, Stop> {
        let Some(segment) = work.stored.first() else { return Err(Stop::Later("no segment is stored yet".into())) };
        let folder = cycle_folder(work.disk, work.generation, work.cycle);
        let key = format!("{folder}/{}", segment.name);
        let head = self.env.store.get_range(&key, 0..HEADER_BYTES as u64).await;
        let head = head.map_err(|e| Stop::store(&e, FailReason::SegmentCorrupt))?;
        let header = Header::decode(ObjectKind::Segment, &head);
        match header.map_err(|e| Stop::format(FailReason::SegmentCorrupt, &key, &e))?.suite {
            Suite::Plain if !self.env.allow_plain => {
                Err(Stop::fail(FailReason::SegmentCorrupt, "segments are not sealed"))
            }
            suite => Ok(suite),
        }
    }

    /// From here on the target is on its way to an initial cycle: only this one, or a comparison, makes it whole.
    pub(super) async fn begin_initial(
        &mut self,
        cycle: CycleNo,
        generation: Generation,
        target: &dyn Target,
    ) -> Result<(), Stop> {
        let ledger = &self.file.ledger;
        let noted = ledger.compared.is_some() || ledger.fingerprint.is_some();
        if matches!(ledger.state, State::Initial { cycle: c, generation: g, .. } if (c, g) == (cycle, generation))
            && !noted
        {
            // All of it is read back and proven, whoever has written meanwhile; but that one is to know.
            return self.bear_mark(target).await;
        }
        let writing = self.new_mark(target).await?;
        let begin = |ledger: &mut Ledger| {
            (ledger.state, ledger.writing) = (State::Initial { cycle, generation, applied: Vec::new() }, writing);
            ledger.doubt = Some("an initial cycle was begun and not finished".to_owned());
            (ledger.fingerprint, ledger.compared) = (None, None);
        };
        self.file.change(begin).await?;
        self.bear_mark(target).await
    }

    /// Notes what of an initial cycle is durably on the target. What could not be noted does not count: the cache store lets go
    /// of what the appliance is told.
    pub(super) async fn note_applied(&mut self, groups: Vec<AppliedGroup>) -> Result<(), Stop> {
        let note = |ledger: &mut Ledger| {
            if let State::Initial { applied, .. } = &mut ledger.state {
                *applied = groups;
            }
        };
        Ok(self.file.change(note).await?)
    }
}

/// The segments that follow block `next` without a gap, for one batch. Several attempts at one segment may be stored: any
/// will do, as the commit tells which one counts.
fn next_jobs(work: &Work, mut next: BlockNo, stream: SectorCount) -> Vec<Arc<Job>> {
    let stored: BTreeMap<BlockNo, &StoredSegment> = work.stored.iter().map(|s| (s.first, s)).collect();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while (bytes < BATCH_BYTES || batch.len() < LANES)
        && batch.len() < BATCH_SEGMENTS
        && let Some(segment) = stored.get(&next)
    {
        let end = next.0.saturating_add(segment.blocks);
        if segment.blocks == 0 || segment.blocks > SEGMENT_BLOCKS_MAX || end > block_count(stream) {
            break;
        }
        let block = |number: u64| {
            let start = number * BLOCK_SECTORS;
            vec![Extent::new(start, (stream.0 - start).min(BLOCK_SECTORS))]
        };
        let job = Job {
            name: segment.name.clone(),
            first: next,
            len: segment.len,
            hash: segment.hash,
            salt: None,
            blocks: (next.0..end).map(block).collect(),
        };
        bytes += job.bytes().0;
        batch.push(Arc::new(job));
        next = BlockNo(end);
    }
    batch
}
