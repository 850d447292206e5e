//! The network: requests and answers are lost, doubled, late and out of order, and peers die in the middle.

use crate::check::Checker;
use crate::life::{Life, Step};
use crate::machine::Odds;
use crate::rng::Rng;
use crate::target::Machine;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_appliance::service::{LocalAgent, LocalHydrator};
use sluice_client::{AgentApi, ApiError, ApiResult, HydratorApi};
use sluice_proto::wire::{
    AppliedRequest, ClaimReply, DiskStatus, GiveUp, Lease, NextReply, NextRequest, OpenReply, OpenRequest, Outcome,
    RegisterRequest, StoredSegment, Verdict, VerdictRequest, WorkReply, WorkRequest,
};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::future::Future;
use std::sync::Arc;

/// How long a request is on its way at most, in milliseconds, whose sender has long given up: longer than any of them waits.
const LATE_MS_MAX: u64 = 90_000;

/// The appliance that runs now, and its life.
pub type Running<T> = Arc<Mutex<Option<(T, Life)>>>;

/// A client's way to the appliance.
#[derive(Clone)]
pub struct Wire<T: Clone> {
    /// The appliance.
    pub peer: Running<T>,
    /// The client's process.
    pub life: Life,
    /// Chance.
    pub rng: Rng,
    /// How often things go wrong.
    pub odds: Arc<Mutex<Odds>>,
    /// Who watches.
    pub checker: Checker,
    /// On which of the target's machines the client runs, where it is a hydrator.
    pub machine: Machine,
}

