//! A service with an agent, hydrators and an operator, and what they send.

use crate::identity::PeerName;
use crate::repository::{MemoryRepository, Repository};
use crate::service::{LocalAgent, LocalHydrator, LocalOperator, Ports, Service, Settings};
use crate::throttle::{Limits, Throttle};
use bytes::Bytes;
use sluice_cache_store::{CacheStore, MemoryStore};
use sluice_client::{AgentApi, ApiResult, HydratorApi};
use sluice_proto::cycle::{Consistency, CycleKind, TrackerKind};
use sluice_proto::env::Clock;
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use sluice_proto::manifest::{Manifest, Previous, SegmentEntry};
use sluice_proto::segment::{BlockEncoder, SegmentWriter};
use sluice_proto::stream::{Blocks, StreamDigest};
use sluice_proto::units::SECTOR_BYTES;
use sluice_proto::wire::{
    CycleRef, ErrorCode, Lease, NextReply, NextRequest, OpenRequest, Outcome, PolicyView, RegisterRequest, Start,
    StoredSegment, Verdict, VerdictRequest, WorkRequest,
};
use sluice_proto::{ByteCount, CycleNo, Digest, DiskId, Extent, Generation, SectorBitmap, SectorCount};
use std::sync::Arc;
use tokio::time::Instant;

pub(crate) const DISK: DiskId = DiskId([7; 16]);
/// 12 MiB and a bit: a disk of several blocks, and no whole MiB.
pub(crate) const SIZE: ByteCount = ByteCount((12 << 20) + 512);
pub(crate) const KEY: [u8; 32] = [9; 32];
const HOUR_MS: u64 = 3_600_000;

/// A wall clock that goes with tokio's.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

pub(crate) struct World {
    pub(crate) repository: Arc<MemoryRepository>,
    pub(crate) store: Arc<MemoryStore>,
    clock: Arc<TokioClock>,
    settings: Settings,
    pub(crate) faults: Option<Arc<super::faults::Faults>>,
    pub(crate) service: Service,
}

pub(crate) fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::faulty(settings, None).await
    }

    /// A world whose repository and store fail when `faults` says so.
    pub(crate) async fn faulty(settings: Settings, faults: Option<Arc<super::faults::Faults>>) -> Self {
        let repository = Arc::new(MemoryRepository::new());
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(TokioClock(Instant::now()));
        let service = start(&repository, &store, &clock, &settings, &faults).await;
        Self { repository, store, clock, settings, faults, service }
    }

    /// The appliance stops and starts again.
    pub(crate) async fn restart(&mut self) {
        self.service = start(&self.repository, &self.store, &self.clock, &self.settings, &self.faults).await;
    }

    pub(crate) fn agent(&self) -> LocalAgent {
        LocalAgent::new(self.service.clone(), name("web-1"))
    }

    pub(crate) fn hydrator(&self) -> LocalHydrator {
        LocalHydrator::new(self.service.clone(), name("main"))
    }

    pub(crate) fn operator(&self) -> LocalOperator {
        LocalOperator::new(self.service.clone(), name("anna"))
    }

    pub(crate) async fn register(&self) {
        self.agent().register(DISK, registration(DISK, Generation(1))).await.unwrap();
    }

    pub(crate) async fn next(&self, settled: u64, running: Option<u64>) -> NextReply {
        self.agent().next(DISK, asks(settled, running, 0)).await.unwrap()
    }

    /// Waits for the order to begin a cycle.
    pub(crate) async fn start(&self, settled: u64) -> Start {
        loop {
            let reply = self.agent().next(DISK, asks(settled, None, 30_000)).await.unwrap();
            assert_eq!(reply.verdict, None, "an unexpected verdict");
            if let Some(start) = reply.start {
                return start;
            }
        }
    }

    /// Ships a whole cycle of these sectors; gives it with its manifest's hash.
    pub(crate) async fn ship(&self, start: &Start, plan: &SectorBitmap, salt: u8) -> Shipment {
        let shipment = Shipment::new(start, plan, salt);
        self.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
        for (stored, bytes) in &shipment.segments {
            self.put(start.cycle, stored, bytes).await.unwrap();
        }
        self.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
        shipment
    }

    pub(crate) async fn put(&self, cycle: CycleNo, stored: &StoredSegment, bytes: &Bytes) -> ApiResult<StoredSegment> {
        self.agent().put_segment(DISK, cycle, Generation(1), &stored.name, bytes.clone()).await
    }

    /// The hydrator claims and verifies the cycle, under the lease that is given.
    pub(crate) async fn verify(&self, shipment: &Shipment) -> Lease {
        let lease = self.hydrator().claim(DISK, shipment.cycle, Generation(1)).await.unwrap().lease;
        self.hydrator().verdict(DISK, shipment.cycle, shipment.verified(lease)).await.unwrap();
        lease
    }

    /// A cycle from the order to the settled verdict.
    pub(crate) async fn cycle(&self, settled: u64, plan: &SectorBitmap) -> Shipment {
        let start = self.start(settled).await;
        let shipment = self.ship(&start, plan, start.cycle.0 as u8).await;
        self.verify(&shipment).await;
        let verdict = self.next(settled, Some(start.cycle.0)).await.verdict;
        assert_eq!(verdict, Some(shipment.verdict()));
        shipment
    }

    pub(crate) async fn phase(&self) -> sluice_proto::disk::State {
        self.repository.disks().await.unwrap()[0].phase
    }

    pub(crate) async fn objects(&self) -> Vec<String> {
        self.service.tidied().await;
        self.store.list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    pub(crate) async fn revision(&self) -> u64 {
        self.hydrator().work(WorkRequest { seen: 0, wait_ms: 0 }).await.unwrap().revision
    }
}

