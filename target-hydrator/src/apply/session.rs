//! One disk as the hydrator knows it: its ledger, its target, and the cycle that is under way.

use super::accept::{Facts, check_left_alone, check_untouched};
use super::ahead::Ahead;
use super::budget::Budget;
use super::claim::Claim;
use super::commit::Committed;
use super::grow::shrunk;
use super::initial::Streamed;
use super::pipeline::{Pipeline, Zeros};
use super::segment::Cycle;
use super::stop::{Failure, Stop};
use crate::compute::Compute;
use crate::ledger::{HexBytes, Ledger, LedgerFile, State, TargetRecord, VerifiedCycle};
use crate::progress::Progress;
use crate::spool::Spool;
use crate::state::{StateError, StateStore};
use crate::target::{Target, TargetError, Unflushed, Watched};
use async_trait::async_trait;
use sluice_cache_store::CacheStore;
use sluice_platform::system::OsEntropy;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::env::Entropy;
use sluice_proto::header::Suite;
use sluice_proto::keys::{DataKey, HydratorKey};
use sluice_proto::manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, cycle_folder};
use sluice_proto::wire::{CycleRef, Outcome, Work};
use sluice_proto::{ByteCount, Digest, SectorCount};
use std::path::Path;
use std::sync::Arc;

/// Says which target a disk has, and makes or opens it.
#[async_trait]
pub trait TargetFactory: Send + Sync {
    /// Where the disk's state is kept. Asked once for each disk.
    async fn state(&self, work: &Work) -> Result<Arc<dyn StateStore>, StateError>;

    /// Decides which target the disk has. Nothing is changed. `ledger` says which it has had so far.
    ///
    /// # Errors
    /// It may not be used.
    async fn choose(&self, work: &Work, ledger: &Ledger) -> Result<TargetRecord, TargetError>;

    /// Makes the target, or makes it again over its unfinished beginning. The ledger says by now that it is ours.
    async fn make(&self, work: &Work, record: &TargetRecord) -> Result<(), TargetError>;

    /// Opens the target that was made.
    async fn open(&self, work: &Work, record: &TargetRecord) -> Result<Arc<dyn Target>, TargetError>;

    /// Whether the target that was made, or last grown, for a source of `from` bytes can be grown to one of `to`. Nothing
    /// is changed.
    ///
    /// # Errors
    /// A device that must be enlarged first, or more than the format holds.
    async fn check_growth(
        &self,
        work: &Work,
        record: &TargetRecord,
        from: ByteCount,
        to: ByteCount,
    ) -> Result<(), TargetError>;

    /// Grows the target, which nobody has open; it has its new size on stable storage when this returns, but may hold
    /// anything in what is new. The ledger says by now that it grows: where this was cut short it is done again, with the
    /// same sizes.
    ///
    /// # Errors
    /// Those of [`Self::check_growth`]; a target that can't be written, or is not what it was.
    async fn grow(&self, work: &Work, record: &TargetRecord, from: ByteCount, to: ByteCount)
    -> Result<(), TargetError>;
}

/// What all disks of a hydrator share.
#[derive(Clone)]
pub struct Environment {
    /// Segments and manifests.
    pub spool: Spool,
    /// The cache store itself, for manifests.
    pub store: Arc<dyn CacheStore>,
    /// The hydrator's own key.
    pub key: Arc<HydratorKey>,
    /// Which disk goes where.
    pub targets: Arc<dyn TargetFactory>,
    /// Random bytes for what the hydrator seals.
    pub entropy: Arc<dyn Entropy>,
    /// Where decoding is done.
    pub compute: Compute,
    /// Who is told how far it has come.
    pub progress: Progress,
    /// Whether cycles that are not sealed are taken: only where agent and hydrator are one process.
    pub allow_plain: bool,
    /// Memory for segments.
    pub budget: Budget,
}