impl<T: Clone + Send + Sync + 'static> Wire<T> {
    fn lost(&self) -> ApiError {
        ApiError::Unreachable { appliance: "sim".into(), detail: "simulated".into() }
    }

    async fn call<R, F>(&self, call: impl Fn(T) -> F + Send + 'static) -> ApiResult<R>
    where
        R: Send + 'static,
        F: Future<Output = ApiResult<R>> + Send + 'static,
    {
        if self.life.step() != Step::Go {
            std::future::pending::<()>().await;
        }
        let odds = *self.odds.lock();
        tokio::time::sleep(self.rng.pause(20)).await;
        let Some((peer, life)) = self.peer.lock().clone() else { return Err(self.lost()) };
        if self.rng.once_in(odds.request_lost) {
            return Err(self.lost());
        }
        if self.rng.once_in(odds.late) {
            self.arrives_later(call);
            return Err(self.lost());
        }
        if self.rng.once_in(odds.doubled) {
            tokio::select! {
                biased;
                () = life.ended() => return Err(self.lost()),
                _ = call(peer.clone()) => {}
            }
        }
        let answer = tokio::select! {
            biased;
            () = life.ended() => return Err(self.lost()),
            answer = call(peer) => answer,
        };
        tokio::time::sleep(self.rng.pause(20)).await;
        if self.rng.once_in(odds.answer_lost) {
            return Err(self.lost());
        }
        self.life.or_never().await;
        answer
    }

    /// Somebody between the two holds a request back: its sender takes it for lost and goes on, and whichever appliance
    /// runs by then gets it behind all that was said meanwhile, also where the sender is dead.
    fn arrives_later<R, F>(&self, call: impl Fn(T) -> F + Send + 'static)
    where
        R: Send + 'static,
        F: Future<Output = ApiResult<R>> + Send + 'static,
    {
        let (pause, peer) = (self.rng.pause(LATE_MS_MAX), self.peer.clone());
        tokio::spawn(async move {
            // sleep: simulated time.
            tokio::time::sleep(pause).await;
            let now_running = peer.lock().clone();
            if let Some((peer, life)) = now_running {
                life.lives_through(call(peer)).await;
            }
        });
    }
}

#[async_trait]
impl AgentApi for Wire<LocalAgent> {
    async fn register(&self, disk: DiskId, request: RegisterRequest) -> ApiResult<DiskStatus> {
        let checker = self.checker.clone();
        self.call(move |peer| {
            let (request, checker) = (request.clone(), checker.clone());
            async move {
                let envelope = request.envelope.clone();
                // Also where nobody hears of it.
                peer.register(disk, request).await.inspect(|_| checker.registered(envelope))
            }
        })
        .await
    }
    async fn next(&self, disk: DiskId, request: NextRequest) -> ApiResult<NextReply> {
        let reply = self.call(move |peer| {
            let request = request.clone();
            async move { peer.next(disk, request).await }
        });
        let reply = reply.await;
        let verdict = reply.as_ref().ok().and_then(|reply| reply.verdict.as_ref());
        verdict.into_iter().for_each(|verdict| self.checker.ended(verdict.cycle()));
        if let Some(Verdict::Verified { manifest, .. }) = verdict {
            self.checker.hears_verified(*manifest);
        }
        reply
    }
    async fn open(&self, disk: DiskId, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply> {
        let (checker, life) = (self.checker.clone(), self.life.clone());
        self.call(move |peer| {
            let (request, checker, sender_is_dead) = (request.clone(), checker.clone(), life.is_dead());
            async move { peer.open(disk, cycle, request).await.inspect(|_| checker.opened(cycle, sender_is_dead)) }
        })
        .await
    }
    async fn put_segment(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> ApiResult<StoredSegment> {
        self.checker.shipping(cycle, name, &bytes);
        let odds = *self.odds.lock();
        if self.rng.once_in(odds.cut) {
            let part = bytes.slice(..self.rng.below(bytes.len() as u64) as usize);
            let name = name.to_owned();
            let taken = self.call(move |peer| {
                let (name, part) = (name.clone(), part.clone());
                async move { peer.put_segment(disk, cycle, generation, &name, part).await }
            });
            if taken.await.is_ok() {
                self.checker.violation(format!("{cycle:?}: a segment of which a part arrived was taken for whole"));
            }
            return Err(self.lost());
        }
        let name = name.to_owned();
        self.call(move |peer| {
            let (name, bytes) = (name.clone(), bytes.clone());
            async move { peer.put_segment(disk, cycle, generation, &name, bytes).await }
        })
        .await
    }
    async fn commit(&self, disk: DiskId, cycle: CycleNo, generation: Generation, manifest: Bytes) -> ApiResult<()> {
        self.checker.committed(cycle, &manifest);
        self.call(move |peer| {
            let manifest = manifest.clone();
            async move { peer.commit(disk, cycle, generation, manifest).await }
        })
        .await
    }
    async fn give_up(&self, disk: DiskId, cycle: CycleNo, request: GiveUp) -> ApiResult<()> {
        self.call(move |peer| {
            let request = request.clone();
            async move { peer.give_up(disk, cycle, request).await }
        })
        .await
    }
    async fn digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> ApiResult<Option<Bytes>> {
        self.call(move |peer| async move { peer.digests(disk, cycle, generation, part, wait_ms).await }).await
    }
}

#[async_trait]
impl HydratorApi for Wire<LocalHydrator> {
    async fn work(&self, request: WorkRequest) -> ApiResult<WorkReply> {
        self.call(move |peer| {
            let request = request.clone();
            async move { peer.work(request).await }
        })
        .await
    }
    async fn claim(&self, disk: DiskId, cycle: CycleNo, generation: Generation) -> ApiResult<ClaimReply> {
        let (checker, machine) = (self.checker.clone(), self.machine);
        self.call(move |peer| {
            let checker = checker.clone();
            async move {
                // Also where nobody hears of it.
                peer.claim(disk, cycle, generation).await.inspect(|claim| checker.is_claimed(machine, claim.lease))
            }
        })
        .await
    }
    async fn check_lease(&self, disk: DiskId, cycle: CycleNo, generation: Generation, lease: Lease) -> ApiResult<()> {
        self.call(move |peer| async move { peer.check_lease(disk, cycle, generation, lease).await }).await
    }
    async fn applied(&self, disk: DiskId, cycle: CycleNo, request: AppliedRequest) -> ApiResult<()> {
        self.call(move |peer| {
            let request = request.clone();
            async move { peer.applied(disk, cycle, request).await }
        })
        .await
    }
    async fn verdict(&self, disk: DiskId, cycle: CycleNo, request: VerdictRequest) -> ApiResult<()> {
        let seen = match (&request.outcome, request.manifest) {
            (Outcome::Verified { .. }, Some(manifest)) => {
                Some(self.checker.says_verified(cycle, manifest, request.lease))
            }
            _ => None,
        };
        let checker = self.checker.clone();
        self.call(move |peer| {
            let (request, seen, checker) = (request.clone(), seen.clone(), checker.clone());
            async move {
                seen.iter().for_each(|seen| checker.is_told(seen));
                // Also where nobody hears of it.
                peer.verdict(disk, cycle, request)
                    .await
                    .inspect(|()| seen.into_iter().for_each(|seen| checker.is_verified(seen)))
            }
        })
        .await
    }
    async fn put_digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        bytes: Bytes,
    ) -> ApiResult<()> {
        self.call(move |peer| {
            let bytes = bytes.clone();
            async move { peer.put_digests(disk, cycle, generation, part, bytes).await }
        })
        .await
    }
}
