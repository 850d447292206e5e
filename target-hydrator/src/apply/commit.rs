//! A committed cycle on its way to the target: checked, written, read back, compared, noted.

use super::accept;
use super::pipeline::{LANES, Pipeline, in_lanes};
use super::segment::{Job, Opened};
use super::session::Session;
use super::stop::{Failure, Stop};
use crate::ledger::{AppliedGroup, Ledger, State, VerifiedCycle};
use crate::progress::Phase;
use crate::target::{Fingerprint, Target};
use futures_util::{StreamExt, TryStreamExt, stream};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::manifest::Manifest;
use sluice_proto::stream::{BlockCv, Blocks, StreamDigest};
use sluice_proto::wire::CycleRef;
use sluice_proto::{ByteCount, Digest, SectorBitmap};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of the disk that are written before they are flushed and read back.
pub(super) const BATCH_BYTES: u64 = 64 << 20;
/// Segments in such a batch at most.
pub(super) const BATCH_SEGMENTS: usize = 32;
/// The same for cycles whose changes are scattered: small, so that of one batch after the other each is written, flushed and read
/// back at a time.
const SCATTERED_BYTES: u64 = 16 << 20;
/// Runs of sectors that an error names.
const SHOWN_RUNS: usize = 8;

/// A cycle that was accepted.
pub(super) struct Committed {
    pub manifest: Arc<Manifest>,
    /// BLAKE3 of the manifest.
    pub hash: Digest,
    pub pipeline: Arc<Pipeline>,
}

/// Segments that were checked and are held until they are written, with the room that they take.
#[derive(Default)]
struct Held {
    opened: VecDeque<(Opened, Option<OwnedSemaphorePermit>)>,
}

/// A batch that is on the target, not yet read back.
struct Written {
    batch: Vec<Arc<Job>>,
    /// The chaining values of each job's blocks at the source; none where it was applied by an earlier run.
    source: Vec<Option<Vec<BlockCv>>>,
}

/// What was read back so far.
#[derive(Default)]
struct Tally {
    digest: StreamDigest,
    /// The sectors that were read back and found to be what the source sent.
    matched: SectorBitmap,
    /// The sectors that were read back and have nothing to be compared with but the digest of the whole stream.
    by_digest: SectorBitmap,
}

impl Tally {
    fn add(&mut self, job: &Job, source: Option<&[BlockCv]>, target: &[BlockCv]) {
        for (position, (extents, target)) in job.blocks.iter().zip(target).enumerate() {
            match source.map(|source| source.get(position) == Some(target)) {
                Some(true) => self.matched.extend(extents.iter().copied()),
                Some(false) => {}
                None => self.by_digest.extend(extents.iter().copied()),
            }
            self.digest.push(*target);
        }
    }
}

/// The segments of a manifest in order, each with the extents of its blocks.
fn jobs(manifest: &Manifest) -> impl Iterator<Item = Arc<Job>> + Send + '_ {
    let mut blocks = Blocks::of(&manifest.plan);
    manifest.segments.iter().map(move |entry| {
        let extents = blocks.by_ref().take(entry.blocks as usize).map(|(_, extents)| extents).collect();
        Arc::new(Job::of(entry, extents))
    })
}

impl Session {
    pub(super) async fn commit(&mut self, cycle: Committed) -> Result<VerifiedCycle, Stop> {
        let manifest = &cycle.manifest;
        let held = match manifest.kind {
            CycleKind::Initial => {
                cycle.pipeline.check_claim().await?;
                self.end_streaming().await?;
                self.begin_initial(manifest.cycle, manifest.generation, &*cycle.pipeline.target).await?;
                Held::default()
            }
            _ => {
                let held = self.check_all(&cycle).await?;
                self.begin_applying(&cycle).await?;
                held
            }
        };
        let total = ByteCount(manifest.plan.count().bytes().0 * 2);
        self.env.progress.begin(manifest.disk, manifest.cycle, Phase::Writing, total);
        let tally = match manifest.kind {
            CycleKind::Initial => self.write_initial(&cycle).await?,
            _ => self.write_all(&cycle, held).await?,
        };
        let digest = compare(manifest, tally)?;
        let whole_disk = match manifest.whole_disk {
            Some(expected) => Some(self.compare_whole(&cycle, expected, digest).await?),
            None => None,
        };
        let reference = CycleRef { cycle: manifest.cycle, manifest: cycle.hash };
        let done = VerifiedCycle { cycle: reference, generation: manifest.generation, digest, whole_disk };
        self.note_verified(done, &cycle.pipeline).await?;
        Ok(done)
    }

