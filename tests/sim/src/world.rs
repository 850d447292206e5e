//! A whole run: three processes that die and come back, a disk that is written, faults, then calm; and the judgement.

use crate::check::{Checker, Judgement};
use crate::life::Life;
use crate::machine::{Files, Objects, Odds, SimRecords, SimStore};
use crate::net::{Running, Wire};
use crate::repository::SimRepository;
use crate::rng::Rng;
use crate::source::{ModelDisk, SimSource, SimTracker, value_of, workload};
use crate::target::{Medium, SimTargets};
use parking_lot::Mutex;
use sluice_agent::Workers;
use sluice_agent::capture::{Capture, CaptureOptions};
use sluice_agent::disk::DiskAgent;
use sluice_agent::journal::{Identity, Journal};
use sluice_appliance::repository::MemoryRepository;
use sluice_appliance::service::{LocalAgent, LocalHydrator, Ports, Service, Settings};
use sluice_appliance::throttle::{Limits, Throttle};
use sluice_client::AgentApi;
use sluice_hydrator::progress::Progress;
use sluice_hydrator::spool::Spool;
use sluice_hydrator::{Compute, Environment, Hydrator};
use sluice_proto::env::{Clock, Entropy};
use sluice_proto::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use sluice_proto::wire::PolicyView;
use sluice_proto::{DiskId, Generation};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

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

/// Everything that outlives a process.
struct World {
    rng: Rng,
    entropy: Rng,
    disk: ModelDisk,
    medium: Medium,
    agent_files: Files,
    hydrator_files: Files,
    objects: Objects,
    repository: Arc<MemoryRepository>,
    odds: Arc<Mutex<Odds>>,
    checker: Checker,
    data_key: DataKey,
    hydrator_key: Arc<HydratorKey>,
    agents_way: Running<LocalAgent>,
    hydrators_way: Running<LocalHydrator>,
    clock: Arc<SimClock>,
    /// True while processes are killed.
    stormy: Arc<Mutex<bool>>,
    suite: sluice_proto::header::Suite,
}

