//! Repository and store fail once, at each place in turn, before or after they did what they were asked; the client asks
//! again, and with or without a restart the cycle is verified all the same.

use super::fixture::*;
use crate::repository::{
    CycleRecord, DiskRecord, LogEntry, Repository, RepositoryError, RepositoryErrorKind, RepositoryResult,
};
use crate::service::Settings;
use async_trait::async_trait;
use bytes::Bytes;
use sluice_cache_store::{CacheStore, Listed, StoreError, StoreErrorKind};
use sluice_client::{AgentApi, ApiResult, HydratorApi};
use sluice_proto::cycle::{CycleKind, State as CycleState};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::wire::{AppliedRequest, ErrorCode, PolicyView, StoredSegment};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Which call is to fail.
pub(crate) struct Faults {
    calls: AtomicU64,
    at: u64,
    /// Whether it fails once it is done, as if the answer were lost.
    after: bool,
    /// The cache store has no room.
    full: AtomicBool,
    /// How many bytes the cache store takes in all.
    room: AtomicU64,
    /// The repository has no room for segments.
    state_full: AtomicBool,
}

impl Faults {
    fn new(at: u64, after: bool) -> Arc<Self> {
        let (calls, full, state_full) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { calls, at, after, full, room: AtomicU64::new(u64::MAX), state_full })
    }

    fn struck(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.at
    }

    /// Whether this call fails, and then whether before it is carried out.
    fn strike(&self) -> Option<bool> {
        (self.calls.fetch_add(1, Ordering::Relaxed) == self.at).then_some(!self.after)
    }
}

struct Faulty<T: ?Sized> {
    faults: Arc<Faults>,
    inner: Arc<T>,
}

pub(crate) fn repository(inner: Arc<dyn Repository>, faults: &Arc<Faults>) -> Arc<dyn Repository> {
    Arc::new(Faulty { faults: Arc::clone(faults), inner })
}

pub(crate) fn store(inner: Arc<dyn CacheStore>, faults: &Arc<Faults>) -> Arc<dyn CacheStore> {
    Arc::new(Faulty { faults: Arc::clone(faults), inner })
}

fn broken() -> RepositoryError {
    RepositoryError::new(RepositoryErrorKind::Unavailable, "as the test wants it")
}

fn unavailable() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "as the test wants it")
}

macro_rules! faulty {
    ($self:ident, $call:expr, $error:expr) => {
        match $self.faults.strike() {
            None => $call.await,
            Some(before) => {
                if !before {
                    $call.await?;
                }
                Err($error)
            }
        }
    };
}

#[async_trait]
impl Repository for Faulty<dyn Repository> {
    async fn disks(&self) -> RepositoryResult<Vec<DiskRecord>> {
        self.inner.disks().await
    }
    async fn save(&self, disk: &DiskRecord, cycle: Option<&CycleRecord>) -> RepositoryResult<()> {
        faulty!(self, self.inner.save(disk, cycle), broken())
    }
    async fn cycle(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        faulty!(self, self.inner.cycle(disk, cycle), broken())
    }
    async fn cycles(&self, disk: DiskId, limit: u32) -> RepositoryResult<Vec<CycleRecord>> {
        self.inner.cycles(disk, limit).await
    }
    async fn first_ended(&self, disk: DiskId, after: CycleNo) -> RepositoryResult<Option<CycleRecord>> {
        faulty!(self, self.inner.first_ended(disk, after), broken())
    }
    async fn prune_cycles(&self, disk: DiskId, keep: u32) -> RepositoryResult<()> {
        faulty!(self, self.inner.prune_cycles(disk, keep), broken())
    }
    async fn segments(&self, disk: DiskId, cycle: CycleNo) -> RepositoryResult<Vec<StoredSegment>> {
        self.inner.segments(disk, cycle).await
    }
    async fn add_segment(&self, cycle: &CycleRecord, segment: &StoredSegment) -> RepositoryResult<()> {
        if self.faults.state_full.load(Ordering::Relaxed) {
            return Err(RepositoryError::new(RepositoryErrorKind::Full, "as the test wants it"));
        }
        faulty!(self, self.inner.add_segment(cycle, segment), broken())
    }
    async fn forget_segments(&self, disk: DiskId, cycle: CycleNo, names: Option<&[String]>) -> RepositoryResult<()> {
        faulty!(self, self.inner.forget_segments(disk, cycle, names), broken())
    }
    async fn policy(&self) -> RepositoryResult<Option<PolicyView>> {
        self.inner.policy().await
    }
    async fn set_policy(&self, policy: &PolicyView) -> RepositoryResult<()> {
        faulty!(self, self.inner.set_policy(policy), broken())
    }
    async fn log(&self, entry: &LogEntry) -> RepositoryResult<()> {
        faulty!(self, self.inner.log(entry), broken())
    }
    async fn log_entries(&self, disk: Option<DiskId>, limit: u32) -> RepositoryResult<Vec<LogEntry>> {
        self.inner.log_entries(disk, limit).await
    }
}

