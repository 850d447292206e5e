//! One disk's task: claim, apply, report.

use super::Pause;
use crate::apply::{Claim, Environment, Failure, Report, Session, Stop};
use sluice_client::{ApiError, HydratorApi};
use sluice_proto::cycle::CycleKind;
use sluice_proto::wire::{AppliedRequest, ErrorCode, Lease, Outcome, VerdictRequest, Work};
use sluice_proto::{BlockNo, CycleNo, Digest, DiskId, Generation};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a disk is left to another hydrator that took it over. Each further time in the same cycle it is twice as long: of
/// two that both go on one must come to its end.
const LOST_PAUSE: Duration = Duration::from_secs(60);
/// The longest.
const LOST_PAUSE_MAX: Duration = Duration::from_secs(4 * 3600);
/// Applied segments of which the appliance may not know yet: a step's. It shows four times as many, so that there are
/// always some to go on with.
const UNTOLD_MAX: usize = 32;

/// What comes after a step.
enum Next {
    /// There may be more to do at once.
    Go,
    /// Nothing, until the work changes.
    Rest,
    /// The same again after a pause.
    Retry(String),
    /// The disk is another hydrator's now.
    Lost,
}

/// A verdict that the appliance does not have yet.
struct Pending {
    cycle: CycleNo,
    /// As the work named it.
    manifest: Option<Digest>,
    generation: Generation,
    lease: Lease,
    report: Report,
}

pub(super) struct DiskTask {
    environment: Environment,
    api: Arc<dyn HydratorApi>,
    disk: DiskId,
    session: Option<Session>,
    pending: Option<Pending>,
    /// The cycle whose verdict the appliance has.
    settled: Option<(CycleNo, Option<Digest>)>,
    /// The cycle for which the digests were delivered.
    compared: Option<CycleNo>,
    /// The newest claim.
    claimed: Option<Claim>,
    /// Segments of its cycle that were applied under that claim, and of which the appliance does not know it yet.
    untold: Vec<String>,
    /// Up to where the appliance was told under that claim that the cycle is applied.
    told: BlockNo,
    /// The cycle that was last lost to another hydrator, and how often before.
    lost: (Option<CycleNo>, u32),
}

impl DiskTask {
    pub fn new(environment: Environment, api: Arc<dyn HydratorApi>, disk: DiskId) -> Self {
        Self {
            environment,
            api,
            disk,
            session: None,
            pending: None,
            settled: None,
            compared: None,
            claimed: None,
            untold: Vec::new(),
            told: BlockNo(0),
            lost: (None, 0),
        }
    }

    /// Works until the hydrator ends.
    pub async fn run(mut self, mut work: watch::Receiver<Option<Work>>) {
        let mut pause = Pause::default();
        loop {
            let current = work.borrow_and_update().clone();
            let next = match &current {
                Some(current) => self.step(current).await,
                None => {
                    self.forget_ahead(None);
                    Next::Rest
                }
            };
            if !matches!(next, Next::Retry(_)) {
                self.environment.progress.gets_on(self.disk);
            }
            match next {
                Next::Go => pause.reset(),
                Next::Rest => {
                    pause.reset();
                    if work.changed().await.is_err() {
                        return;
                    }
                }
                Next::Retry(why) => {
                    tracing::warn!(disk = %self.disk, "{why}; trying again");
                    self.environment.progress.failed(self.disk, why);
                    tokio::select! {
                        biased;
                        changed = work.changed() => if changed.is_err() { return },
                        () = pause.wait() => {}
                    }
                }
                Next::Lost => {
                    tracing::warn!(disk = %self.disk, "another hydrator has taken this disk over; leaving it alone");
                    (self.session, self.claimed) = (None, None);
                    let pause = self.lost_again(current.map(|work| work.cycle));
                    tokio::time::sleep(LOST_PAUSE).await;
                    // Beyond that only for this cycle: the other may be gone.
                    let other_cycle = work.wait_for(|now| now.as_ref().map(|w| w.cycle) != self.lost.0);
                    drop(tokio::time::timeout(pause - LOST_PAUSE, other_cycle).await);
                }
            }
        }
    }

    /// Counts how often a cycle was lost to another hydrator; how long the disk is left to that one.
    fn lost_again(&mut self, cycle: Option<CycleNo>) -> Duration {
        let times = if self.lost.0 == cycle { self.lost.1 + 1 } else { 0 };
        self.lost = (cycle, times);
        LOST_PAUSE.saturating_mul(1 << times.min(10)).min(LOST_PAUSE_MAX)
    }