async fn start(
    repository: &Arc<MemoryRepository>,
    store: &Arc<MemoryStore>,
    clock: &Arc<TokioClock>,
    settings: &Settings,
    faults: &Option<Arc<super::faults::Faults>>,
) -> Service {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let throttle = Throttle::new(Limits::default(), Arc::clone(&clock));
    let mut ports = Ports { repository: Arc::clone(repository) as _, store: Arc::clone(store) as _, throttle, clock };
    if let Some(faults) = faults {
        ports.repository = super::faults::repository(ports.repository, faults);
        ports.store = super::faults::store(ports.store, faults);
    }
    Service::start(ports, settings.clone()).await.unwrap()
}

pub(crate) fn policy() -> PolicyView {
    PolicyView { min_interval_ms: HOUR_MS, max_interval_ms: 12 * HOUR_MS, ..PolicyView::default() }
}

pub(crate) fn asks(settled: u64, running: Option<u64>, wait_ms: u64) -> NextRequest {
    NextRequest { generation: Generation(1), settled: CycleNo(settled), running: running.map(CycleNo), wait_ms }
}

pub(crate) fn registration(disk: DiskId, generation: Generation) -> RegisterRequest {
    let signer = SigningKey::from_seed(&[2; 32]);
    // The same envelope each time: wrapping draws randomness, and an agent wraps once.
    static HYDRATOR: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    static ENVELOPES: parking_lot::Mutex<std::collections::BTreeMap<(DiskId, Generation), KeyEnvelope>> =
        parking_lot::Mutex::new(std::collections::BTreeMap::new());
    let hydrator = HYDRATOR.get_or_init(|| HydratorKey::generate().unwrap().public().to_vec());
    let mut envelopes = ENVELOPES.lock();
    let envelope = envelopes
        .entry((disk, generation))
        .or_insert_with(|| KeyEnvelope::wrap(&DataKey::new(KEY), disk, generation, hydrator, &signer).unwrap());
    RegisterRequest {
        name: "web-1 /dev/sda".into(),
        size: SIZE,
        logical_sector: 512,
        generation,
        envelope: envelope.clone(),
    }
}

/// Every sector of the disk.
pub(crate) fn whole() -> SectorBitmap {
    planned(0, SIZE.sectors_ceil().0)
}

/// So many sectors from one.
pub(crate) fn planned(start: u64, len: u64) -> SectorBitmap {
    let mut plan = SectorBitmap::new();
    plan.set(Extent::new(start, len));
    plan
}

/// A cycle as an agent makes it.
pub(crate) struct Shipment {
    pub(crate) cycle: CycleNo,
    pub(crate) open: OpenRequest,
    pub(crate) segments: Vec<(StoredSegment, Bytes)>,
    pub(crate) manifest: Bytes,
    pub(crate) hash: Digest,
    pub(crate) digest: Digest,
    pub(crate) whole_disk: Option<Digest>,
}

