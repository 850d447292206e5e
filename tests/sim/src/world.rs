//! A whole run: three processes that die and come back, a disk that is written, faults, then calm; and the judgement.

mod faults;
mod nodes;

use crate::check::{Checker, Judgement};
use crate::life::Life;
use crate::machine::{Files, Odds};
use crate::net::Running;
use crate::repository::Unflushed;
use crate::rng::Rng;
use crate::source::{ModelDisk, value_of, workload};
use crate::target::Medium;
use faults::odds;
use parking_lot::Mutex;
use sluice_appliance::repository::MemoryRepository;
use sluice_appliance::service::{LocalAgent, LocalHydrator, LocalOperator};
use sluice_cache_store::MemoryStore;
use sluice_client::OperatorApi;
use sluice_proto::DiskId;
use sluice_proto::env::Clock;
use sluice_proto::keys::{DataKey, HydratorKey};
use sluice_proto::segment::SEGMENT_BYTES_TARGET;
use sluice_proto::wire::{PolicyView, SEGMENTS_TOLD_MAX};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The disk that is protected.
const DISK: DiskId = DiskId([1; 16]);
/// How long the target may take to become the source once the faults have stopped.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// The simulated wall clock: it may jump.
struct SimClock {
    begun: Instant,
    jump_ms: Arc<Mutex<i64>>,
}

impl Clock for SimClock {
    fn unix_ms(&self) -> u64 {
        let passed = self.begun.elapsed().as_millis() as i64;
        (1_800_000_000_000 + passed + *self.jump_ms.lock()) as u64
    }
}

/// Cycles seconds apart, and no limit on rates.
const POLICY: PolicyView = PolicyView {
    min_interval_ms: 1_000,
    max_interval_ms: 4_000,
    limit: None,
    windows: Vec::new(),
    scrub_interval_ms: None,
    scrub_rate: None,
};

/// Everything that outlives a process.
struct World {
    rng: Rng,
    entropy: Rng,
    disk: ModelDisk,
    medium: Medium,
    agent_files: Files,
    hydrator_files: Files,
    /// A second hydrator's, whose machine was once cloned from the first's; `None` in seeds that have no such.
    twins_files: Option<Files>,
    /// Chance for policies with limits on rates; `None` in seeds that have no such.
    limits: Option<Rng>,
    /// Chance for writes that the tracking does not see, and says so; `None` in seeds that have no such.
    blind: Option<Rng>,
    /// Chance for a source that grows; `None` in seeds that have no such.
    growth: Option<Rng>,
    /// Chance for an appliance whose machine is put back to a snapshot; `None` in seeds that have no such.
    put_back: Option<Rng>,
    /// The appliance's database as the newest snapshot has it.
    appliances_backup: Mutex<Option<MemoryRepository>>,
    /// The agent's state as the newest snapshot has it.
    backup: Arc<Mutex<Option<Files>>>,
    /// The agent's state before an older one was put in its place that is of another generation.
    newest: Mutex<Option<Files>>,
    unflushed: Unflushed,
    objects: Arc<MemoryStore>,
    repository: Arc<MemoryRepository>,
    odds: Arc<Mutex<Odds>>,
    checker: Checker,
    data_key: DataKey,
    hydrator_key: Arc<HydratorKey>,
    agents_way: Running<LocalAgent>,
    hydrators_way: Running<LocalHydrator>,
    operators_way: Running<LocalOperator>,
    /// The hydrator that runs now.
    hydrators_life: Mutex<Option<Life>>,
    clock: Arc<SimClock>,
    /// True while processes are killed.
    stormy: Arc<Mutex<bool>>,
    /// What a segment holds: in most seeds so little that a cycle has several, as a large disk's has.
    segment_bytes: usize,
    /// Segments that the appliance tells an agent of at once: in half of the seeds so few that it is asked again.
    told_max: NonZeroUsize,
}

/// Runs one seed on a runtime of its own.
pub fn run(seed: u64) -> Judgement {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        // The world is made inside of the runtime: outside of it time is the real one, and when in a millisecond the
        // simulated clock began would be another in each run.
        Ok(runtime) => runtime.block_on(async { World::new(seed).play().await }),
        Err(error) => Judgement { violations: vec![format!("no runtime: {error}")], ..Judgement::default() },
    }
}

