//! Which path is whose.

use super::answer::{Refused, refused};
use super::{Port, agent, hydrator, operator};
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post, put};
use sluice_proto::wire::{ErrorCode, WireError};
use std::future::Future;
use std::sync::Arc;

/// Every path, and who answers there for each method.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<Port>>)> {
    vec![
        ("/v1/disks/{disk}/register", post(agent::register)),
        ("/v1/disks/{disk}/next", post(agent::next)),
        ("/v1/disks/{disk}/cycles/{cycle}/open", post(agent::open)),
        ("/v1/disks/{disk}/cycles/{cycle}/segments/{name}", put(agent::put_segment)),
        ("/v1/disks/{disk}/cycles/{cycle}/manifest", put(agent::commit)),
        ("/v1/disks/{disk}/cycles/{cycle}/give-up", post(agent::give_up)),
        ("/v1/disks/{disk}/cycles/{cycle}/digests/{part}", get(agent::digests).put(hydrator::put_digests)),
        ("/v1/work", post(hydrator::work)),
        ("/v1/disks/{disk}/cycles/{cycle}/claim", post(hydrator::claim)),
        ("/v1/disks/{disk}/cycles/{cycle}/lease/{lease}", get(hydrator::check_lease)),
        ("/v1/disks/{disk}/cycles/{cycle}/applied", post(hydrator::applied)),
        ("/v1/disks/{disk}/cycles/{cycle}/verdict", post(hydrator::verdict)),
        ("/v1/disks", get(operator::disks)),
        ("/v1/disks/{disk}/cycles", get(operator::cycles)),
        ("/v1/disks/{disk}/final", post(operator::order_final)),
        ("/v1/disks/{disk}/sync", post(operator::sync_now)),
        ("/v1/policy", get(operator::policy).put(operator::set_policy)),
        ("/v1/health", get(operator::health)),
    ]
}

pub(super) fn router(port: &Arc<Port>) -> Router {
    let all = routes().into_iter().fold(Router::new(), |all, (path, answers)| all.route(path, answers));
    all.fallback(unknown).method_not_allowed_fallback(unknown).with_state(Arc::clone(port))
}

async fn unknown(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let code = if path.starts_with("/v1/") { ErrorCode::BadRequest } else { ErrorCode::Version };
    let shown: String = path.chars().take(100).collect();
    refused(WireError::new(code, format!("this appliance knows no {method} {shown:?}; it speaks version 1")))
}

/// Carries a change through to its end though the client may leave: half a change is what a restart is for.
pub(super) async fn carried<T: Send + 'static>(
    change: impl Future<Output = Result<T, WireError>> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::spawn(change).await {
        Ok(done) => Ok(done?),
        Err(error) => {
            tracing::error!(%error, "a request failed in a way that it must not");
            Err(WireError::new(ErrorCode::Internal, "the appliance failed; its log says how").into())
        }
    }
}

/// Waits as long as the appliance is not to stop.
pub(super) async fn held<T>(port: &Port, waiting: impl Future<Output = Result<T, WireError>>) -> Result<T, Refused> {
    tokio::select! {
        biased;
        answer = waiting => Ok(answer?),
        () = port.stopped() => Err(WireError::new(ErrorCode::Unavailable, "the appliance is being stopped").into()),
    }
}
