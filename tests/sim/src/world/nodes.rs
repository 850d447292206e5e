//! The processes: the product's own, on simulated machines.

use super::faults::ledger_of;
use super::{DISK, World};
use crate::life::Life;
use crate::machine::{Files, SimRecords, SimStore, Snapshots};
use crate::net::{Running, Wire};
use crate::repository::SimRepository;
use crate::source::{SimSource, SimTracker};
use crate::target::{Machine, SimTargets};
use sluice_agent::Workers;
use sluice_agent::capture::{Capture, CaptureOptions};
use sluice_agent::disk::{DiskAgent, DiskError};
use sluice_agent::journal::{Identity, Journal};
use sluice_appliance::service::{LocalAgent, LocalHydrator, LocalOperator, Ports, Service, Settings};
use sluice_appliance::throttle::{Limits, Throttle};
use sluice_client::AgentApi;
use sluice_hydrator::progress::Progress;
use sluice_hydrator::spool::Spool;
use sluice_hydrator::{Compute, Environment, Hydrator};
use sluice_proto::Generation;
use sluice_proto::env::Entropy;
use sluice_proto::keys::{KeyEnvelope, SigningKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

impl World {
    fn store(&self, life: &Life) -> Arc<SimStore> {
        Arc::new(SimStore {
            objects: self.objects.clone(),
            life: life.clone(),
            rng: self.rng.clone(),
            odds: self.odds.clone(),
        })
    }

    pub(super) fn appliance(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        let world = self.clone();
        tokio::spawn(async move {
            let ports = Ports {
                repository: Arc::new(SimRepository {
                    inner: world.repository.clone(),
                    life: life.clone(),
                    unflushed: world.unflushed.clone(),
                }),
                store: world.store(&life),
                clock: world.clock.clone(),
                throttle: Throttle::new(Limits::default(), world.clock.clone()),
            };
            let settings =
                Settings { policy: world.first_policy(), segments_told_max: world.told_max, ..Settings::default() };
            match Service::start(ports, settings).await {
                Ok(service) => {
                    let agent = LocalAgent::new(service.clone(), "agent".parse().expect("a name"));
                    let hydrator = LocalHydrator::new(service.clone(), "hydrator".parse().expect("a name"));
                    let operator = LocalOperator::new(service, "operator".parse().expect("a name"));
                    *world.agents_way.lock() = Some((agent, life.clone()));
                    *world.hydrators_way.lock() = Some((hydrator, life.clone()));
                    *world.operators_way.lock() = Some((operator, life.clone()));
                    life.ended().await;
                }
                Err(error) => tracing::debug!(%error, "the appliance did not start"),
            }
        })
    }

    fn wire<T: Clone>(&self, peer: &Running<T>, life: &Life, machine: Machine) -> Wire<T> {
        Wire {
            peer: peer.clone(),
            life: life.clone(),
            rng: self.rng.clone(),
            odds: self.odds.clone(),
            checker: self.checker.clone(),
            machine,
        }
    }

    pub(super) fn agent(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        let world = self.clone();
        tokio::spawn(async move {
            let (_keep, stop) = watch::channel(false);
            loop {
                let agent = match world.make_agent(&life, stop.clone()) {
                    Ok(agent) => agent,
                    Err(error) => return tracing::debug!(error, "the agent did not start"),
                };
                match agent.run().await {
                    Err(DiskError::Grown { .. }) if !life.is_dead() => {
                        world.checker.note("the agent opens a disk that has grown");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Err(error) if !life.is_dead() => return world.gave_up(&error),
                    _ => return,
                }
            }
        })
    }

    fn gave_up(&self, error: &DiskError) {
        match self.newest.lock().take() {
            // A state of an old generation is refused for good, until the admin puts the newest one back.
            Some(newest) => {
                self.checker.note("the newest state is put back");
                self.agent_files.restore(&newest);
                self.checker.agent_is_changed();
                if let Some(made) = newest.made {
                    self.disk.recall_swaps_until(made);
                }
                *self.backup.lock() = None;
            }
            None => self.checker.violation(format!("the agent gave up: {error}")),
        }
    }

    fn make_agent(&self, life: &Life, stop: watch::Receiver<bool>) -> Result<DiskAgent, String> {
        let snapshots = Some(Snapshots { newest: self.backup.clone(), rng: self.rng.clone() });
        let (files, checker) = (self.agent_files.clone(), Some(self.checker.clone()));
        let records = Box::new(SimRecords { files, life: life.clone(), snapshots, checker });
        let signer = SigningKey::from_seed(&[3; 32]);
        let size = self.disk.sectors().bytes();
        let journal = match Journal::open(records).map_err(|e| e.to_string())? {
            Ok(mut journal) => {
                if journal.identity().size < size {
                    let (key, envelope) = self.next_key(&journal)?;
                    let grown = journal.grow(size, &key, envelope);
                    self.checker.agent_is_changed();
                    grown.map_err(|e| e.to_string())?;
                }
                journal
            }
            Err(records) => {
                let envelope =
                    KeyEnvelope::wrap(&self.data_key, DISK, Generation(1), self.hydrator_key.public(), &signer)
                        .map_err(|e| e.to_string())?;
                let identity = Identity::new(DISK, size, &self.data_key, envelope);
                Journal::create(records, identity).map_err(|e| e.to_string())?
            }
        };
        let (disk, checker, epoch) = (self.disk.clone(), self.checker.clone(), journal.identity().epoch);
        let (tracker, doubt) = SimTracker::attach(disk, life.clone(), checker, epoch);
        let source = Arc::new(SimSource {
            disk: self.disk.clone(),
            size,
            life: life.clone(),
            rng: self.rng.clone(),
            read_errors: self.odds.lock().source_errors,
        });
        let api: Arc<dyn AgentApi> = Arc::new(self.wire(&self.agents_way, life, Machine::First));
        let entropy: Arc<dyn Entropy> = Arc::new(self.entropy.clone());
        let options = CaptureOptions { segment_bytes: self.segment_bytes, ..CaptureOptions::default() };
        let capture = Capture::new(source, api, Workers::inline(), entropy, options);
        DiskAgent::new(capture, Box::new(tracker), doubt, journal, None, stop).map_err(|e| e.to_string())
    }

    pub(super) fn hydrator(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        self.hydrator_with(life, Machine::First, &self.hydrator_files)
    }

    /// The machine that was cloned from the hydrator's: it has its key, its certificate, and a state of its own, which now
    /// and then is a copy of the first's again.
    pub(super) fn twin(self: &Arc<Self>, life: Life) -> JoinHandle<()> {
        let Some(files) = &self.twins_files else { return tokio::spawn(async {}) };
        let has_target = |files: &Files| ledger_of(files).is_some_and(|l| l.target.is_some_and(|target| target.made));
        if has_target(&self.hydrator_files) && (self.medium.is_shared() || self.rng.once_in(2) || !has_target(files)) {
            files.restore(&self.hydrator_files);
        }
        match has_target(files) {
            true => self.hydrator_with(life, Machine::Twin, files),
            // Whoever made the target would be its only owner.
            false => tokio::spawn(async move { life.ended().await }),
        }
    }

    fn hydrator_with(self: &Arc<Self>, life: Life, machine: Machine, files: &Files) -> JoinHandle<()> {
        let store = self.store(&life);
        let environment = Environment {
            spool: Spool::new(store.clone(), None),
            store,
            key: self.hydrator_key.clone(),
            targets: Arc::new(SimTargets {
                medium: self.medium.clone(),
                machine,
                files: files.clone(),
                life: life.clone(),
                rng: self.rng.clone(),
                odds: self.odds.clone(),
                checker: self.checker.clone(),
            }),
            entropy: Arc::new(self.entropy.clone()),
            compute: Compute::Inline,
            progress: Progress::default(),
            allow_plain: false,
            budget: sluice_hydrator::Budget::default(),
        };
        let api = Arc::new(self.wire(&self.hydrators_way, &life, machine));
        tokio::spawn(async move {
            let (keep, stop) = watch::channel(false);
            Hydrator::new(environment, api).run(stop).await;
            drop(keep);
        })
    }
}