    fn forget_ahead(&mut self, but: Option<&Work>) {
        if let Some(session) = &mut self.session {
            session.forget_ahead(but);
        }
    }

    async fn step(&mut self, work: &Work) -> Next {
        self.forget_ahead(Some(work));
        if self.pending.as_ref().is_some_and(|p| (p.cycle, p.manifest) != (work.cycle, work.manifest)) {
            self.pending = None;
        }
        if self.pending.is_some() {
            return self.report(work).await;
        }
        if self.settled == Some((work.cycle, work.manifest)) {
            return Next::Rest;
        }
        if !work.digests_wanted {
            self.compared = None;
        }
        if self.session.is_none() {
            match Session::open(self.environment.clone(), work).await {
                Ok(session) => self.session = Some(session),
                Err(error) => return Next::Retry(error.to_string()),
            }
        }
        if work.manifest.is_some() {
            return self.apply(work).await;
        }
        if work.digests_wanted && self.compared != Some(work.cycle) {
            return self.compare(work).await;
        }
        self.stream(work).await
    }

    async fn claim(&mut self, work: &Work) -> Result<Claim, Next> {
        match Claim::new(self.api.clone(), self.environment.progress.clone(), work).await {
            Ok(claim) => {
                self.claimed = Some(claim.clone());
                self.untold.clear();
                self.told = BlockNo(0);
                Ok(claim)
            }
            Err(error) => Err(refused(&error)),
        }
    }

    async fn apply(&mut self, work: &Work) -> Next {
        // Before the claim that ends it.
        let is_held = match self.claimed.as_ref().filter(|claim| claim.is_of(work)) {
            Some(claim) => match claim.is_held().await {
                Ok(is_held) => is_held,
                Err(error) => return refused(&error),
            },
            None => false,
        };
        if let Some(session) = self.session.as_mut().filter(|_| !is_held) {
            session.doubt_streamed();
        }
        let claim = match self.claim(work).await {
            Ok(claim) => claim,
            Err(next) => return next,
        };
        let Some(session) = &mut self.session else { return Next::Go };
        match session.apply(work, &claim).await {
            Err(stop) => stopped(stop),
            Ok(report) => {
                if let Outcome::Failed { reason, detail, .. } = &report.outcome {
                    tracing::error!(disk = %self.disk, cycle = work.cycle.0, %reason, "the cycle failed: {detail}");
                }
                let (cycle, manifest, generation) = (work.cycle, work.manifest, work.generation);
                self.pending = Some(Pending { cycle, manifest, generation, lease: claim.lease, report });
                self.report(work).await
            }
        }
    }

    /// Brings the verdict to the appliance.
    async fn report(&mut self, work: &Work) -> Next {
        let Some(pending) = &self.pending else { return Next::Go };
        let request = VerdictRequest {
            generation: pending.generation,
            lease: pending.lease,
            manifest: pending.report.manifest,
            source_digest: pending.report.source_digest,
            outcome: pending.report.outcome.clone(),
        };
        match self.api.verdict(self.disk, pending.cycle, request).await {
            Ok(()) => {
                let is_cut_over = matches!(pending.report.outcome, Outcome::Verified { whole_disk: Some(_), .. });
                self.settled = Some((work.cycle, work.manifest));
                self.pending = None;
                if let Some(session) = self.session.as_mut().filter(|_| is_cut_over) {
                    session.let_go().await;
                }
                Next::Rest
            }
            Err(error) if error.may_pass() => Next::Retry(error.to_string()),
            Err(error) => {
                self.pending = None;
                let next = refused(&error);
                if matches!(next, Next::Rest) {
                    self.settled = Some((work.cycle, work.manifest));
                }
                next
            }
        }
    }

    async fn compare(&mut self, work: &Work) -> Next {
        let claim = match self.claim(work).await {
            Ok(claim) => claim,
            Err(next) => return next,
        };
        let Some(session) = &mut self.session else { return Next::Go };
        match session.digests(work, &claim).await {
            Ok(()) => {
                self.compared = Some(work.cycle);
                Next::Go
            }
            Err(stop) => stopped(stop),
        }
    }