/// Runs one seed on a runtime of its own.
pub fn run(seed: u64) -> Judgement {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(World::new(seed).play()),
        Err(error) => Judgement {
            violations: vec![format!("no runtime: {error}")],
            verified: 0,
            crash_consistent: 0,
            trace: String::new(),
        },
    }
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let rng = Rng::new(seed, 1);
        let disk = ModelDisk::new(600 + rng.below(9_000), &rng);
        let (medium, agent_files, data_key) = (Medium::default(), Files::default(), DataKey::new([7; 32]));
        let checker = Checker::new(disk.clone(), medium.clone(), agent_files.clone(), data_key.clone());
        let hydrator_key = HydratorKey::generate().expect("key pair");
        let clock = SimClock { begun: Instant::now(), jump_ms: Arc::default() };
        Arc::new(Self {
            entropy: Rng::new(seed, 2),
            odds: Arc::new(Mutex::new(odds(&rng))),
            rng,
            disk,
            medium,
            agent_files,
            hydrator_files: Files::default(),
            objects: Objects::default(),
            repository: Arc::new(MemoryRepository::new()),
            checker,
            data_key,
            hydrator_key: Arc::new(hydrator_key),
            agents_way: Running::default(),
            hydrators_way: Running::default(),
            clock: Arc::new(clock),
            stormy: Arc::new(Mutex::new(true)),
            suite: sluice_proto::header::Suite::Aes256Gcm,
        })
    }

    /// Storm, calm, rest; then the judgement.
    async fn play(self: Arc<Self>) -> Judgement {
        let (stop_writes, writes) = watch::channel(false);
        let writers: Vec<_> = (0..3)
            .map(|i| tokio::spawn(workload(self.disk.clone(), Rng::new(self.rng.next(), i), writes.clone())))
            .collect();
        let nodes = [
            tokio::spawn(self.clone().keep_alive("appliance", Self::appliance)),
            tokio::spawn(self.clone().keep_alive("agent", Self::agent)),
            tokio::spawn(self.clone().keep_alive("hydrator", Self::hydrator)),
        ];
        self.storm(Duration::from_secs(20 + self.rng.below(60))).await;
        *self.stormy.lock() = false;
        *self.odds.lock() = Odds::default();
        self.checker.note("calm");
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop_writes.send_replace(true);
        for writer in writers {
            if writer.await.is_err() {
                self.checker.violation("a writer panicked");
            }
        }
        self.await_equality().await;
        nodes.iter().for_each(JoinHandle::abort);
        self.checker.judgement()
    }

    /// What befalls the machines beside the deaths of processes.
    async fn storm(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(500) + self.rng.pause(8_000)).await;
            match self.rng.below(8) {
                0 => {
                    self.checker.note("clock jumps");
                    *self.clock.jump_ms.lock() = self.rng.below(7_200_000) as i64 - 3_600_000;
                }
                1 => {
                    self.checker.note("policy changes");
                    *self.odds.lock() = odds(&self.rng);
                }
                2 if self.rng.once_in(3) && self.target_rests() => {
                    self.checker.note("target tampered with");
                    self.medium.tamper(&self.rng);
                }
                _ => {}
            }
        }
    }

    /// True while the hydrator holds a fingerprint of the target. Who changes a target in the very moment in which it is
    /// written is found by a scrub, not by the next cycle.
    fn target_rests(&self) -> bool {
        let ledger = self.hydrator_files.records.lock().get("ledger").cloned().unwrap_or_default();
        let text = String::from_utf8_lossy(&ledger).into_owned();
        text.contains("\"is\":\"idle\"") && !text.contains("\"fingerprint\":null")
    }

    /// Nothing is written any more: the target must become what the source is.
    async fn await_equality(&self) {
        let source = self.disk.values();
        for _ in 0..7200 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.checker.proven().as_ref() == Some(&source) {
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
            let operations = (stormy && self.rng.once_in(2)).then(|| self.rng.below(120));
            let life = Life::new(operations, Rng::new(self.rng.next(), 9));
            self.checker.note(&format!("{name} starts"));
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

    /// What a process's death may take with it.
    fn aftermath(&self, name: &str) {
        match name {
            "appliance" => {
                *self.agents_way.lock() = None;
                *self.hydrators_way.lock() = None;
            }
            "hydrator" if self.rng.once_in(2) => self.medium.crash(&self.rng),
            "agent" if *self.stormy.lock() => match self.rng.below(12) {
                0 => {
                    self.checker.note("source machine reboots");
                    self.disk.reboot();
                }
                1 => self.rotate_key(),
                _ => {}
            },
            _ => {}
        }
    }

    /// The admin rotates the disk's data key while the agent is down.
    fn rotate_key(&self) {
        let life = Life::new(self.rng.once_in(4).then(|| self.rng.below(8)), Rng::new(self.rng.next(), 9));
        let records = Box::new(SimRecords { files: self.agent_files.clone(), life });
        let Ok(Ok(mut journal)) = Journal::open(records) else { return };
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        let (key, generation) = (DataKey::new(bytes), journal.identity().generation.next());
        let signer = SigningKey::from_seed(&[3; 32]);
        let Ok(envelope) =
            KeyEnvelope::wrap(&key, journal.identity().disk, generation, self.hydrator_key.public(), &signer)
        else {
            return;
        };
        // It may be cut off, like any other process.
        let done = journal.rotate(&key, envelope).is_ok();
        self.checker.note(&format!("key rotation to {generation:?}: {done}"));
        self.checker.new_key(generation, key);
    }

    fn store(&self, life: &Life) -> Arc<SimStore> {
        Arc::new(SimStore {
            objects: self.objects.clone(),
            life: life.clone(),
            rng: self.rng.clone(),
            odds: self.odds.clone(),
        })
    }

    fn appliance(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        let world = self.clone();
        tokio::spawn(async move {
            let policy = PolicyView { min_interval_ms: 1_000, max_interval_ms: 4_000, ..PolicyView::default() };
            let ports = Ports {
                repository: Arc::new(SimRepository { inner: world.repository.clone(), life: life.clone() }),
                store: world.store(&life),
                clock: world.clock.clone(),
                throttle: Throttle::new(Limits::default(), world.clock.clone()),
            };
            let settings = Settings { policy, ..Settings::default() };
            match Service::start(ports, settings).await {
                Ok(service) => {
                    let agent = LocalAgent::new(service.clone(), "agent".parse().expect("a name"));
                    let hydrator = LocalHydrator::new(service, "hydrator".parse().expect("a name"));
                    *world.agents_way.lock() = Some((agent, life.clone()));
                    *world.hydrators_way.lock() = Some((hydrator, life.clone()));
                    life.ended().await;
                }
                Err(error) => tracing::debug!(%error, "the appliance did not start"),
            }
        })
    }

    fn wire<T: Clone>(&self, peer: &Running<T>, life: &Life) -> Wire<T> {
        Wire {
            peer: peer.clone(),
            life: life.clone(),
            rng: self.rng.clone(),
            odds: self.odds.clone(),
            checker: self.checker.clone(),
        }
    }

    fn agent(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        let world = self.clone();
        tokio::spawn(async move {
            let (_keep, stop) = watch::channel(false);
            let agent = match world.make_agent(&life, stop) {
                Ok(agent) => agent,
                Err(error) => return tracing::debug!(error, "the agent did not start"),
            };
            if let Err(error) = agent.run().await
                && !life.is_dead()
            {
                world.checker.violation(format!("the agent gave up: {error}"));
            }
        })
    }

    fn make_agent(&self, life: &Life, stop: watch::Receiver<bool>) -> Result<DiskAgent, String> {
        let records = Box::new(SimRecords { files: self.agent_files.clone(), life: life.clone() });
        let disk = DiskId([1; 16]);
        let signer = SigningKey::from_seed(&[3; 32]);
        let journal = match Journal::open(records).map_err(|e| e.to_string())? {
            Ok(journal) => journal,
            Err(records) => {
                let envelope =
                    KeyEnvelope::wrap(&self.data_key, disk, Generation(1), self.hydrator_key.public(), &signer)
                        .map_err(|e| e.to_string())?;
                let identity = Identity::new(disk, self.disk.sectors().bytes(), &self.data_key, envelope);
                Journal::create(records, identity).map_err(|e| e.to_string())?
            }
        };
        let (tracker, doubt) = SimTracker::attach(self.disk.clone(), life.clone(), journal.identity().epoch);
        let source = Arc::new(SimSource {
            disk: self.disk.clone(),
            life: life.clone(),
            rng: self.rng.clone(),
            read_errors: self.odds.lock().source_errors,
        });
        let api: Arc<dyn AgentApi> = Arc::new(self.wire(&self.agents_way, life));
        let entropy: Arc<dyn Entropy> = Arc::new(self.entropy.clone());
        let options = CaptureOptions { suite: self.suite, ..CaptureOptions::default() };
        let capture = Capture::new(source, api, Workers::inline(), entropy, options);
        DiskAgent::new(capture, Box::new(tracker), doubt, journal, None, stop).map_err(|e| e.to_string())
    }

    fn hydrator(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        let store = self.store(&life);
        let environment = Environment {
            spool: Spool::new(store.clone(), None),
            store,
            key: self.hydrator_key.clone(),
            targets: Arc::new(SimTargets {
                medium: self.medium.clone(),
                files: self.hydrator_files.clone(),
                life: life.clone(),
                rng: self.rng.clone(),
                odds: self.odds.clone(),
            }),
            entropy: Arc::new(self.entropy.clone()),
            compute: Compute::Inline,
            progress: Progress::default(),
            allow_plain: false,
        };
        let api = Arc::new(self.wire(&self.hydrators_way, &life));
        tokio::spawn(async move {
            let (keep, stop) = watch::channel(false);
            Hydrator::new(environment, api).run(stop).await;
            drop(keep);
        })
    }
}

/// How a seed's faults are spread: some seeds are rough in one way only, some in all.
fn odds(rng: &Rng) -> Odds {
    let some = |range: u64| match rng.below(3) {
        0 => 0,
        1 => range,
        _ => range * 5,
    };
    Odds {
        store_refuses: some(20),
        store_answer_lost: some(20),
        store_full: some(60),
        read_flips: some(60),
        rot: some(80),
        request_lost: some(15),
        answer_lost: some(15),
        doubled: some(10),
        source_errors: some(200),
        target_errors: some(400),
        target_flips: some(600),
    }
}