#[async_trait]
impl CacheStore for Faulty<dyn CacheStore> {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        if self.faults.full.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Full, "as the test wants it"));
        }
        let held: u64 = self.inner.list("").await?.iter().map(|object| object.len).sum();
        if held + bytes.len() as u64 > self.faults.room.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Full, "as small as the test wants it"));
        }
        // Another request may come in between.
        tokio::task::yield_now().await;
        faulty!(self, self.inner.put(key, bytes), unavailable())
    }
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        faulty!(self, self.inner.put_new(key, bytes), unavailable())
    }
    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        faulty!(self, self.inner.get(key, len_max), unavailable())
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        faulty!(self, self.inner.get_range(key, range), unavailable())
    }
    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        faulty!(self, self.inner.head(key), unavailable())
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        faulty!(self, self.inner.delete(key), unavailable())
    }
    fn is_local(&self) -> bool {
        true
    }
    fn describe(&self) -> String {
        "faulty".into()
    }
}

/// Asks until the answer is not to be asked again; the appliance may be started again in between.
macro_rules! insist {
    ($world:ident, $restart:ident, $call:expr) => {{
        let mut tries = 0;
        loop {
            let answer: ApiResult<_> = $call.await;
            match answer {
                Ok(answer) => break answer,
                Err(error) if error.may_pass() && tries < 5 => tries += 1,
                Err(error) => panic!("{error}"),
            }
            if $restart {
                $world.restart().await;
            }
        }
    }};
}

/// Two cycles, the second after a comparison, with one fault. False where the fault came too late to matter.
async fn two_cycles(at: u64, after: bool, restart: bool) -> bool {
    let faults = Faults::new(at, after);
    let mut world = World::faulty(Settings::default(), Some(Arc::clone(&faults))).await;
    insist!(world, restart, world.agent().register(DISK, registration(DISK, Generation(1))));
    for settled in 0..2 {
        let start = loop {
            let reply = insist!(world, restart, world.agent().next(DISK, asks(settled, None, 0)));
            if let Some(start) = reply.start {
                break start;
            }
            assert_eq!(reply.verdict, None);
        };
        assert_eq!(start.cycle, CycleNo(settled + 1), "a number was skipped or used twice");
        let kind = if settled == 0 { CycleKind::Initial } else { CycleKind::Resync };
        let start = sluice_proto::wire::Start { kind, ..start };
        let shipment = Shipment::new(&start, &planned(0, 7000), 3);
        insist!(world, restart, world.agent().open(DISK, start.cycle, shipment.open.clone()));
        if settled == 1 {
            let part = super::digests_part(start.cycle, 0);
            insist!(world, restart, async {
                world.hydrator().put_digests(DISK, start.cycle, Generation(1), 0, part.clone()).await
            });
            let got = insist!(world, restart, world.agent().digests(DISK, start.cycle, Generation(1), 0, 0));
            assert_eq!(got, Some(part));
        }
        for (stored, bytes) in &shipment.segments {
            assert_eq!(insist!(world, restart, world.put(start.cycle, stored, bytes)), *stored);
        }
        insist!(world, restart, async {
            world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await
        });
        let lease = insist!(world, restart, world.hydrator().claim(DISK, start.cycle, Generation(1))).lease;
        insist!(world, restart, world.hydrator().verdict(DISK, start.cycle, shipment.verified(lease)));
        let reply = insist!(world, restart, world.agent().next(DISK, asks(settled, Some(start.cycle.0), 0)));
        assert_eq!(reply.verdict, Some(shipment.verdict()));
        let known = world.repository.cycle(DISK, start.cycle).await.unwrap().unwrap();
        assert_eq!((known.state, known.sectors_stored), (CycleState::Verified, known.sectors));
    }
    assert_eq!(world.phase().await, DiskPhase::InStep);
    // What a fault left behind in the store goes with the next start at the latest.
    world.service.tidied().await;
    world.restart().await;
    world.service.tidied().await;
    assert_eq!(world.objects().await, Vec::<String>::new());
    faults.struck()
}

#[tokio::test(start_paused = true)]
async fn one_fault_anywhere_costs_nothing() {
    let mut runs = 0;
    for after in [false, true] {
        for restart in [false, true] {
            let mut at = 0;
            while two_cycles(at, after, restart).await {
                at += 1;
                runs += 1;
            }
        }
    }
    assert!(runs > 100, "only {runs} faults happened");
}

