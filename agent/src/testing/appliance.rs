//! An appliance with its hydrator and a target, in memory. It orders the cycles of a script, applies what is committed
//! by the rules of the format, and breaks off on command.

use super::target::{apply, bytes_of};
use super::{DISK, Dice, Fault, GENERATION, MemDisk, key};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_client::{AgentApi, ApiError, ApiResult};
use sluice_proto::cycle::{Consistency, CycleKind, FailReason};
use sluice_proto::digests::{PART_GRAINS, grain_digest, seal_part};
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::manifest::Manifest;
use sluice_proto::segment::Segment;
use sluice_proto::wire::{
    CycleRef, DiskStatus, ErrorCode, GiveUp, NextReply, NextRequest, OpenReply, OpenRequest, RegisterRequest, Start,
    StoredSegment, Verdict, WireError,
};
use sluice_proto::{ByteCount, CycleNo, Digest, DiskId, GRAIN_BYTES, Generation, SectorCount};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::watch;

/// The appliance.
pub(crate) struct Fake {
    pub(crate) inner: Mutex<Inner>,
    stop: watch::Sender<bool>,
}

/// Its state, which tests look into and change.
pub(crate) struct Inner {
    pub(crate) target: Vec<u8>,
    /// Kinds of the cycles to be ordered.
    pub(crate) orders: VecDeque<CycleKind>,
    /// What befalls the nth call.
    pub(crate) faults: BTreeMap<u64, Fault>,
    /// Which commits end in failure, by their number, and why; half of their sectors are written then.
    pub(crate) failures: BTreeMap<u64, FailReason>,
    /// Says of the next cycle that it is verified, with this for a proof, as whoever took an appliance over might.
    pub(crate) forged: Option<Option<Digest>>,
    /// The source, to be written while cycles run.
    pub(crate) busy: Option<(MemDisk, Dice)>,
    pub(crate) put_delay: Duration,
    /// Segments that it tells of at once.
    pub(crate) told_max: usize,
    pub(crate) read_rate: Option<u64>,
    pub(crate) calls: u64,
    pub(crate) puts: u64,
    pub(crate) digests_asked: u64,
    /// Why cycles were opened that compare.
    pub(crate) doubts: Vec<String>,
    commits: u64,
    /// Every manifest that was verified.
    pub(crate) done: Vec<Manifest>,
    pub(crate) verdicts: BTreeMap<CycleNo, Verdict>,
    open: Option<(Start, Option<OpenRequest>)>,
    committed: Option<Digest>,
    pause: bool,
    pub(crate) segments: BTreeMap<String, (StoredSegment, Bytes)>,
    /// Every part that was ever sealed: salt and block, with the bytes of the segment.
    nonces: BTreeMap<([u8; 32], u64), Digest>,
    newest: CycleNo,
    verified: Option<CycleRef>,
    generation: Generation,
    /// How often a disk was made known.
    pub(crate) registered: u64,
}

impl Fake {
    /// An appliance whose target is as large as `disk` and holds zeros. It says stop when its script is at its end.
    pub(crate) fn new(disk: &MemDisk, orders: &[CycleKind]) -> (std::sync::Arc<Self>, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        let inner = Inner {
            target: vec![0; disk.data().len()],
            orders: orders.iter().copied().collect(),
            faults: BTreeMap::new(),
            failures: BTreeMap::new(),
            forged: None,
            busy: None,
            put_delay: Duration::from_millis(10),
            told_max: usize::MAX,
            read_rate: None,
            calls: 0,
            puts: 0,
            digests_asked: 0,
            doubts: Vec::new(),
            commits: 0,
            done: Vec::new(),
            verdicts: BTreeMap::new(),
            open: None,
            committed: None,
            pause: false,
            segments: BTreeMap::new(),
            nonces: BTreeMap::new(),
            newest: CycleNo(0),
            verified: None,
            generation: GENERATION,
            registered: 0,
        };
        (std::sync::Arc::new(Self { inner: Mutex::new(inner), stop }), stopped)
    }

    /// Takes back the word that the script is at its end.
    pub(crate) fn again(&self) -> watch::Receiver<bool> {
        self.stop.send_replace(false);
        self.stop.subscribe()
    }