impl Environment {
    /// The surroundings of a real hydrator. Segments of a store that is far away are kept below `spool` meanwhile.
    ///
    /// # Errors
    /// The spool folder can't be used.
    pub fn open(
        store: Arc<dyn CacheStore>,
        spool: &Path,
        key: HydratorKey,
        targets: Arc<dyn TargetFactory>,
    ) -> Result<Self, StateError> {
        Ok(Self {
            spool: Spool::open(store.clone(), spool)?,
            store,
            key: Arc::new(key),
            targets,
            entropy: Arc::new(OsEntropy::new()),
            compute: Compute::Threads,
            progress: Progress::new(),
            allow_plain: false,
            budget: Budget::default(),
        })
    }
}

/// What a cycle came to, as it is reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// BLAKE3 of the manifest; none where it could not be read.
    pub manifest: Option<Digest>,
    /// BLAKE3 of the stream at the source.
    pub source_digest: Option<Digest>,
    /// What was found.
    pub outcome: Outcome,
}

/// A disk's ledger and target. One task owns it.
pub struct Session {
    pub(crate) env: Environment,
    pub(crate) file: LedgerFile,
    pub(super) target: Option<Arc<dyn Target>>,
    pub(super) streamed: Option<Streamed>,
    pub(super) ahead: Option<Ahead>,
    pub(crate) unflushed: Arc<Unflushed>,
}

impl Session {
    /// Opens the state of the disk that the work is about.
    ///
    /// # Errors
    /// The state can't be used: a person must act.
    pub async fn open(env: Environment, work: &Work) -> Result<Self, StateError> {
        let store = env.targets.state(work).await?;
        let file = LedgerFile::open(store, work.disk, work.size).await?;
        let unflushed = Arc::new(Unflushed::new(file.unflushed().await?));
        Ok(Self { env, file, target: None, streamed: None, ahead: None, unflushed })
    }

    /// What the hydrator knows of the target.
    pub fn ledger(&self) -> &Ledger {
        &self.file.ledger
    }

    /// Brings a committed cycle to its end: verified, or failed for a reason.
    ///
    /// # Errors
    /// [`Stop::Later`], where nothing was decided and the same work may be given again, and [`Stop::Lost`].
    pub async fn apply(&mut self, work: &Work, claim: &Claim) -> Result<Report, Stop> {
        let Some(hash) = work.manifest else { return Err(Stop::Later("the cycle is not committed yet".to_owned())) };
        let _goes_first = (work.kind != CycleKind::Initial).then(|| self.env.budget.delta());
        let mut report =
            Report { manifest: None, source_digest: None, outcome: failed(Failure::new(FailReason::Other, "")) };
        let result = self.try_apply(work, claim, hash, &mut report).await;
        self.env.progress.idle(work.disk);
        match result {
            Ok(verified) => {
                let folder = work.disk.to_string();
                self.env.spool.tidy(&folder, None).await;
                Ok(verified)
            }
            Err(Stop::Fail(failure)) => {
                self.note_failure(work, claim, &failure).await?;
                report.outcome = failed(failure);
                Ok(report)
            }
            Err(stop) => {
                self.settle(&stop).await;
                Err(stop)
            }
        }
    }

    /// The report of a verified cycle; `report` has what was found out of one that fails.
    async fn try_apply(
        &mut self,
        work: &Work,
        claim: &Claim,
        hash: Digest,
        report: &mut Report,
    ) -> Result<Report, Stop> {
        let key = self.unlock(work).await?;
        let (reference, proof) = (CycleRef { cycle: work.cycle, manifest: hash }, key.proof(hash));
        if let Some(done) =
            self.file.ledger.verified.filter(|v| v.cycle == reference && v.generation == work.generation)
        {
            // It was verified before, and the report was lost. What has become of the target since counts, but after a final
            // cycle: whoever boots from it writes to it.
            if done.whole_disk.is_none() {
                self.check_still_holds(work, claim).await?;
            }
            return Ok(Report::verified(&done, proof));
        }
        let manifest = self.manifest(work, hash, &key).await?;
        report.manifest = Some(hash);
        report.source_digest = Some(manifest.digest);
        self.follow_growth(work, claim, &manifest).await?;
        let target = self.target(work, claim).await?;
        let (fingerprint, writer) = (target.fingerprint().await?, target.marked_by().await?);
        let torn = self.file.torn().await?;
        let (ledger, allow_plain) = (&self.file.ledger, self.env.allow_plain);
        let facts = Facts {
            ledger,
            torn: &torn,
            fingerprint: &fingerprint,
            writer,
            work,
            manifest: &manifest,
            hash,
            allow_plain,
        };
        facts.judge().map_err(Stop::Fail)?;
        let folder = cycle_folder(work.disk, work.generation, work.cycle);
        self.env.spool.tidy(&work.disk.to_string(), Some(&folder)).await;
        let pipeline = self.pipeline(work, Some(claim), key, manifest.suite, manifest.plan.count(), target);
        let done = self.commit(Committed { manifest: Arc::new(manifest), hash, pipeline }).await?;
        Ok(Report::verified(&done, proof))
    }

