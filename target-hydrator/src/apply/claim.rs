//! The claim on a disk under which its target is written.

use super::stop::Stop;
use crate::progress::Progress;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_client::{ApiResult, HydratorApi};
use sluice_proto::wire::{ErrorCode, Lease, Work};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two questions to an appliance that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// So long an answer holds for what is written of one batch.
const HOLDS: Duration = Duration::from_secs(1);

/// What a hydrator was given for a cycle: it writes as long as nobody was given a newer one.
///
/// Neither a lock nor a mark on the target tells of another machine that has the same disk, as in a cluster: a hydrator that
/// was stopped there in the middle of a cycle would write an old state over a newer one when it goes on, after a final cycle
/// where nobody looks any more. What it still does of what was let through in the second before it stopped is not prevented:
/// that takes storage which knows of leases itself.
#[derive(Clone)]
pub struct Claim {
    api: Arc<dyn HydratorApi>,
    /// Is told where there is no answer.
    pub(super) progress: Progress,
    disk: DiskId,
    /// The cycle that was claimed.
    pub cycle: CycleNo,
    generation: Generation,
    /// Which claim it is.
    pub lease: Lease,
    /// When the newest question was asked that was answered with yes.
    held_at: Arc<Mutex<Option<Instant>>>,
}

impl Claim {
    /// Claims the disk for the cycle of this work; every earlier claim ends.
    ///
    /// # Errors
    /// Those of the appliance.
    pub async fn new(api: Arc<dyn HydratorApi>, progress: Progress, work: &Work) -> ApiResult<Self> {
        let (disk, cycle, generation) = (work.disk, work.cycle, work.generation);
        let lease = api.claim(disk, cycle, generation).await?.lease;
        Ok(Self { api, progress, disk, cycle, generation, lease, held_at: Arc::default() })
    }

    /// True where it is of this cycle.
    pub fn is_of(&self, work: &Work) -> bool {
        (self.cycle, self.generation) == (work.cycle, work.generation)
    }

    /// Whether nobody has claimed the disk since, and the appliance knows of this claim; asked once.
    ///
    /// # Errors
    /// It can't be asked now.
    pub async fn is_held(&self) -> ApiResult<bool> {
        match self.ask().await {
            Ok(()) => Ok(true),
            Err(error) if error.may_pass() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Stores a part of the target's digests.
    ///
    /// # Errors
    /// Those of the appliance.
    pub(crate) async fn put_digests(&self, part: u64, bytes: Bytes) -> ApiResult<()> {
        self.api.put_digests(self.disk, self.cycle, self.generation, part, bytes).await
    }

    /// To be asked before each batch is written or flushed, and before a target is made or grown: whether the disk is still ours,
    /// and the cycle still to be applied. Where the appliance is away this waits for it: whoever it gave the disk to, it alone
    /// knows.
    ///
    /// # Errors
    /// [`Stop::Lost`], or [`Stop::Later`] where the cycle is over.
    pub(super) async fn check(&self) -> Result<(), Stop> {
        let mut waited = false;
        while let Err(error) = self.ask().await {
            match error.code() {
                Some(ErrorCode::LeaseLost) => return Err(Stop::Lost),
                _ if !error.may_pass() => return Err(Stop::Later(error.to_string())),
                _ => {
                    let why = format!("not written before the appliance says whose the disk is: {error}");
                    tracing::warn!(disk = %self.disk, "{why}; asking again");
                    self.progress.failed(self.disk, why);
                }
            }
            waited = true;
            // sleep: asked again until it answers.
            tokio::time::sleep(ASK_AGAIN).await;
        }
        if waited {
            self.progress.gets_on(self.disk);
        }
        Ok(())
    }

    /// The same right before each write: segments of a batch may have been waited for, and fetched, for minutes.
    pub(super) async fn check_lately(&self) -> Result<(), Stop> {
        let is_fresh = self.held_at.lock().is_some_and(|at| at.elapsed() < HOLDS);
        if is_fresh { Ok(()) } else { self.check().await }
    }

    async fn ask(&self) -> ApiResult<()> {
        let asked = Instant::now();
        self.api.check_lease(self.disk, self.cycle, self.generation, self.lease).await?;
        *self.held_at.lock() = Some(asked);
        Ok(())
    }
}

#[cfg(test)]
impl Claim {
    /// One that nobody contests.
    pub(crate) fn unrivalled(work: &Work) -> Self {
        Self::of(&Arc::default(), work)
    }

    /// One that this appliance knows as long as nobody else claims the disk.
    pub(crate) fn of(api: &Arc<crate::testkit::FakeApi>, work: &Work) -> Self {
        let (disk, cycle, generation) = (work.disk, work.cycle, work.generation);
        Self {
            api: api.clone(),
            progress: Progress::new(),
            disk,
            cycle,
            generation,
            lease: Lease(0),
            held_at: Arc::default(),
        }
    }
}