    /// Counts a call and lets befall it what is to.
    fn call<T>(&self, act: impl FnOnce(&mut Inner) -> ApiResult<T>) -> ApiResult<T> {
        let inner = &mut *self.inner.lock();
        inner.calls += 1;
        match inner.faults.remove(&inner.calls) {
            Some(Fault::LostRequest) => Err(lost()),
            Some(Fault::Busy) => refuse(ErrorCode::Unavailable, "busy"),
            Some(Fault::Unknown) => refuse(ErrorCode::NoSuchDisk, "no such disk"),
            Some(Fault::OfOld) => refuse(ErrorCode::WrongState, "register the generation first"),
            Some(Fault::LostAnswer) => act(inner).and(Err(lost())),
            Some(gone @ (Fault::SegmentsGone | Fault::PlanForgotten)) => {
                inner.segments.clear();
                if let (Fault::PlanForgotten, Some((_, Some(plan)))) = (gone, &mut inner.open) {
                    plan.sectors = SectorCount(0);
                }
                act(inner)
            }
            None => act(inner),
        }
    }
}

fn lost() -> ApiError {
    ApiError::Unreachable { appliance: "fake".into(), detail: "cut".into() }
}

fn refuse<T>(code: ErrorCode, message: &str) -> ApiResult<T> {
    Err(WireError::new(code, message).into())
}

impl Inner {
    /// A generation has one size; a new one may have a larger one, to which the target grows.
    fn register(&mut self, request: &RegisterRequest) -> ApiResult<()> {
        let len = request.size.sectors_ceil().bytes().0 as usize;
        if len < self.target.len() || (len > self.target.len() && request.generation <= self.generation) {
            return refuse(ErrorCode::WrongState, "a disk grows with a new generation and never shrinks");
        }
        if request.generation > self.generation {
            let open = self.open.as_ref().map(|(start, _)| start.cycle);
            open.into_iter().for_each(|cycle| self.fail(cycle, FailReason::Abandoned, "a new generation"));
            self.generation = request.generation;
        }
        self.target.resize(len, 0);
        Ok(())
    }

    fn next(&mut self, request: &NextRequest) -> NextReply {
        let verdict = self.verdicts.range(request.settled.next()..).next().map(|(_, verdict)| verdict.clone());
        if verdict.is_some() {
            return NextReply { verdict, ..NextReply::default() };
        }
        if self.open.is_none()
            && let Some(kind) = self.orders.pop_front()
        {
            if let Some((disk, dice)) = &mut self.busy
                && kind != CycleKind::Final
            {
                disk.scribble(6, dice);
            }
            self.newest = self.newest.next();
            let start = Start { cycle: self.newest, kind, previous: self.verified, read_rate: self.read_rate };
            self.open = Some((start, None));
            self.committed = None;
            self.segments.clear();
        }
        let start = self.open.as_ref().map(|(start, _)| start.clone());
        let begins = self.committed.is_none() && start.as_ref().map(|s| s.cycle) != request.running;
        NextReply { start: start.filter(|_| begins), ..NextReply::default() }
    }

    fn turn(&mut self, cycle: CycleNo) -> ApiResult<&mut (Start, Option<OpenRequest>)> {
        match &mut self.open {
            Some(open) if open.0.cycle == cycle => Ok(open),
            _ => refuse(ErrorCode::WrongState, "it is not this cycle's turn"),
        }
    }