    /// The target must be what the last verified cycle left. Where it can't be looked at, that is no reason to fail what was proven.
    async fn check_still_holds(&mut self, work: &Work, claim: &Claim) -> Result<(), Stop> {
        let look = async { Ok::<_, Stop>(self.target(work, claim).await?.fingerprint().await?) };
        let now = look.await.map_err(Stop::later)?;
        let ledger = &self.file.ledger;
        if ledger.state != State::Idle || ledger.doubt.is_some() || ledger.compared.is_some() {
            let text = "the target has gone on since the cycle was proven on it, which an appliance that was put back does not know";
            return Err(Stop::fail(FailReason::TargetChanged, text));
        }
        check_untouched(ledger.fingerprint.as_ref(), &now).map_err(Stop::Fail)
    }

    /// Unwraps the data key, and pins who signed it at the first meeting.
    pub(crate) async fn unlock(&mut self, work: &Work) -> Result<DataKey, Stop> {
        let ledger = &self.file.ledger;
        if work.generation < ledger.generation {
            let text = format!(
                "{:?} of the disk was replaced by {:?}: an agent restored from an old state; let it begin a new one",
                work.generation, ledger.generation
            );
            return Err(Stop::fail(FailReason::Abandoned, text));
        }
        if (work.envelope.disk, work.envelope.generation) != (work.disk, work.generation) {
            return Err(Stop::fail(FailReason::WrongKey, "the data key is that of another disk or generation"));
        }
        let pinned = ledger.signer.as_ref().map(|s| s.0.as_slice());
        let key = work.envelope.open(&self.env.key, pinned);
        let key = key.map_err(|e| Stop::format(FailReason::WrongKey, &format!("disk {}", work.disk), &e))?;
        if ledger.signer.is_none() || ledger.generation != work.generation {
            let signer = Some(HexBytes(work.envelope.signer.clone()));
            self.file.change(|ledger| (ledger.signer, ledger.generation) = (signer, work.generation)).await?;
        }
        Ok(key)
    }

    async fn manifest(&self, work: &Work, hash: Digest, key: &DataKey) -> Result<Manifest, Stop> {
        let name = format!("{}/{MANIFEST_NAME}", cycle_folder(work.disk, work.generation, work.cycle));
        let bytes = self.env.store.get(&name, MANIFEST_BYTES_MAX).await;
        let bytes = bytes.map_err(|e| Stop::store(&e, FailReason::ManifestCorrupt))?;
        let key = key.clone();
        let decode = move || {
            if Digest::of(&bytes) != hash {
                return Err("its BLAKE3 is not that which the appliance committed".to_owned());
            }
            Manifest::decode(&bytes, &key).map_err(|e| e.to_string())
        };
        let decoded = self.env.compute.run(decode).await?;
        decoded.map_err(|e| Stop::fail(FailReason::ManifestCorrupt, format!("manifest {name}: {e}")))
    }