    /// Checks every segment that was not checked while it arrived, before the first byte is written. Plaintext is held as far
    /// as there is room.
    async fn check_all(&mut self, cycle: &Committed) -> Result<Held, Stop> {
        let manifest = &cycle.manifest;
        let total = manifest.plan.count().bytes();
        self.env.progress.begin(manifest.disk, manifest.cycle, Phase::Checking, total);
        let mut ahead = self.ahead.take();
        let check = |job: Arc<Job>| {
            let known = ahead.as_mut().and_then(|ahead| ahead.take(cycle, &job));
            let pipeline = cycle.pipeline.clone();
            async move {
                match known {
                    Some(known) => {
                        pipeline.progress.add(pipeline.cycle.disk, job.bytes());
                        Ok((known.opened, known.room))
                    }
                    None => pipeline.check(job).await,
                }
            }
        };
        let mut checked = stream::iter(jobs(manifest).map(check)).buffered(LANES);
        let (mut held, mut digest) = (Held::default(), StreamDigest::default());
        while let Some(opened) = checked.try_next().await? {
            opened.0.cvs.iter().for_each(|cv| digest.push(*cv));
            held.opened.push_back(opened);
        }
        match digest.finish() == manifest.digest {
            true => Ok(held),
            false => Err(Stop::fail(FailReason::ManifestCorrupt, "its segments don't add up to its digest")),
        }
    }

    /// From here on the target is no longer the last verified cycle; the ledger knows it before the target does.
    async fn begin_applying(&mut self, cycle: &Committed) -> Result<(), Stop> {
        let reference = CycleRef { cycle: cycle.manifest.cycle, manifest: cycle.hash };
        let target = &cycle.pipeline.target;
        if self.file.ledger.was_cut_short(reference) {
            // The target has changed since, and the fingerprint is gone.
            return self.put_mark(&**target).await;
        }
        let noted = self.file.ledger.fingerprint;
        // Once before the ledger allows it to be begun, so that a crash in between does not begin it unseen, and once
        // after: the ledger's two records take some flushes, and segments may have been checked for hours.
        check_untouched(&**target, noted.as_ref()).await?;
        let writing = self.new_mark(&**target).await?;
        let begin = |ledger: &mut Ledger| {
            (ledger.state, ledger.writing) = (State::Applying { cycle: reference }, writing);
            (ledger.fingerprint, ledger.compared) = (None, None);
        };
        self.file.mark_torn(&cycle.manifest.plan, begin).await?;
        check_untouched(&**target, noted.as_ref()).await?;
        self.put_mark(&**target).await
    }

    /// Writes batch after batch. While one is written, the one before it is flushed, and that before it read back.
    async fn write_all(&self, cycle: &Committed, mut held: Held) -> Result<Tally, Stop> {
        let (mut tally, mut jobs) = (Tally::default(), jobs(&cycle.manifest));
        let (mut written, mut flushed): (Option<Written>, Option<Written>) = (None, None);
        loop {
            let batch = next_batch(&mut jobs, SCATTERED_BYTES, 1);
            if batch.is_empty() && written.is_none() && flushed.is_none() {
                return Ok(tally);
            }
            if !batch.is_empty() || written.is_some() {
                cycle.pipeline.check_claim().await?;
            }
            let write = |job: &Arc<Job>| cycle.pipeline.clone().write(job.clone(), held.opened.pop_front());
            let writes: Vec<_> = batch.iter().map(write).collect();
            let flush = async {
                match &written {
                    Some(_) => Ok(cycle.pipeline.target.sync().await?),
                    None => Ok(()),
                }
            };
            let proof = Self::prove(cycle, flushed.take(), &mut tally);
            // The flush is asked for first, so that it need not wait for the writes that begin with it.
            let ((), source, ()) = tokio::try_join!(biased; flush, in_lanes(writes), proof)?;
            flushed = written.take();
            if !batch.is_empty() {
                written = Some(Written { batch, source: source.into_iter().map(Some).collect() });
            }
        }
    }

