//! What an operator sees of a cluster and tells it, over HTTPS with a certificate of his own.

use crate::program::PATIENCE;
use sluice_client::{AgentApi, ApiResult, ClientFiles, ClientOptions, HttpsClient, OperatorApi};
use sluice_proto::cycle::State;
use sluice_proto::disk::State as Phase;
use sluice_proto::keys::KeyEnvelope;
use sluice_proto::wire::{CycleView, DiskView, PolicyView, RegisterRequest};
use sluice_proto::{DiskId, Generation};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Between two looks. Short: some states of a cycle last for milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// An operator of one appliance, who waits patiently while it is down.
pub struct Operator {
    runtime: Runtime,
    client: HttpsClient,
    endpoint: String,
}

impl Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operator")
    }
}

impl Operator {
    pub(super) fn new(endpoint: &str, files: &ClientFiles) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = HttpsClient::new(endpoint, files, ClientOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        Self { runtime, client, endpoint: endpoint.to_owned() }
    }

    /// Waits until the appliance answers.
    pub fn wait_ready(&self) {
        self.wait("the appliance answers", || async { self.client.health().await.map(Some) });
    }

    /// All disks.
    pub fn disks(&self) -> Vec<DiskView> {
        self.wait("disks are told", || async { self.client.disks().await.map(Some) })
    }

    /// The only disk, once it is registered.
    pub fn only_disk(&self) -> DiskId {
        self.wait("a disk is registered", || async { Ok(self.client.disks().await?.first().map(|view| view.disk)) })
    }

    /// The newest cycles of a disk, newest first.
    pub fn cycles(&self, disk: DiskId) -> Vec<CycleView> {
        self.wait("cycles are told", || async { self.client.cycles(disk, 1000).await.map(Some) })
    }

    /// Waits until the newest cycle of `disk` is one from which `take` makes something.
    pub fn wait_cycle<T>(&self, disk: DiskId, what: &str, take: impl Fn(&CycleView) -> Option<T>) -> T {
        let take = &take;
        self.wait(what, || async move { Ok(self.client.cycles(disk, 1).await?.first().and_then(take)) })
    }

    /// Waits for a verified cycle that is later than `after`. Panics at a cycle that failed.
    pub fn wait_verified(&self, disk: DiskId, after: u64) -> CycleView {
        self.wait_end(disk, after, |view| {
            assert_ne!(view.state, State::Failed, "{view:?}");
            true
        })
    }

    /// Waits for a verified cycle that is later than `after`, whatever fails on the way.
    pub fn wait_verified_at_last(&self, disk: DiskId, after: u64) -> CycleView {
        self.wait_end(disk, after, |view| view.state == State::Verified)
    }

    fn wait_end(&self, disk: DiskId, after: u64, wanted: impl Fn(&CycleView) -> bool) -> CycleView {
        let wanted = &wanted;
        self.wait(&format!("a cycle after {after} is verified"), || async move {
            let cycles = self.client.cycles(disk, 50).await?;
            let mut ended = cycles.into_iter().rev().filter(|view| view.cycle.0 > after && view.state.is_end());
            Ok(ended.find(|view| wanted(view)))
        })
    }

    /// Waits until `disk` is in `phase`.
    pub fn wait_phase(&self, disk: DiskId, phase: Phase) -> DiskView {
        self.wait(&format!("the disk is {phase:?}"), || async move {
            let views = self.client.disks().await?;
            Ok(views.into_iter().find(|view| view.disk == disk && view.phase == phase))
        })
    }

    /// Waits until so many disks are registered.
    pub fn wait_disks(&self, count: usize) -> Vec<DiskView> {
        self.wait(&format!("{count} disks are registered"), || async move {
            Ok(Some(self.client.disks().await?).filter(|views| views.len() >= count))
        })
    }

    /// Orders the next cycle now.
    pub fn sync_now(&self, disk: DiskId) {
        self.wait("a cycle is ordered", || async { self.client.sync_now(disk).await.map(Some) });
    }

    /// Orders the final cycle.
    pub fn order_final(&self, disk: DiskId) {
        self.wait("the final cycle is ordered", || async { self.client.order_final(disk, true).await.map(Some) });
    }

    /// The policy in force.
    pub fn policy(&self) -> PolicyView {
        self.wait("the policy is told", || async { self.client.policy().await.map(Some) })
    }

    /// Puts a policy in force: pauses between deltas, in milliseconds, and the limit, such as `8Mbit/s`.
    pub fn set_policy(&self, interval_ms: u64, limit: Option<&str>) {
        let policy = PolicyView {
            min_interval_ms: interval_ms,
            max_interval_ms: interval_ms,
            limit: limit.map(str::to_owned),
            ..self.policy()
        };
        self.wait("a policy is set", || async { self.client.set_policy(policy.clone()).await.map(Some) });
    }

    /// Registers a generation of a known disk as the agent whose certificate is in `files`.
    pub(super) fn register(&self, files: &ClientFiles, disk: DiskId, generation: Generation, envelope: KeyEnvelope) {
        let known = self.disks().into_iter().find(|view| view.disk == disk).expect("a known disk");
        let agent = HttpsClient::new(&self.endpoint, files, ClientOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let request = RegisterRequest { name: known.name, size: known.size, logical_sector: 512, generation, envelope };
        let (agent, request) = (&agent, &request);
        self.wait(
            "a generation is registered",
            || async move { agent.register(disk, request.clone()).await.map(Some) },
        );
    }

    /// Asks until there is an answer. Only an appliance that is down, or busy for now, is asked again.
    fn wait<T, F: Future<Output = ApiResult<Option<T>>>>(&self, what: &str, ask: impl Fn() -> F) -> T {
        self.runtime.block_on(async {
            let end = Instant::now() + PATIENCE;
            loop {
                let last = match ask().await {
                    Ok(Some(answer)) => return answer,
                    Ok(None) => "not yet".to_owned(),
                    Err(error) if error.may_pass() => error.to_string(),
                    Err(error) => panic!("until {what}: {error}"),
                };
                assert!(Instant::now() < end, "waited {PATIENCE:?} until {what}: {last}");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }
}
