//! The target's digests, made when an agent wants to compare: of what is on the target now, whatever the ledger says.

use crate::apply::{Claim, Holes, Session, Stop, check_left_alone};
use crate::ledger::{Comparison, Ledger};
use crate::progress::Phase;
use crate::target::{Fingerprint, Target};
use sluice_platform::AlignedBuf;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::digests::{NUMBER_BYTES, PART_GRAINS, ZERO_GRAIN, grain_count, grain_digest, part_count, seal_part};
use sluice_proto::env::Entropy;
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::wire::Work;
use sluice_proto::{ByteCount, Digest, Extent, GRAIN_BYTES, GRAIN_SECTORS, SectorCount};
use std::sync::Arc;
use tokio::time::{Duration, Instant};

/// Grains that are read in one go: 4 MiB.
const STEP_GRAINS: u64 = 64;

impl Session {
    /// Reads the target and stores the digests of its grains at the appliance, part by part. Afterwards a resync that
    /// is based on them is taken whatever the target went through before.
    ///
    /// # Errors
    /// The target can't be read, or the appliance can't be reached; the same work may be given again.
    pub async fn digests(&mut self, work: &Work, claim: &Claim) -> Result<(), Stop> {
        let result = self.all_digests(work, claim).await;
        if let Err(stop) = &result {
            self.settle(stop).await;
        }
        result
    }

    async fn all_digests(&mut self, work: &Work, claim: &Claim) -> Result<(), Stop> {
        let key = self.unlock(work).await?;
        self.expect_growth(work).await?;
        let target = self.target(work, claim).await?;
        // What a hydrator that was killed has written and not flushed would be compared, and could be lost after that.
        target.sync().await?;
        let before = target.fingerprint().await?;
        let disk = work.size.sectors_ceil();
        self.env.progress.begin(work.disk, work.cycle, Phase::Comparing, disk.bytes());
        let target_disk = target.sectors();
        let mut reader = Reader { target, disk, target_disk, holes: Holes::default(), pace: Pace::new(work.read_rate) };
        let comparison = self.begin_comparison(work, &before).await?;
        for part in 0..part_count(disk) {
            let header = header(work, comparison, &*self.env.entropy);
            let mut table = Vec::new();
            let from = part * PART_GRAINS;
            for step in (from..grain_count(disk).min(from + PART_GRAINS)).step_by(STEP_GRAINS as usize) {
                self.env.budget.give_way().await;
                let mut digests = reader.read(step, self).await?;
                self.doubt_unflushed(step, &mut digests);
                self.env.progress.add(work.disk, ByteCount(digests.len() as u64 * GRAIN_BYTES));
                table.extend(digests);
            }
            let last = part + 1 == part_count(disk);
            if last {
                // Before the agent can go on with them: else a crash here would make its cycle one that nobody asked for.
                self.note_compared(work, &reader, before).await?;
            }
            let key = key.clone();
            let seal = move || seal_part(&header, &key, part, disk, &table);
            let sealed = self.env.compute.run(seal).await?;
            claim.put_digests(part, sealed.into()).await.map_err(|e| Stop::Later(e.to_string()))?;
        }
        self.env.progress.idle(work.disk);
        Ok(())
    }

    /// What a failed flush may have lost is told to be something else, whatever is read there: it is sent again.
    fn doubt_unflushed(&self, first: u64, digests: &mut [Digest]) {
        let lost = self.unflushed.lost();
        for (number, digest) in (first..).zip(digests) {
            if lost.runs_in(Extent::new(number * GRAIN_SECTORS, GRAIN_SECTORS)).next().is_some() {
                // Of no grain: nobody knows bytes with it.
                self.env.entropy.fill(&mut digest.0);
            }
        }
    }

