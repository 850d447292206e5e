//! What hydrators ask.

use super::Port;
use super::answer::{Answered, Asked, Place, done};
use super::body::{announced, discard, json, read};
use super::router::{carried, held};
use crate::identity::Identity;
use crate::service::DIGESTS_BYTES_MAX;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use sluice_proto::wire::{AppliedRequest, ClaimReply, InGeneration, Lease, VerdictRequest, WorkReply, WorkRequest};
use sluice_proto::{CycleNo, DiskId};
use std::sync::Arc;

type Ours = State<Arc<Port>>;
type Who = Extension<Identity>;

pub(super) async fn work(State(port): Ours, Extension(who): Who, body: Body) -> Answered<Json<WorkReply>> {
    let request: WorkRequest = json(body, &port.limits).await?;
    held(&port, port.service.work(&who, request)).await.map(Json)
}

pub(super) async fn claim(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle)): Place<(DiskId, CycleNo)>,
    Asked(InGeneration { generation }): Asked<InGeneration>,
) -> Answered<Json<ClaimReply>> {
    let service = port.service.clone();
    carried(async move { service.claim(&who, disk, cycle, generation).await }).await.map(Json)
}

pub(super) async fn check_lease(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle, lease)): Place<(DiskId, CycleNo, Lease)>,
    Asked(InGeneration { generation }): Asked<InGeneration>,
) -> Answered<Json<serde_json::Value>> {
    Ok(port.service.check_lease(&who, disk, cycle, generation, lease).await.map(|()| done())?)
}

pub(super) async fn applied(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle)): Place<(DiskId, CycleNo)>,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let request: AppliedRequest = json(body, &port.limits).await?;
    let service = port.service.clone();
    carried(async move { service.applied(&who, disk, cycle, request).await }).await.map(|()| done())
}

pub(super) async fn verdict(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle)): Place<(DiskId, CycleNo)>,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let request: VerdictRequest = json(body, &port.limits).await?;
    let service = port.service.clone();
    carried(async move { service.verdict(&who, disk, cycle, request).await }).await.map(|()| done())
}

pub(super) async fn put_digests(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle, part)): Place<(DiskId, CycleNo, u64)>,
    Asked(InGeneration { generation }): Asked<InGeneration>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let len = announced(&headers, DIGESTS_BYTES_MAX, "a part of digests")?;
    if let Err(refusal) = port.service.may_send_digests(&who, disk, cycle, generation).await {
        discard(body, &port.limits).await;
        return Err(refusal.into());
    }
    let room = port.budget.reserve(&who, len).await?;
    let bytes = read(body, len, &port.limits, None).await?;
    let service = port.service.clone();
    let stored = carried(async move {
        let _room = room;
        service.put_digests(&who, disk, cycle, generation, part, bytes).await
    });
    stored.await.map(|()| done())
}