/// A disk grows in the middle of its first cycle, with one fault. False where the fault came too late to matter.
async fn a_growth(at: u64, after: bool, restart: bool) -> bool {
    let faults = Faults::new(at, after);
    let mut world = World::faulty(Settings::default(), Some(Arc::clone(&faults))).await;
    insist!(world, restart, world.agent().register(DISK, registration(DISK, Generation(1))));
    let start = loop {
        if let Some(start) = insist!(world, restart, world.agent().next(DISK, asks(0, None, 0))).start {
            break start;
        }
    };
    let shipment = Shipment::new(&start, &planned(0, 7000), 3);
    insist!(world, restart, world.agent().open(DISK, start.cycle, shipment.open.clone()));
    let size = sluice_proto::ByteCount(SIZE.0 + 4096);
    let larger = sluice_proto::wire::RegisterRequest { size, ..registration(DISK, Generation(2)) };
    let status = insist!(world, restart, world.agent().register(DISK, larger.clone()));
    assert_eq!((status.generation, status.open), (Generation(2), None));
    world.restart().await;
    let record = world.repository.disks().await.unwrap().remove(0);
    assert_eq!((record.size, record.generation, record.phase), (size, Generation(2), DiskPhase::Resync));
    let (stored, bytes) = &shipment.segments[0];
    assert_eq!(code(world.put(start.cycle, stored, bytes).await), ErrorCode::OldGeneration);
    faults.struck()
}

#[tokio::test(start_paused = true)]
async fn one_fault_anywhere_while_a_disk_grows_costs_nothing() {
    let mut runs = 0;
    for after in [false, true] {
        for restart in [false, true] {
            let mut at = 0;
            while a_growth(at, after, restart).await {
                at += 1;
                runs += 1;
            }
        }
    }
    assert!(runs > 20, "only {runs} faults happened");
}

#[tokio::test(start_paused = true)]
async fn room_is_waited_for() {
    let faults = Faults::new(u64::MAX, false);
    let world = World::faulty(Settings::default(), Some(Arc::clone(&faults))).await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let (stored, bytes) = &shipment.segments[0];
    for (full, where_) in [(&faults.full, "cache store"), (&faults.state_full, "appliance's state")] {
        full.store(true, Ordering::Relaxed);
        let refusal = world.put(start.cycle, stored, bytes).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.may_pass()), (Some(ErrorCode::NoRoom), true));
        assert!(refusal.to_string().contains(where_), "{refusal}");
        full.store(false, Ordering::Relaxed);
    }
    let shipment = world.ship(&start, &whole(), 1).await;
    world.verify(&shipment).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_passes_through_a_store_that_holds_three_segments() {
    let faults = Faults::new(u64::MAX, false);
    let world = World::faulty(Settings::default(), Some(Arc::clone(&faults))).await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let largest = shipment.segments.iter().map(|(stored, _)| stored.len.0).max().unwrap();
    faults.room.store(3 * largest, Ordering::Relaxed);
    let put = |at: usize| {
        let (stored, bytes) = &shipment.segments[at];
        world.put(start.cycle, stored, bytes)
    };
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    // Those behind the first come before it and take all the room there is.
    for at in [3, 2, 1] {
        put(at).await.unwrap();
    }
    let mut waited = Duration::ZERO;
    while let Err(refusal) = put(0).await {
        assert_eq!(refusal.code(), Some(ErrorCode::NoRoom));
        world.service.tidied().await;
        assert_eq!(code(put(9).await), ErrorCode::NoRoom, "what comes later takes the room");
        tokio::time::advance(Duration::from_secs(2)).await;
        waited += Duration::from_secs(2);
        assert!(waited < Duration::from_secs(100), "the segment that comes next waits for ever");
    }
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    for (at, (stored, _)) in shipment.segments.iter().enumerate() {
        put(at).await.expect("room, as all before it are applied");
        let end = sluice_proto::BlockNo(stored.first.0 + stored.blocks);
        let applied = AppliedRequest { generation: Generation(1), lease, end, names: vec![stored.name.clone()] };
        world.hydrator().applied(DISK, start.cycle, applied).await.unwrap();
        world.service.tidied().await;
    }
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    world.verify(&shipment).await;
}

#[tokio::test(start_paused = true)]
async fn two_requests_with_one_name_do_not_meet() {
    let world = World::faulty(Settings::default(), Some(Faults::new(u64::MAX, false))).await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let (stored, bytes) = &shipment.segments[0];
    let (first, second) = tokio::join!(world.put(start.cycle, stored, bytes), world.put(start.cycle, stored, bytes));
    first.unwrap();
    assert_eq!(code(second), ErrorCode::Unavailable);
    world.put(start.cycle, stored, bytes).await.unwrap();
    // A request that is cut off gives the name back.
    let (stored, bytes) = &shipment.segments[1];
    let cut = tokio::time::timeout(Duration::ZERO, world.put(start.cycle, stored, bytes)).await;
    assert!(cut.is_err(), "it was not cut off");
    world.put(start.cycle, stored, bytes).await.unwrap();
}