    /// The target, which is made where the disk has none. That of a source which has grown has the old size until
    /// [`Session::follow_growth`].
    pub(crate) async fn target(&mut self, work: &Work, claim: &Claim) -> Result<Arc<dyn Target>, Stop> {
        if work.size < self.file.ledger.size_to_be() {
            return Err(shrunk(work.size, self.file.ledger.size_to_be()));
        }
        if let Some(target) = &self.target {
            return Ok(target.clone());
        }
        self.finish_growth(work, claim).await?;
        if let Some(target) = &self.target {
            return Ok(target.clone());
        }
        let targets = self.env.targets.clone();
        let mut record = targets.choose(work, &self.file.ledger).await?;
        if !record.made {
            claim.check().await?;
            let (begun, before) = (Some(record.clone()), self.file.ledger.target.clone());
            self.file.change(|ledger| (ledger.source_size, ledger.target) = (work.size, begun)).await?;
            if let Err(stop) = claim.check().await {
                // Or what the other makes there would be taken for our own beginning.
                self.file.change(|ledger| ledger.target = before).await?;
                return Err(stop);
            }
            targets.make(work, &record).await?;
        }
        let target = targets.open(&Work { size: self.file.ledger.source_size, ..work.clone() }, &record).await?;
        record.made = true;
        if self.file.ledger.target.as_ref() != Some(&record) {
            self.file.change(|ledger| ledger.target = Some(record)).await?;
        }
        Ok(self.target.insert(Arc::new(Watched::new(target, self.unflushed.clone()))).clone())
    }

    pub(super) fn pipeline(
        &self,
        work: &Work,
        claim: Option<&Claim>,
        key: DataKey,
        suite: Suite,
        stream: SectorCount,
        target: Arc<dyn Target>,
    ) -> Arc<Pipeline> {
        let cycle = Cycle {
            disk: work.disk,
            generation: work.generation,
            cycle: work.cycle,
            suite,
            key,
            sectors: work.size.sectors_ceil(),
            stream,
        };
        Arc::new(Pipeline {
            cycle: Arc::new(cycle),
            spool: self.env.spool.clone(),
            target,
            compute: self.env.compute,
            progress: self.env.progress.clone(),
            budget: self.env.budget.clone(),
            zeros: Zeros::default(),
            claim: claim.cloned(),
            initial: work.kind == CycleKind::Initial,
        })
    }

    /// Brings the ledger in line with a failed cycle: what it wrote stays marked until a later cycle brings it again.
    async fn note_failure(&mut self, work: &Work, claim: &Claim, failure: &Failure) -> Result<(), StateError> {
        (self.streamed, self.ahead) = (None, None);
        if failure.reason == FailReason::TargetChanged {
            // Another file may be under its name: it is opened again.
            self.target = None;
        }
        let mut ledger = self.file.ledger.clone();
        if let State::Applying { cycle } = ledger.state
            && cycle.cycle == work.cycle
        {
            ledger.state = State::Torn { cycle: cycle.cycle };
        }
        if failure.reason.is_doubt() && failure.reason != FailReason::SourceChangedSize && ledger.doubt.is_none() {
            ledger.doubt = Some(failure.detail.clone());
        }
        // Where it is another's by now nothing is flushed any more, and nothing that shows of it is ours to note.
        let is_ours = !matches!(claim.check().await, Err(Stop::Lost));
        if is_ours
            && ledger.fingerprint.is_none()
            && let Some(target) = &self.target
        {
            // What is still under way must end first. A target that can't even be asked stays without a fingerprint, and so
            // does one to which another has written: whoever looks at it next has to find that.
            drop(target.sync().await);
            if let (Ok(now), Ok(writer)) = (target.fingerprint().await, target.marked_by().await)
                && check_left_alone(&ledger, &now, writer).is_ok()
            {
                (ledger.fingerprint, ledger.writing) = (Some(now), None);
            }
        }
        self.keep_unflushed().await?;
        if ledger == self.file.ledger { Ok(()) } else { self.file.change(|noted| *noted = ledger).await }
    }
}

impl Report {
    fn verified(done: &VerifiedCycle, proof: Digest) -> Self {
        Self {
            manifest: Some(done.cycle.manifest),
            source_digest: Some(done.digest),
            outcome: Outcome::Verified { target_digest: done.digest, whole_disk: done.whole_disk, proof: Some(proof) },
        }
    }
}

fn failed(failure: Failure) -> Outcome {
    let Failure { reason, detail, bitmaps_equal, target_digest } = failure;
    Outcome::Failed { reason, detail, bitmaps_equal, target_digest }
}