    fn open(&mut self, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply> {
        let open = self.turn(cycle)?;
        if let Some(known) = &open.1
            && (known.kind, known.sectors) != (request.kind, request.sectors)
        {
            if self.committed.is_some() {
                return refuse(ErrorCode::WrongState, "committed with another plan; give it up");
            }
            self.segments.clear();
        }
        let after = request.after.clone().unwrap_or_default();
        self.doubts.extend(request.doubt.clone());
        self.turn(cycle)?.1 = Some(request);
        let mut told = self.segments.range(after.clone()..).filter(|(name, _)| **name != after);
        let stored = told.by_ref().take(self.told_max).map(|(_, (stored, _))| stored.clone()).collect();
        Ok(OpenReply { stored, more: told.next().is_some() })
    }

    fn put(&mut self, cycle: CycleNo, name: &str, bytes: Bytes) -> ApiResult<StoredSegment> {
        let segment = Segment::parse(&bytes).expect("a segment that can be read");
        segment.header().expect(DISK, self.generation, cycle).expect("a segment of this cycle");
        let (first, blocks, hash) = (segment.first(), segment.blocks(), Digest::of(&bytes));
        for block in first.0..first.0 + blocks {
            let known = self.nonces.insert((segment.header().salt, block), hash);
            assert!(known.is_none_or(|known| known == hash), "block {block} was sealed twice under one salt");
        }
        let (Start { kind, .. }, plan) = self.turn(cycle)?;
        let (kind, planned) = (*kind, plan.as_ref().map_or(SectorCount(0), |plan| plan.sectors));
        match self.committed {
            Some(_) => return refuse(ErrorCode::WrongState, "committed already"),
            None if planned.0 == 0 => return refuse(ErrorCode::NotStored, "beyond the plan; open the cycle again"),
            None => {}
        }
        if let Some((disk, dice)) = &mut self.busy
            && kind != CycleKind::Final
        {
            disk.scribble(2, dice);
        }
        self.puts += 1;
        let stored = StoredSegment { name: name.into(), first, blocks, len: ByteCount(bytes.len() as u64), hash };
        self.segments.insert(name.into(), (stored.clone(), bytes));
        Ok(stored)
    }

    fn commit(&mut self, cycle: CycleNo, bytes: &Bytes) -> ApiResult<()> {
        let hash = Digest::of(bytes);
        if let Some(Verdict::Verified { manifest, .. }) = self.verdicts.get(&cycle)
            && *manifest == hash
        {
            return Ok(());
        }
        let previous = self.turn(cycle)?.0.previous;
        if let Some(known) = self.committed {
            return if known == hash { Ok(()) } else { refuse(ErrorCode::WrongState, "another manifest") };
        }
        let manifest = Manifest::decode(bytes, &key()).expect("a manifest that can be read");
        assert_eq!(manifest.generation, self.generation);
        assert_eq!(manifest.disk_bytes.sectors_ceil().bytes().0, self.target.len() as u64, "the source's own size");
        assert_eq!(manifest.previous.map(|p| CycleRef { cycle: p.cycle, manifest: p.manifest }), previous);
        let there = |name: &str| self.segments.contains_key(name);
        if !manifest.segments.iter().all(|entry| there(&entry.name())) {
            return refuse(ErrorCode::NotStored, "a segment is not stored; send it first");
        }
        self.committed = Some(hash);
        self.commits += 1;
        if let Some(proof) = self.forged.take() {
            // Nothing of it was applied.
            self.say_verified(hash, &manifest, proof);
            self.open = None;
            return Ok(());
        }
        match self.failures.remove(&self.commits) {
            None => self.verify(hash, manifest),
            Some(reason) => self.spoil(cycle, reason, &manifest),
        }
        Ok(())
    }

    /// What a hydrator does: applies, reads back, compares.
    fn verify(&mut self, hash: Digest, manifest: Manifest) {
        let mut target = self.target.clone();
        let applied = apply(&manifest, &self.segments, &mut target);
        assert_eq!(applied, manifest.plan, "the segments hold the plan and nothing else");
        let stream: Vec<u8> = manifest.plan.runs().flat_map(|run| target[bytes_of(run)].to_vec()).collect();
        assert_eq!(Digest::of(&stream), manifest.digest, "b3sum of the stream is the cycle's digest");
        assert_eq!(manifest.comparison.is_some(), manifest.kind == CycleKind::Resync, "planned by what was compared");
        if manifest.kind == CycleKind::Final {
            assert_eq!(manifest.whole_disk, Some(Digest::of(&target)), "a final cycle compares whole disks");
        }
        if manifest.consistency == Consistency::Crash
            && let Some((disk, _)) = &self.busy
        {
            assert!(target == disk.at_swap(), "{:?} is no image of one instant", manifest.cycle);
        }
        self.target = target;
        let cycle = manifest.cycle;
        self.verified = Some(CycleRef { cycle, manifest: hash });
        self.say_verified(hash, &manifest, Some(key().proof(hash)));
        self.done.push(manifest);
        self.open = None;
    }

    fn say_verified(&mut self, hash: Digest, manifest: &Manifest, proof: Option<Digest>) {
        let (cycle, target_digest) = (manifest.cycle, manifest.digest);
        self.verdicts.insert(cycle, Verdict::Verified { cycle, manifest: hash, target_digest, proof });
    }

    /// The cycle fails when half of it is written; a first copy when it is, and half of it spoilt again.
    fn spoil(&mut self, cycle: CycleNo, reason: FailReason, manifest: &Manifest) {
        if manifest.kind == CycleKind::Initial {
            apply(manifest, &self.segments, &mut self.target);
            let half = self.target.len() / 2;
            self.target[..half].fill(0xee);
            return self.fail(cycle, reason, "spoilt");
        }
        let runs: Vec<_> = manifest.plan.runs().collect();
        for run in &runs[..runs.len().div_ceil(2)] {
            self.target[bytes_of(*run)].fill(0xee);
        }
        self.fail(cycle, reason, "spoilt");
    }

    pub(crate) fn fail(&mut self, cycle: CycleNo, reason: FailReason, detail: &str) {
        let Some((start, _)) = self.open.take() else { return };
        // A failed first copy is followed by a comparison.
        let compare = reason.is_doubt() || start.kind == CycleKind::Initial;
        let kind = if compare { CycleKind::Resync } else { start.kind };
        self.orders.push_front(kind);
        self.pause = true;
        self.verdicts.insert(cycle, Verdict::Failed { cycle, reason, detail: detail.into() });
    }
}

#[async_trait]
impl AgentApi for Fake {
    async fn register(&self, _: DiskId, request: RegisterRequest) -> ApiResult<DiskStatus> {
        let status = DiskStatus { generation: request.generation, verified: None, open: None };
        self.inner.lock().registered += 1;
        self.call(|inner| inner.register(&request).map(|()| status))
    }