    /// As `write_all`, but what was applied while it arrived is only read back, or not even that where it was already.
    async fn write_initial(&mut self, cycle: &Committed) -> Result<Tally, Stop> {
        let State::Initial { applied: groups, .. } = self.file.ledger.state.clone() else {
            return Err(Stop::Later("the ledger lost the initial cycle".to_owned()));
        };
        let segments: Vec<_> = cycle.manifest.segments.iter().map(|s| (s.first, s.blocks, s.hash)).collect();
        let mut present = AppliedGroup::present(&groups, &segments).into_iter();
        let mut jobs = jobs(&cycle.manifest);
        let (mut tally, mut done) = (Tally::default(), Vec::new());
        let proven = self.proven_ahead(cycle, &groups);
        if let Some(digest) = proven {
            let end = AppliedGroup::end(&groups);
            tally.digest = digest;
            while AppliedGroup::end(&done) < end
                && let (Some(job), Some(_)) = (jobs.next(), present.next())
            {
                tally.matched.extend(job.blocks.iter().flatten().copied());
                AppliedGroup::push(&mut done, job.first, job.blocks.len() as u64, job.hash);
                self.env.progress.add(cycle.manifest.disk, ByteCount(job.bytes().0 * 2));
            }
        }
        let mut behind: Option<Written> = None;
        let applied_end = AppliedGroup::end(&groups);
        loop {
            let batch = next_batch(&mut jobs, BATCH_BYTES, LANES);
            let last = batch.is_empty();
            if !last || behind.is_some() {
                cycle.pipeline.check_claim().await?;
            }
            let bring = |job: &Arc<Job>| {
                let (pipeline, job, here) = (cycle.pipeline.clone(), job.clone(), present.next().unwrap_or(false));
                // What is here already may be gone from the store: the digest of the whole stream proves it. So it does for a
                // segment whose neighbour was sent again after a power cut, so that their group is not that of the manifest.
                async move {
                    match job.end() <= applied_end {
                        _ if here => Ok(None),
                        true => pipeline.check_and_write_again(job).await,
                        false => pipeline.check_and_write(job).await.map(Some),
                    }
                }
            };
            let brings: Vec<_> = batch.iter().map(bring).collect();
            let proven: Vec<_> = behind.iter().flat_map(|written| written.batch.clone()).collect();
            let fresh = behind.as_ref().is_some_and(|written| written.source.iter().any(Option::is_some));
            let proof = Self::flush_and_prove(cycle, behind.take(), &mut tally);
            let (source, ()) = tokio::try_join!(in_lanes(brings), proof)?;
            proven.iter().for_each(|j| AppliedGroup::push(&mut done, j.first, j.blocks.len() as u64, j.hash));
            // Never less than was told to the appliance, and is gone from the store: a group that reaches beyond this batch would
            // be lost. Cut short before that, what was written again here is proven once more.
            if fresh && AppliedGroup::end(&done) >= applied_end {
                self.note_applied(done.clone()).await?;
            }
            if last {
                return Ok(tally);
            }
            behind = Some(Written { batch, source });
        }
    }

    /// The digest of what was read back while the cycle was still arriving, if all of that belongs to the cycle.
    fn proven_ahead(&mut self, cycle: &Committed, groups: &[AppliedGroup]) -> Option<StreamDigest> {
        let streamed = self.streamed.take()?;
        let segments: Vec<_> = cycle.manifest.segments.iter().map(|s| (s.first, s.blocks, s.hash)).collect();
        let present = AppliedGroup::present(groups, &segments);
        let end = AppliedGroup::end(groups);
        let all_present = segments.iter().zip(&present).all(|(s, here)| s.0 >= end || *here);
        let same = streamed.is_of(&cycle.pipeline.cycle) && streamed.end() == end;
        streamed.digest.filter(|_| same && all_present)
    }

    /// Reads a batch that was flushed back from the medium.
    pub(super) async fn read_batch(pipeline: &Arc<Pipeline>, batch: &[Arc<Job>]) -> Result<Vec<Vec<BlockCv>>, Stop> {
        let reads: Vec<_> = batch.iter().map(|job| pipeline.clone().read_back(job.clone())).collect();
        in_lanes(reads).await
    }

    async fn flush_and_prove(cycle: &Committed, written: Option<Written>, tally: &mut Tally) -> Result<(), Stop> {
        if written.is_some() {
            cycle.pipeline.target.sync().await?;
        }
        Self::prove(cycle, written, tally).await
    }

    /// Reads back what was written and flushed, and counts what of it is as the source sent it.
    async fn prove(cycle: &Committed, flushed: Option<Written>, tally: &mut Tally) -> Result<(), Stop> {
        let Some(Written { batch, source }) = flushed else { return Ok(()) };
        let target = Self::read_batch(&cycle.pipeline, &batch).await?;
        for ((job, source), target) in batch.iter().zip(&source).zip(&target) {
            tally.add(job, source.as_deref(), target);
        }
        Ok(())
    }

