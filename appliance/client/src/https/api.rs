//! The three traits over HTTPS: one method and path for each request, as PROTOCOL.md lists them.

use super::{Call, HttpsClient, part_of_path};
use crate::{AgentApi, ApiResult, HydratorApi, OperatorApi};
use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use sluice_proto::wire::{
    AppliedRequest, ClaimReply, CycleView, DiskStatus, DiskView, FinalOrder, GiveUp, Lease, NextReply, NextRequest,
    OpenReply, OpenRequest, PolicyView, RegisterRequest, StoredSegment, VerdictRequest, WorkReply, WorkRequest,
};
use sluice_proto::{CycleNo, DiskId, Generation};

/// An empty answer, `{}`.
#[derive(serde::Deserialize)]
struct Done {}

fn post(path: String) -> Call {
    Call::new(Method::POST, path)
}

fn put(path: String, body: Bytes) -> Call {
    Call::new(Method::PUT, path).bytes(body)
}

#[async_trait]
impl AgentApi for HttpsClient {
    async fn register(&self, disk: DiskId, request: RegisterRequest) -> ApiResult<DiskStatus> {
        self.value(post(format!("/v1/disks/{disk}/register")).json(&request)?).await
    }

    async fn next(&self, disk: DiskId, request: NextRequest) -> ApiResult<NextReply> {
        let wait_ms = request.wait_ms;
        self.value(post(format!("/v1/disks/{disk}/next")).json(&request)?.held(wait_ms)).await
    }

    async fn open(&self, disk: DiskId, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply> {
        self.value(post(format!("/v1/disks/{disk}/cycles/{cycle}/open")).json(&request)?).await
    }

    async fn put_segment(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> ApiResult<StoredSegment> {
        let name = part_of_path(name)?;
        let path = format!("/v1/disks/{disk}/cycles/{cycle}/segments/{name}?generation={generation}");
        self.upload(put(path, bytes)).await
    }

    async fn commit(&self, disk: DiskId, cycle: CycleNo, generation: Generation, manifest: Bytes) -> ApiResult<()> {
        let path = format!("/v1/disks/{disk}/cycles/{cycle}/manifest?generation={generation}");
        self.upload::<Done>(put(path, manifest)).await.map(|_| ())
    }

    async fn give_up(&self, disk: DiskId, cycle: CycleNo, request: GiveUp) -> ApiResult<()> {
        self.done(post(format!("/v1/disks/{disk}/cycles/{cycle}/give-up")).json(&request)?).await
    }

    async fn digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> ApiResult<Option<Bytes>> {
        let path = format!("/v1/disks/{disk}/cycles/{cycle}/digests/{part}?generation={generation}&wait_ms={wait_ms}");
        let (status, bytes) = self.inner.ask(&Call::new(Method::GET, path).held(wait_ms)).await?;
        Ok((status != StatusCode::NO_CONTENT).then_some(bytes))
    }
}

#[async_trait]
impl HydratorApi for HttpsClient {
    async fn work(&self, request: WorkRequest) -> ApiResult<WorkReply> {
        let wait_ms = request.wait_ms;
        self.value(post("/v1/work".into()).json(&request)?.held(wait_ms)).await
    }

    async fn claim(&self, disk: DiskId, cycle: CycleNo, generation: Generation) -> ApiResult<ClaimReply> {
        self.value(post(format!("/v1/disks/{disk}/cycles/{cycle}/claim?generation={generation}"))).await
    }

    async fn check_lease(&self, disk: DiskId, cycle: CycleNo, generation: Generation, lease: Lease) -> ApiResult<()> {
        let path = format!("/v1/disks/{disk}/cycles/{cycle}/lease/{}?generation={generation}", lease.0);
        self.done(Call::new(Method::GET, path)).await
    }

    async fn applied(&self, disk: DiskId, cycle: CycleNo, request: AppliedRequest) -> ApiResult<()> {
        self.done(post(format!("/v1/disks/{disk}/cycles/{cycle}/applied")).json(&request)?).await
    }

    async fn verdict(&self, disk: DiskId, cycle: CycleNo, request: VerdictRequest) -> ApiResult<()> {
        self.done(post(format!("/v1/disks/{disk}/cycles/{cycle}/verdict")).json(&request)?).await
    }

    async fn put_digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        bytes: Bytes,
    ) -> ApiResult<()> {
        let path = format!("/v1/disks/{disk}/cycles/{cycle}/digests/{part}?generation={generation}");
        self.upload::<Done>(put(path, bytes)).await.map(|_| ())
    }
}

#[async_trait]
impl OperatorApi for HttpsClient {
    async fn disks(&self) -> ApiResult<Vec<DiskView>> {
        self.value(Call::new(Method::GET, "/v1/disks".into())).await
    }

    async fn cycles(&self, disk: DiskId, limit: u32) -> ApiResult<Vec<CycleView>> {
        self.value(Call::new(Method::GET, format!("/v1/disks/{disk}/cycles?limit={limit}"))).await
    }

    async fn order_final(&self, disk: DiskId, wanted: bool) -> ApiResult<()> {
        self.done(post(format!("/v1/disks/{disk}/final")).json(&FinalOrder { wanted })?).await
    }

    async fn sync_now(&self, disk: DiskId) -> ApiResult<()> {
        self.done(post(format!("/v1/disks/{disk}/sync"))).await
    }

    async fn policy(&self) -> ApiResult<PolicyView> {
        self.value(Call::new(Method::GET, "/v1/policy".into())).await
    }

    async fn set_policy(&self, policy: PolicyView) -> ApiResult<()> {
        self.done(Call::new(Method::PUT, "/v1/policy".into()).json(&policy)?).await
    }
}