    async fn next(&self, _: DiskId, request: NextRequest) -> ApiResult<NextReply> {
        let failed = std::mem::take(&mut self.inner.lock().pause);
        if failed {
            // A schedule does not try again at once.
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let reply = self.call(|inner| Ok(inner.next(&request)))?;
        if reply.verdict.is_none() && reply.start.is_none() {
            if self.inner.lock().open.is_none() {
                self.stop.send_replace(true);
            }
            tokio::time::sleep(Duration::from_millis(request.wait_ms)).await;
        }
        Ok(reply)
    }

    async fn open(&self, _: DiskId, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply> {
        self.call(|inner| inner.open(cycle, request))
    }

    async fn put_segment(
        &self,
        _: DiskId,
        cycle: CycleNo,
        _: Generation,
        name: &str,
        bytes: Bytes,
    ) -> ApiResult<StoredSegment> {
        let delay = self.inner.lock().put_delay;
        tokio::time::sleep(delay).await;
        self.call(|inner| inner.put(cycle, name, bytes))
    }

    async fn commit(&self, _: DiskId, cycle: CycleNo, _: Generation, manifest: Bytes) -> ApiResult<()> {
        self.call(|inner| inner.commit(cycle, &manifest))
    }

    async fn give_up(&self, _: DiskId, cycle: CycleNo, request: GiveUp) -> ApiResult<()> {
        self.call(|inner| {
            if matches!(inner.verdicts.get(&cycle), Some(Verdict::Failed { .. })) {
                return Ok(());
            }
            inner.turn(cycle)?;
            inner.fail(cycle, request.reason, &request.detail);
            Ok(())
        })
    }

    async fn digests(&self, _: DiskId, cycle: CycleNo, _: Generation, part: u64, _: u64) -> ApiResult<Option<Bytes>> {
        self.call(|inner| {
            inner.turn(cycle)?;
            inner.digests_asked += 1;
            let grains = inner.target.chunks(GRAIN_BYTES as usize).map(grain_digest);
            let digests: Vec<Digest> = grains.skip((part * PART_GRAINS) as usize).take(PART_GRAINS as usize).collect();
            let Digest(salt) = Digest::of(&inner.calls.to_le_bytes());
            let (kind, suite, generation) = (ObjectKind::Digests, Suite::Aes256Gcm, inner.generation);
            let header = Header { kind, suite, disk: DISK, generation, cycle, salt, fields: [0; 3] };
            let sectors = SectorCount(inner.target.len() as u64 / 512);
            Ok(Some(seal_part(&header, &key(), part, sectors, &digests).into()))
        })
    }
}