impl Shipment {
    pub(crate) fn new(start: &Start, plan: &SectorBitmap, salt: u8) -> Self {
        Self::of(DISK, Generation(1), start, plan, salt)
    }

    pub(crate) fn of(disk: DiskId, generation: Generation, start: &Start, plan: &SectorBitmap, salt: u8) -> Self {
        let key = DataKey::new(KEY);
        let header = Header {
            kind: ObjectKind::Segment,
            suite: Suite::Aes256Gcm,
            disk,
            generation,
            cycle: start.cycle,
            salt: [salt; 32],
            fields: [0; 3],
        };
        let mut encoder = BlockEncoder::new(&key, &header, plan.count(), 1);
        let mut digest = StreamDigest::default();
        let mut segments = Vec::new();
        let mut entries = Vec::new();
        for (block, extents) in Blocks::of(plan) {
            let data: Vec<u8> = extents.iter().flat_map(sectors).collect();
            let encoded = encoder.encode(block, &extents, &data, Vec::new());
            digest.push(encoded.cv);
            // One segment for each block: many small ones make better tests than few large ones.
            let mut writer = SegmentWriter::new(&key, &header, block);
            writer.push(&encoded);
            let name = writer.name();
            let bytes = Bytes::from(writer.finish());
            let (len, hash) = (ByteCount(bytes.len() as u64), Digest::of(&bytes));
            entries.push(SegmentEntry { first: block, blocks: 1, len, hash, salt: Digest(header.salt) });
            segments.push((StoredSegment { name, first: block, blocks: 1, len, hash }, bytes));
        }
        let digest = digest.finish();
        let whole_disk = (start.kind == CycleKind::Final).then_some(Digest([3; 32]));
        let manifest = Manifest {
            disk,
            generation,
            cycle: start.cycle,
            suite: Suite::Aes256Gcm,
            salt: [salt; 32],
            kind: start.kind,
            consistency: Consistency::Crash,
            tracker: TrackerKind::Scan,
            disk_bytes: SIZE,
            previous: start.previous.map(|p| Previous { cycle: p.cycle, manifest: p.manifest }),
            plan: plan.clone(),
            segments: entries,
            digest,
            whole_disk,
            comparison: None,
        };
        let manifest = Bytes::from(manifest.encode(&key));
        let hash = Digest::of(&manifest);
        let open = OpenRequest {
            generation,
            kind: start.kind,
            tracker: TrackerKind::Scan,
            sectors: plan.count(),
            doubt: None,
            after: None,
        };
        Self { cycle: start.cycle, open, segments, manifest, hash, digest, whole_disk }
    }

    pub(crate) fn reference(&self) -> CycleRef {
        CycleRef { cycle: self.cycle, manifest: self.hash }
    }

    fn proof(&self) -> Option<Digest> {
        Some(DataKey::new(KEY).proof(self.hash))
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let (cycle, manifest, target_digest, proof) = (self.cycle, self.hash, self.digest, self.proof());
        Verdict::Verified { cycle, manifest, target_digest, proof }
    }

    pub(crate) fn verified(&self, lease: Lease) -> VerdictRequest {
        VerdictRequest {
            generation: self.open.generation,
            lease,
            manifest: Some(self.hash),
            source_digest: Some(self.digest),
            outcome: Outcome::Verified { target_digest: self.digest, whole_disk: self.whole_disk, proof: self.proof() },
        }
    }

    pub(crate) fn failed(&self, lease: Lease, reason: sluice_proto::cycle::FailReason) -> VerdictRequest {
        let detail = "as the test wants it".into();
        let outcome = Outcome::Failed { reason, detail, bitmaps_equal: Some(false), target_digest: None };
        VerdictRequest { outcome, ..self.verified(lease) }
    }
}

/// Bytes that differ from sector to sector.
fn sectors(extent: &Extent) -> Vec<u8> {
    let sector = |n: u64| (0..SECTOR_BYTES).map(move |i| (n.wrapping_mul(31) + i) as u8 | 1);
    (extent.start.0..extent.end().0).flat_map(sector).collect()
}

/// The number of a refusal.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: ApiResult<T>) -> ErrorCode {
    result.unwrap_err().code().unwrap()
}

/// A sector count, briefly.
pub(crate) fn sectors_of(count: u64) -> SectorCount {
    SectorCount(count)
}
