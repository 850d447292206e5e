//! The appliance's API as its clients see it, and the HTTPS client for it.
//!
//! Each trait is what one kind of client may ask. The HTTPS client implements them over the wire, the appliance's own
//! service implements them for a client in the same process, and the simulation puts a faulty network between the two.
#![forbid(unsafe_code)]

mod error;
mod https;

pub use error::{ApiError, ApiResult};
pub use https::{ClientError, ClientFiles, ClientOptions, HttpsClient};

use async_trait::async_trait;
use bytes::Bytes;
use sluice_proto::wire::{
    AppliedRequest, ClaimReply, CycleView, DiskStatus, DiskView, GiveUp, Lease, NextReply, NextRequest, OpenReply,
    OpenRequest, PolicyView, RegisterRequest, StoredSegment, VerdictRequest, WorkReply, WorkRequest,
};
use sluice_proto::{CycleNo, DiskId, Generation};

/// What an agent asks of the appliance. Every call may be repeated: a repeated success changes nothing.
#[async_trait]
pub trait AgentApi: Send + Sync {
    /// Makes a disk or a new generation of it known.
    async fn register(&self, disk: DiskId, request: RegisterRequest) -> ApiResult<DiskStatus>;
    /// Waits for a verdict or an order.
    async fn next(&self, disk: DiskId, request: NextRequest) -> ApiResult<NextReply>;
    /// Opens a planned cycle, or asks what of it is stored.
    async fn open(&self, disk: DiskId, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply>;
    /// Stores a segment. What was stored survives a crash of the appliance, and a power cut once the cycle is committed; what
    /// a power cut takes before, opening the cycle again tells.
    async fn put_segment(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> ApiResult<StoredSegment>;
    /// Commits the cycle by its manifest.
    async fn commit(&self, disk: DiskId, cycle: CycleNo, generation: Generation, manifest: Bytes) -> ApiResult<()>;
    /// Ends a cycle that can't be finished.
    async fn give_up(&self, disk: DiskId, cycle: CycleNo, request: GiveUp) -> ApiResult<()>;
    /// A part of the digests of the target's grains, which the first call orders from the hydrator; `None` while it is
    /// not there yet, after having waited for `wait_ms` at most.
    async fn digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> ApiResult<Option<Bytes>>;
}

/// What a hydrator asks of the appliance.
#[async_trait]
pub trait HydratorApi: Send + Sync {
    /// Waits for a change in the work of this hydrator.
    async fn work(&self, request: WorkRequest) -> ApiResult<WorkReply>;
    /// Claims a disk: from now on only this lease's verdicts count.
    async fn claim(&self, disk: DiskId, cycle: CycleNo, generation: Generation) -> ApiResult<ClaimReply>;
    /// Whether a lease is the newest still, and its cycle not over.
    async fn check_lease(&self, disk: DiskId, cycle: CycleNo, generation: Generation, lease: Lease) -> ApiResult<()>;
    /// Says which segments of an initial cycle are durably on the target.
    async fn applied(&self, disk: DiskId, cycle: CycleNo, request: AppliedRequest) -> ApiResult<()>;
    /// Reports the end of a cycle.
    async fn verdict(&self, disk: DiskId, cycle: CycleNo, request: VerdictRequest) -> ApiResult<()>;
    /// Stores a part of the digests that were asked for.
    async fn put_digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        bytes: Bytes,
    ) -> ApiResult<()>;
}

/// What an operator asks of the appliance.
#[async_trait]
pub trait OperatorApi: Send + Sync {
    /// All disks.
    async fn disks(&self) -> ApiResult<Vec<DiskView>>;
    /// The newest `limit` cycles of a disk, newest first.
    async fn cycles(&self, disk: DiskId, limit: u32) -> ApiResult<Vec<CycleView>>;
    /// Orders the final cycle of a disk; with `false`, takes the order back.
    async fn order_final(&self, disk: DiskId, wanted: bool) -> ApiResult<()>;
    /// Begins the next cycle of a disk now, whatever the schedule says.
    async fn sync_now(&self, disk: DiskId) -> ApiResult<()>;
    /// The policy in force.
    async fn policy(&self) -> ApiResult<PolicyView>;
    /// Puts another policy in force, at once.
    async fn set_policy(&self, policy: PolicyView) -> ApiResult<()>;
}
