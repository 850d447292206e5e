//! What agents ask.

use super::Port;
use super::answer::{Answered, Asked, Place, done, until_sent};
use super::body::{announced, discard, flows, json, read, reserved};
use super::router::{carried, held};
use crate::identity::Identity;
use crate::service::DIGESTS_BYTES_MAX;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use sluice_proto::segment::SEGMENT_BYTES_MAX;
use sluice_proto::wire::{
    AskedDigests, DiskStatus, GiveUp, InGeneration, NextReply, NextRequest, OpenRequest, RegisterRequest,
    SEGMENTS_TOLD_MAX, StoredSegment, WireError,
};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::sync::Arc;

/// What the longest list of stored segments takes, as it is and as text.
const OPEN_REPLY_BYTES: u64 = SEGMENTS_TOLD_MAX.get() as u64 * 320;

type Ours = State<Arc<Port>>;
type Who = Extension<Identity>;

pub(super) async fn register(
    State(port): Ours,
    Extension(who): Who,
    Place(disk): Place<DiskId>,
    body: Body,
) -> Answered<Json<DiskStatus>> {
    let request: RegisterRequest = json(body, &port.limits).await?;
    let service = port.service.clone();
    carried(async move { service.register(&who, disk, request).await }).await.map(Json)
}

pub(super) async fn next(
    State(port): Ours,
    Extension(who): Who,
    Place(disk): Place<DiskId>,
    body: Body,
) -> Answered<Json<NextReply>> {
    let request: NextRequest = json(body, &port.limits).await?;
    held(&port, port.service.next(&who, disk, request)).await.map(Json)
}

pub(super) async fn open(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle)): Place<(DiskId, CycleNo)>,
    body: Body,
) -> Answered<Response> {
    let request: OpenRequest = json(body, &port.limits).await?;
    let room = port.budget.reserve_answer(&who, OPEN_REPLY_BYTES).await?;
    let service = port.service.clone();
    let reply = carried(async move { service.open(&who, disk, cycle, request).await }).await?;
    Ok(until_sent(Json(reply), room))
}

pub(super) async fn give_up(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle)): Place<(DiskId, CycleNo)>,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let request: GiveUp = json(body, &port.limits).await?;
    let service = port.service.clone();
    carried(async move { service.give_up(&who, disk, cycle, request).await }).await.map(|()| done())
}

pub(super) async fn put_segment(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle, name)): Place<(DiskId, CycleNo, String)>,
    Asked(InGeneration { generation }): Asked<InGeneration>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Json<StoredSegment>> {
    let len = announced(&headers, SEGMENT_BYTES_MAX, "a segment")?;
    let body = wanted(&port, &who, disk, cycle, generation, body).await?;
    flows(port.service.throttle(), &port.limits).await?;
    let room = port.budget.reserve(&who, len).await?;
    let bytes = read(body, len, &port.limits, Some((port.service.throttle(), disk))).await?;
    let service = port.service.clone();
    let stored = carried(async move {
        let _room = room;
        service.store_segment(&who, disk, cycle, generation, &name, bytes).await
    });
    stored.await.map(Json)
}

pub(super) async fn commit(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle)): Place<(DiskId, CycleNo)>,
    Asked(InGeneration { generation }): Asked<InGeneration>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let len = announced(&headers, port.limits.manifest_bytes_max, "a manifest")?;
    // A commit that is asked again may come after the cycle's end, so that whether it is open is not asked here.
    if let Err(refusal) = port.service.is_agent_of(&who, disk) {
        discard(body, &port.limits).await;
        return Err(refusal.into());
    }
    let is_large = len > port.limits.memory_per_peer_max;
    // Of these there is one at a time: nobody holds the place without a cycle, nor for days.
    let body = if is_large { wanted(&port, &who, disk, cycle, generation, body).await? } else { body };
    let limits = if is_large { port.limits.for_large_bodies() } else { port.limits.clone() };
    flows(port.service.throttle(), &limits).await?;
    let room = reserved(port.budget.reserve_large(&who, len), &limits).await?;
    let bytes = read(body, len, &limits, Some((port.service.throttle(), disk))).await?;
    let service = port.service.clone();
    let committed = carried(async move {
        let _room = room;
        service.store_manifest(&who, disk, cycle, generation, bytes).await
    });
    committed.await.map(|()| done())
}

pub(super) async fn digests(
    State(port): Ours,
    Extension(who): Who,
    Place((disk, cycle, part)): Place<(DiskId, CycleNo, u64)>,
    Asked(asked): Asked<AskedDigests>,
) -> Answered<Response> {
    let service = &port.service;
    let there = service.digests_are_there(&who, disk, cycle, asked.generation, part, asked.wait_ms);
    if !held(&port, there).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let room = port.budget.reserve_answer(&who, DIGESTS_BYTES_MAX).await?;
    let bytes = service.digests(&who, disk, cycle, asked.generation, part, 0).await?;
    Ok(bytes.map_or(StatusCode::NO_CONTENT.into_response(), |bytes| until_sent(bytes, room)))
}

/// Refuses a body before it is read, if it is not wanted; it is thrown away then, so that the client hears why.
async fn wanted(
    port: &Port,
    who: &Identity,
    disk: DiskId,
    cycle: CycleNo,
    generation: Generation,
    body: Body,
) -> Result<Body, WireError> {
    match port.service.may_send(who, disk, cycle, generation).await {
        Ok(()) => Ok(body),
        Err(refusal) => {
            discard(body, &port.limits).await;
            Err(refusal)
        }
    }
}