    /// Checks ahead of the commit what has arrived of a cycle.
    async fn check_ahead(&mut self, work: &Work) -> Next {
        let Some(session) = self.session.as_mut().filter(|session| session.can_check(work)) else { return Next::Rest };
        match session.check_ahead(work).await {
            Ok(()) => Next::Go,
            // The commit is the same without it.
            Err(Stop::Later(why) | Stop::Fail(Failure { detail: why, .. })) => {
                tracing::debug!(disk = %self.disk, "not checked ahead of the commit: {why}");
                Next::Rest
            }
            Err(Stop::Lost) => Next::Lost,
        }
    }

    async fn stream(&mut self, work: &Work) -> Next {
        if work.kind != CycleKind::Initial {
            return self.check_ahead(work).await;
        }
        if !self.session.as_ref().is_some_and(|session| session.can_stream(work)) {
            return Next::Rest;
        }
        let claim = match self.claimed.clone().filter(|claim| claim.is_of(work)) {
            Some(claim) => Ok(claim),
            None => self.claim(work).await,
        };
        let claim = match claim {
            Ok(claim) => claim,
            // Not to be had before the commit: it is applied after it then.
            Err(next) => return next,
        };
        let Some(session) = &mut self.session else { return Next::Go };
        // What the step before has proven is told while this one is made, but for what piles up. After a restart nobody knows
        // which of several attempts it was, but up to where: the appliance shows what lies behind that.
        let end = session.ledger().applied_end(work.cycle, work.generation);
        let request =
            AppliedRequest { generation: work.generation, lease: claim.lease, end, names: self.untold.clone() };
        let news = !request.names.is_empty() || end > work.applied.max(self.told);
        let step = async {
            match self.untold.len() > UNTOLD_MAX {
                true => Ok(Some(Vec::new())),
                false => session.stream(work, &claim).await,
            }
        };
        let tell = async { if news { tell_applied(&*self.api, work, request).await } else { Next::Go } };
        let (result, told) = tokio::join!(step, tell);
        if !matches!(told, Next::Retry(_)) {
            self.untold.clear();
            self.told = end;
        }
        match result {
            _ if matches!(told, Next::Lost) => told,
            Ok(names) if !matches!(told, Next::Go) => {
                self.untold.extend(names.into_iter().flatten());
                told
            }
            Ok(Some(names)) => {
                self.untold = names;
                Next::Go
            }
            Ok(None) => Next::Rest,
            Err(Stop::Fail(failure)) => {
                tracing::warn!(disk = %self.disk, "not applied ahead of the commit: {}", failure.detail);
                Next::Rest
            }
            Err(stop) => {
                if matches!(claim.is_held().await, Ok(false)) {
                    // Nobody knows it any more, as where the appliance is put back.
                    self.claimed = None;
                }
                stopped(stop)
            }
        }
    }
}

/// Tells the appliance which segments the cache store need keep no longer. A word that was refused for now is to be kept:
/// nobody else knows which of several attempts at one place was applied, and untold they would fill the cache store until the
/// cycle ends.
async fn tell_applied(api: &dyn HydratorApi, work: &Work, request: AppliedRequest) -> Next {
    match api.applied(work.disk, work.cycle, request).await {
        Err(error) if error.code() == Some(ErrorCode::LeaseLost) => Next::Lost,
        Err(error) if error.may_pass() => Next::Retry(error.to_string()),
        Err(error) => {
            tracing::debug!(disk = %work.disk, %error, "applied segments stay in the cache store, and go with their cycle");
            Next::Go
        }
        Ok(()) => Next::Go,
    }
}

/// What it means for the disk that a step did not come to its end.
fn stopped(stop: Stop) -> Next {
    match stop {
        Stop::Later(why) | Stop::Fail(Failure { detail: why, .. }) => Next::Retry(why),
        Stop::Lost => Next::Lost,
    }
}

/// What a refusal means for the disk.
fn refused(error: &ApiError) -> Next {
    if error.may_pass() {
        return Next::Retry(error.to_string());
    }
    match error.code() {
        Some(ErrorCode::LeaseLost) => Next::Lost,
        // The cycle is over, or was replaced: the next work tells.
        Some(ErrorCode::WrongState | ErrorCode::OldGeneration | ErrorCode::NoSuchDisk) => {
            tracing::warn!(%error, "the work is out of date");
            Next::Rest
        }
        _ => Next::Retry(error.to_string()),
    }
}