    /// The comparison's number: that of the one that was cut short where the target is what it was then, so that an agent which
    /// has some of its digests can go on with the others; else a new one.
    async fn begin_comparison(&mut self, work: &Work, now: &Fingerprint) -> Result<Digest, Stop> {
        let known = self.file.ledger.comparison.as_ref();
        if let Some(known) = known.filter(|known| known.cycle == work.cycle && now.is_still(&known.fingerprint)) {
            return Ok(known.number);
        }
        let mut number = [0; 32];
        self.env.entropy.fill(&mut number[..NUMBER_BYTES]);
        let comparison = Comparison { cycle: work.cycle, number: Digest(number), fingerprint: *now };
        self.file.change(|ledger| ledger.comparison = Some(comparison)).await?;
        Ok(Digest(number))
    }

    async fn note_compared(&mut self, work: &Work, reader: &Reader, before: Fingerprint) -> Result<(), Stop> {
        let now = reader.target.fingerprint().await?;
        if !now.is_still(&before) {
            return Err(Stop::fail(FailReason::TargetChanged, "somebody writes to the target while it is being read"));
        }
        let writer = reader.target.marked_by().await?;
        let read_to = reader.target_disk.min(reader.disk);
        let note = |ledger: &mut Ledger| {
            if work.kind == CycleKind::Resync
                && let Err(failure) = check_left_alone(ledger, &now, writer)
            {
                // Also where what is planned by this is never applied: what was verified before is not what is there. Not for a
                // cycle of another kind that asks for digests, which comparing settles as well.
                ledger.doubt.get_or_insert(failure.detail);
            }
            if ledger.compared == Some(work.cycle) && ledger.fingerprint.as_ref() == Some(&now) {
                // Asked again after a restart: the agent may have planned by the first answer.
                ledger.compared_to = ledger.compared_to.map(|first| first.min(read_to));
            } else {
                (ledger.compared, ledger.compared_to) = (Some(work.cycle), Some(read_to));
                (ledger.fingerprint, ledger.writing) = (Some(now), None);
            }
        };
        Ok(self.file.change(note).await?)
    }
}

fn header(work: &Work, comparison: Digest, entropy: &dyn Entropy) -> Header {
    let mut salt = comparison.0;
    entropy.fill(&mut salt[NUMBER_BYTES..]);
    Header {
        kind: ObjectKind::Digests,
        suite: Suite::Aes256Gcm,
        disk: work.disk,
        generation: work.generation,
        cycle: work.cycle,
        salt,
        fields: [0; 3],
    }
}

struct Reader {
    target: Arc<dyn Target>,
    /// The source's sectors: what the target has beyond is not compared.
    disk: SectorCount,
    /// Those that the target has. What is added when it grows is zeros.
    target_disk: SectorCount,
    holes: Holes,
    pace: Pace,
}

impl Reader {
    /// The digests of some grains from `first` on.
    async fn read(&mut self, first: u64, session: &Session) -> Result<Vec<Digest>, Stop> {
        let grains = (grain_count(self.disk) - first).min(STEP_GRAINS);
        let start = first * GRAIN_SECTORS;
        let extent = Extent::new(start, (grains * GRAIN_SECTORS).min(self.disk.0 - start));
        if self.holes.covers(&*self.target, extent).await? {
            return Ok(vec![ZERO_GRAIN; grains as usize]);
        }
        let mut bytes = AlignedBuf::new(extent.bytes().0 as usize);
        if let Some(here) = extent.intersect(Extent::new(0, self.target_disk.0)) {
            bytes = self.target.read(here, bytes).await?;
            self.pace.spend(here.bytes()).await;
        }
        let read = bytes.len();
        bytes.set_len(extent.bytes().0 as usize);
        bytes[read..].fill(0);
        session.env.compute.run(move || bytes.chunks(GRAIN_BYTES as usize).map(grain_digest).collect()).await
    }
}

/// Keeps reading below a rate, from its beginning on.
struct Pace {
    start: Instant,
    spent: u64,
    rate: Option<u64>,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { start: Instant::now(), spent: 0, rate: rate.filter(|rate| *rate > 0) }
    }

    async fn spend(&mut self, bytes: ByteCount) {
        self.spent += bytes.0;
        if let Some(rate) = self.rate {
            tokio::time::sleep_until(self.start + Duration::from_secs_f64(self.spent as f64 / rate as f64)).await;
        }
    }
}