/// Runs one seed twice; that both runs have one trace is one more promise.
pub fn run_twice(seed: u64) -> Judgement {
    let (mut first, second) = (run(seed), run(seed));
    if first != second {
        let traces = format!("two runs, two traces: {} and {}", first.trace, second.trace);
        first.violations.push(traces);
    }
    first
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let rng = Rng::new(seed, 1);
        let disk = ModelDisk::new(600 + rng.below(9_000), &rng);
        let twins_files = Rng::new(seed, 9).once_in(4).then(Files::default);
        // What a person does to a device shows only in a scrub.
        let device = Rng::new(seed, 8).once_in(4);
        // Two machines that have one disk, as in a cluster, don't see each other's locks.
        let shared = Rng::new(seed, 12).once_in(2);
        let medium = Medium::new(device, shared);
        let (agent_files, data_key) = (Files::default(), DataKey::new([7; 32]));
        let hydrator_files = Files::default();
        let hydrators = std::iter::once(&hydrator_files).chain(&twins_files).cloned().collect();
        let checker = Checker::new(disk.clone(), medium.clone(), agent_files.clone(), hydrators, data_key.clone());
        let hydrator_key = HydratorKey::generate().expect("key pair");
        let clock = SimClock { begun: Instant::now(), jump_ms: Arc::default() };
        let (limits, growth, put_back) = (Rng::new(seed, 3), Rng::new(seed, 6), Rng::new(seed, 7));
        let (blind, first) = (Rng::new(seed, 10), odds(&rng, twins_files.is_some() && shared));
        // A first copy is few writes: in some seeds it goes to a target that lies all the time.
        let first_lies = Rng::new(seed, 11).once_in(6).then_some(12);
        Arc::new(Self {
            entropy: Rng::new(seed, 2),
            odds: Arc::new(Mutex::new(Odds { target_lies: first_lies.unwrap_or(first.target_lies), ..first })),
            disk,
            medium,
            agent_files,
            hydrator_files,
            twins_files,
            limits: limits.once_in(3).then_some(limits),
            blind: blind.once_in(3).then_some(blind),
            growth: growth.once_in(3).then_some(growth),
            put_back: put_back.once_in(3).then_some(put_back),
            appliances_backup: Mutex::default(),
            backup: Arc::default(),
            newest: Mutex::default(),
            unflushed: Unflushed::default(),
            objects: Arc::default(),
            repository: Arc::new(MemoryRepository::new()),
            checker,
            data_key,
            hydrator_key: Arc::new(hydrator_key),
            agents_way: Running::default(),
            hydrators_way: Running::default(),
            operators_way: Running::default(),
            hydrators_life: Mutex::default(),
            clock: Arc::new(clock),
            stormy: Arc::new(Mutex::new(true)),
            segment_bytes: [1, 500_000, SEGMENT_BYTES_TARGET][Rng::new(seed, 4).below(3) as usize],
            told_max: if Rng::new(seed, 5).once_in(2) { NonZeroUsize::MIN } else { SEGMENTS_TOLD_MAX },
            rng,
        })
    }

    /// Storm, calm, rest; then the judgement.
    async fn play(self: Arc<Self>) -> Judgement {
        let (stop_writes, writes) = watch::channel(false);
        let writers: Vec<_> = (0..3)
            .map(|i| (self.disk.clone(), Rng::new(self.rng.next(), i), self.blind.clone(), writes.clone()))
            .map(|(disk, rng, blind, stop)| tokio::spawn(workload(disk, rng, blind, stop)))
            .collect();
        let mut nodes = vec![
            tokio::spawn(self.clone().keep_alive("appliance", Self::appliance)),
            tokio::spawn(self.clone().keep_alive("agent", Self::agent)),
            tokio::spawn(self.clone().keep_alive("hydrator", Self::hydrator)),
        ];
        if self.twins_files.is_some() {
            nodes.push(tokio::spawn(self.clone().keep_alive("twin", Self::twin)));
        }
        self.storm(Duration::from_secs(20 + self.rng.below(60))).await;
        *self.stormy.lock() = false;
        *self.odds.lock() = Odds::default();
        self.checker.note("calm");
        self.set_policy(POLICY).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop_writes.send_replace(true);
        for writer in writers {
            if writer.await.is_err() {
                self.checker.violation("a writer panicked");
            }
        }
        self.await_equality().await;
        if self.rng.once_in(2) {
            self.cut_over().await;
        }
        nodes.iter().for_each(JoinHandle::abort);
        // Whoever drew another number on the way does so here, too: two runs can't differ and have one trace.
        self.checker.note(&format!("chance {:x} {:x}", self.rng.next(), self.entropy.next()));
        Judgement {
            twins: self.twins_files.is_some(),
            limits: self.limits.is_some(),
            grows: self.growth.is_some(),
            blind: self.blind.is_some(),
            put_back: self.put_back.is_some(),
            device: self.medium.is_device(),
            ..self.checker.judgement()
        }
    }

    /// The operator's policy, again and again until the appliance has it.
    async fn set_policy(&self, policy: PolicyView) {
        for _ in 0..PATIENCE.as_secs() {
            let operator = self.operators_way.lock().clone();
            if let Some((operator, life)) = operator
                && !life.is_dead()
                && life.lives_through(operator.set_policy(policy.clone())).await.is_some_and(|set| set.is_ok())
            {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.checker.violation("the policy could not be set within an hour");
    }

    /// The final cycle of a source at rest must prove both disks equal by their digests.
    async fn cut_over(&self) {
        for _ in 0..PATIENCE.as_secs() {
            let operator = self.operators_way.lock().clone();
            if let Some((operator, life)) = operator {
                // Ordered again and again, as an operator whose screen shows nothing would.
                let _ = life.lives_through(operator.order_final(DISK, true)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.checker.finals() > 0 {
                return;
            }
        }
        self.checker.violation("no final cycle was verified within an hour of a source at rest");
    }

    /// Nothing is written any more: the target must become what the source is.
    async fn await_equality(&self) {
        let source = self.disk.values();
        for _ in 0..PATIENCE.as_secs() * 2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.checker.proven().as_ref() == Some(&source) {
                if self.medium.values() != source {
                    self.checker.violation("the target is no longer what was proven, and nobody has said so");
                }
                return;
            }
        }
        let proven = self.checker.proven().unwrap_or_default();
        let different = source.iter().zip(&proven).filter(|(a, b)| a != b).count();
        let held: Vec<Option<u64>> = self.medium.contents().chunks(512).map(value_of).collect();
        let wrong = source.iter().zip(&held).filter(|(a, b)| Some(**a) != **b).count();
        self.checker.violation(format!(
            "no progress: an hour after the faults stopped {different} of {} sectors are not proven ({wrong} wrong)",
            source.len()
        ));
    }

    /// Starts a process again and again, until nobody kills it any more.
    async fn keep_alive(self: Arc<Self>, name: &'static str, start: fn(&Arc<Self>, Life) -> JoinHandle<()>) {
        loop {
            let stormy = *self.stormy.lock();
            if !stormy && name == "twin" {
                // Two that both believe they own the target are one of the faults.
                return;
            }
            let operations = (stormy && self.rng.once_in(2)).then(|| self.rng.below(120));
            let life = Life::new(operations, Rng::new(self.rng.next(), 9));
            self.checker.note(&format!("{name} starts"));
            if name == "hydrator" {
                *self.hydrators_life.lock() = Some(life.clone());
            }
            let mut task = start(&self, life.clone());
            let killed_at = match stormy {
                true => Duration::from_millis(500) + self.rng.pause(20_000),
                false => Duration::from_secs(1 << 30),
            };
            let ended = tokio::select! {
                biased;
                () = life.ended() => None,
                ended = &mut task => Some(ended),
                () = tokio::time::sleep(killed_at) => None,
            };
            life.kill();
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    task.abort();
                    task.await
                }
            };
            if let Err(error) = ended
                && error.is_panic()
            {
                self.checker.violation(format!("{name} panicked: {error}"));
            }
            self.checker.note(&format!("{name} is dead"));
            self.aftermath(name);
            tokio::time::sleep(Duration::from_millis(10) + self.rng.pause(3_000)).await;
        }
    }
}