    /// The whole target's digest must be the whole source's.
    async fn compare_whole(&self, cycle: &Committed, expected: Digest, digest: Digest) -> Result<Digest, Stop> {
        let manifest = &cycle.manifest;
        let whole = manifest.disk_bytes.sectors_ceil();
        self.env.progress.begin(manifest.disk, manifest.cycle, Phase::WholeDisk, whole.bytes());
        // Where the page cache can't be gone around, it is emptied by this.
        cycle.pipeline.target.sync().await?;
        let found = cycle.pipeline.whole_digest().await?;
        if found == expected {
            return Ok(found);
        }
        let text = format!(
            "the whole target differs from the whole source (BLAKE3 {found} and {expected}), though the cycle's own \
             sectors are equal: something changed one of them unnoticed"
        );
        let failure = Failure::new(FailReason::DigestMismatch, text);
        Err(Stop::Fail(Failure { bitmaps_equal: Some(true), target_digest: Some(digest), ..failure }))
    }

    async fn note_verified(&mut self, done: VerifiedCycle, pipeline: &Pipeline) -> Result<(), Stop> {
        // An empty cycle has written nothing, but a dynamic image may still have tables to bring out.
        pipeline.check_claim().await?;
        pipeline.target.sync().await?;
        let fingerprint = pipeline.target.fingerprint().await?;
        let note = |ledger: &mut Ledger| {
            (ledger.verified, ledger.state) = (Some(done), State::Idle);
            (ledger.fingerprint, ledger.writing) = (Some(fingerprint), None);
            // Whoever boots from it writes to it, and a device shows nothing of that.
            ledger.doubt = done.whole_disk.map(|_| "it was cut over, and may have gone its own way".to_owned());
            ledger.compared = None;
        };
        self.file.change(note).await?;
        // What stays there of sectors that are flushed by now is compared once more than it must be.
        if let Err(error) = self.keep_unflushed().await {
            tracing::debug!(%error, "what a failed flush may have lost is not brought up to date");
        }
        if let Err(error) = self.file.clear_torn().await {
            tracing::debug!(%error, "a leftover of the cycle could not be removed; the ledger no longer counts it");
        }
        Ok(())
    }
}

/// The target must be as it was left, right before it is written to. What somebody changes after that, between two of our
/// own writes, only a scrub finds.
async fn check_untouched(target: &dyn Target, noted: Option<&Fingerprint>) -> Result<(), Stop> {
    let now = target.fingerprint().await?;
    accept::check_untouched(noted, &now).map_err(Stop::Fail)
}

/// The next jobs, of `bytes_min` bytes and `jobs_min` jobs at least, as far as there are as many.
fn next_batch(jobs: &mut impl Iterator<Item = Arc<Job>>, bytes_min: u64, jobs_min: usize) -> Vec<Arc<Job>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    // A run of zeros may be one segment: its neighbours keep the other lanes busy.
    while (bytes < bytes_min || batch.len() < jobs_min)
        && batch.len() < BATCH_SEGMENTS
        && let Some(job) = jobs.next()
    {
        bytes += job.bytes().0;
        batch.push(job);
    }
    batch
}

/// Bitmap and digest of what was read back must be those of the manifest.
fn compare(manifest: &Manifest, tally: Tally) -> Result<Digest, Stop> {
    let Tally { digest, mut matched, by_digest } = tally;
    let digest = digest.finish();
    if digest == manifest.digest {
        matched.union_with(&by_digest);
    }
    let bitmaps_equal = matched == manifest.plan;
    if bitmaps_equal && digest == manifest.digest {
        return Ok(digest);
    }
    let mut differing = manifest.plan.clone();
    differing.subtract(&matched);
    let runs: Vec<_> = differing.runs().take(SHOWN_RUNS).map(|run| run.to_string()).collect();
    let (reason, text) = match digest == manifest.digest {
        true => {
            (FailReason::BitmapMismatch, format!("the sectors read back are not those planned: {}", runs.join(", ")))
        }
        false => (
            FailReason::DigestMismatch,
            format!(
                "what was read back from the target is not what the source sent, in blocks of {} sectors: {}{}; see the \
                 kernel's log for errors of the target's disk",
                differing.count(),
                runs.join(", "),
                if differing.runs().nth(SHOWN_RUNS).is_some() { " and more" } else { "" }
            ),
        ),
    };
    let failure = Failure::new(reason, text);
    Err(Stop::Fail(Failure { bitmaps_equal: Some(bitmaps_equal), target_digest: Some(digest), ..failure }))
}
