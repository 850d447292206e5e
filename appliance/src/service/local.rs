//! The service for a client in the same process.

use super::Service;
use crate::identity::{Fingerprint, Identity, PeerName, Role};
use async_trait::async_trait;
use bytes::Bytes;
use sluice_client::{AgentApi, ApiResult, HydratorApi, OperatorApi};
use sluice_proto::wire::{
    AppliedRequest, ClaimReply, CycleView, DiskStatus, DiskView, GiveUp, Lease, NextReply, NextRequest, OpenReply,
    OpenRequest, PolicyView, RegisterRequest, StoredSegment, VerdictRequest, WorkReply, WorkRequest,
};
use sluice_proto::{CycleNo, DiskId, Generation};

macro_rules! local {
    ($(#[$doc:meta])* $name:ident, $role:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            service: Service,
            who: Identity,
        }

        impl $name {
            /// A client of this name, which needs no certificate.
            pub fn new(service: Service, name: PeerName) -> Self {
                let fingerprint = Fingerprint::of(b"in this process");
                Self { service, who: Identity { role: Role::$role, name, fingerprint } }
            }
        }
    };
}

local!(
    /// An agent in the same process.
    LocalAgent,
    Agent
);
local!(
    /// A hydrator in the same process.
    LocalHydrator,
    Hydrator
);
local!(
    /// An operator in the same process.
    LocalOperator,
    Operator
);

#[async_trait]
impl AgentApi for LocalAgent {
    async fn register(&self, disk: DiskId, request: RegisterRequest) -> ApiResult<DiskStatus> {
        Ok(self.service.register(&self.who, disk, request).await?)
    }

    async fn next(&self, disk: DiskId, request: NextRequest) -> ApiResult<NextReply> {
        Ok(self.service.next(&self.who, disk, request).await?)
    }

    async fn open(&self, disk: DiskId, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply> {
        Ok(self.service.open(&self.who, disk, cycle, request).await?)
    }

    async fn put_segment(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> ApiResult<StoredSegment> {
        Ok(self.service.put_segment(&self.who, disk, cycle, generation, name, bytes).await?)
    }

    async fn commit(&self, disk: DiskId, cycle: CycleNo, generation: Generation, manifest: Bytes) -> ApiResult<()> {
        Ok(self.service.commit(&self.who, disk, cycle, generation, manifest).await?)
    }

    async fn give_up(&self, disk: DiskId, cycle: CycleNo, request: GiveUp) -> ApiResult<()> {
        Ok(self.service.give_up(&self.who, disk, cycle, request).await?)
    }

    async fn digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> ApiResult<Option<Bytes>> {
        Ok(self.service.digests(&self.who, disk, cycle, generation, part, wait_ms).await?)
    }
}

#[async_trait]
impl HydratorApi for LocalHydrator {
    async fn work(&self, request: WorkRequest) -> ApiResult<WorkReply> {
        Ok(self.service.work(&self.who, request).await?)
    }

    async fn claim(&self, disk: DiskId, cycle: CycleNo, generation: Generation) -> ApiResult<ClaimReply> {
        Ok(self.service.claim(&self.who, disk, cycle, generation).await?)
    }

    async fn check_lease(&self, disk: DiskId, cycle: CycleNo, generation: Generation, lease: Lease) -> ApiResult<()> {
        Ok(self.service.check_lease(&self.who, disk, cycle, generation, lease).await?)
    }

    async fn applied(&self, disk: DiskId, cycle: CycleNo, request: AppliedRequest) -> ApiResult<()> {
        Ok(self.service.applied(&self.who, disk, cycle, request).await?)
    }

    async fn verdict(&self, disk: DiskId, cycle: CycleNo, request: VerdictRequest) -> ApiResult<()> {
        Ok(self.service.verdict(&self.who, disk, cycle, request).await?)
    }

    async fn put_digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        bytes: Bytes,
    ) -> ApiResult<()> {
        Ok(self.service.put_digests(&self.who, disk, cycle, generation, part, bytes).await?)
    }
}

#[async_trait]
impl OperatorApi for LocalOperator {
    async fn disks(&self) -> ApiResult<Vec<DiskView>> {
        Ok(self.service.disks(&self.who).await?)
    }

    async fn cycles(&self, disk: DiskId, limit: u32) -> ApiResult<Vec<CycleView>> {
        Ok(self.service.cycles(&self.who, disk, limit).await?)
    }

    async fn order_final(&self, disk: DiskId, wanted: bool) -> ApiResult<()> {
        Ok(self.service.order_final(&self.who, disk, wanted).await?)
    }

    async fn sync_now(&self, disk: DiskId) -> ApiResult<()> {
        Ok(self.service.sync_now(&self.who, disk).await?)
    }

    async fn policy(&self) -> ApiResult<PolicyView> {
        Ok(self.service.policy(&self.who).await?)
    }

    async fn set_policy(&self, policy: PolicyView) -> ApiResult<()> {
        Ok(self.service.set_policy(&self.who, policy).await?)
    }
}
