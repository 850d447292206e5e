//! What operators ask, and whether the appliance is there.

use super::Port;
use super::answer::{Answered, Asked, Place, done};
use super::body::json;
use super::router::carried;
use crate::identity::Identity;
use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use sluice_proto::DiskId;
use sluice_proto::wire::{API_VERSION, CycleView, DiskView, FinalOrder, HowMany, PolicyView};
use std::sync::Arc;

type Ours = State<Arc<Port>>;
type Who = Extension<Identity>;

pub(super) async fn disks(State(port): Ours, Extension(who): Who) -> Answered<Json<Vec<DiskView>>> {
    Ok(Json(port.service.disks(&who).await?))
}

pub(super) async fn cycles(
    State(port): Ours,
    Extension(who): Who,
    Place(disk): Place<DiskId>,
    Asked(HowMany { limit }): Asked<HowMany>,
) -> Answered<Json<Vec<CycleView>>> {
    Ok(Json(port.service.cycles(&who, disk, limit).await?))
}

pub(super) async fn order_final(
    State(port): Ours,
    Extension(who): Who,
    Place(disk): Place<DiskId>,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let FinalOrder { wanted } = json(body, &port.limits).await?;
    let service = port.service.clone();
    carried(async move { service.order_final(&who, disk, wanted).await }).await.map(|()| done())
}

pub(super) async fn sync_now(
    State(port): Ours,
    Extension(who): Who,
    Place(disk): Place<DiskId>,
) -> Answered<Json<serde_json::Value>> {
    port.service.sync_now(&who, disk).await?;
    Ok(done())
}

pub(super) async fn policy(State(port): Ours, Extension(who): Who) -> Answered<Json<PolicyView>> {
    Ok(Json(port.service.policy(&who).await?))
}

pub(super) async fn set_policy(
    State(port): Ours,
    Extension(who): Who,
    body: Body,
) -> Answered<Json<serde_json::Value>> {
    let policy: PolicyView = json(body, &port.limits).await?;
    let service = port.service.clone();
    carried(async move { service.set_policy(&who, policy).await }).await.map(|()| done())
}

/// For everybody with a valid certificate.
pub(super) async fn health(Extension(who): Who) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "version": API_VERSION, "role": who.role.as_str(), "name": who.name.as_str() }))
}
