//! Memory for bodies and answers: whose it is, and until when.

use super::world::*;
use crate::http::HttpLimits;
use crate::http::answer::until_sent;
use crate::http::body::{Budget, Reserved, reserved};
use crate::http::router::router;
use crate::identity::{Identity, Role};
use crate::service::tests::fixture::*;
use axum::Json;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use sluice_client::{AgentApi, HydratorApi, OperatorApi};
use sluice_proto::Generation;
use sluice_proto::wire::{ErrorCode, PolicyView};
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn who(site: &Site, name: &str) -> Identity {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let pair = site.issue(Role::Agent, name);
    Identity::of_certificate(&CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()).unwrap()
}

/// What is to be had right now.
fn now<T>(reserving: impl Future<Output = Result<T, sluice_proto::wire::WireError>>) -> Option<T> {
    reserving.now_or_never().map(Result::unwrap)
}

#[tokio::test]
async fn an_answer_holds_its_memory_until_it_is_read() {
    let site = Site::new().await;
    let (one, other) = (who(&site, "web-1"), who(&site, "web-2"));
    let budget = Budget::new(8 * MIB, 4 * MIB);
    let room = now(budget.reserve_answer(&one, 3 * MIB)).unwrap();
    let answer = until_sent(Json("what is told"), room);
    assert!(
        now(budget.reserve_answer(&one, 3 * MIB)).is_none(),
        "a peer that does not read hoards more than its share"
    );
    assert!(now(budget.reserve_answer(&other, 3 * MIB)).is_some());
    let told = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(told, "\"what is told\"");
    // One that is longer than a share takes all of it, and one that is given up gives it back.
    let all = until_sent(Json(1), now(budget.reserve_answer(&one, 400 * MIB)).unwrap());
    assert!(now(budget.reserve(&one, 1)).is_none());
    drop(all);
    assert!(now(budget.reserve(&one, 4 * MIB)).is_some());
}

/// The handlers themselves, as a connection would hide what the kernel's buffers take of an answer that nobody reads.
#[tokio::test]
async fn whoever_does_not_read_long_answers_has_no_memory_for_more() {
    const SHARE: u64 = 64 << 10;
    let site = Site::new().await;
    let agent = site.agent();
    let start = begun(&agent).await;
    let opening = Shipment::new(&start, &whole(), 1).open;
    let part = crate::service::tests::digests_part(start.cycle, 0);
    site.hydrator().put_digests(DISK, start.cycle, Generation(1), 0, part).await.unwrap();
    let (one, other) = (who(&site, "web-1"), who(&site, "web-2"));
    let limits = HttpLimits { memory_per_peer_max: SHARE, ..HttpLimits::default() };
    let (port, _running) = site.port(limits);
    let asked = [
        ("POST", "open", serde_json::to_vec(&opening).unwrap()),
        ("GET", "digests/0?generation=1&wait_ms=0", Vec::new()),
    ];
    for (method, what, body) in asked {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/disks/{DISK}/cycles/{}/{what}", start.cycle))
            .extension(one.clone());
        let request = request.body(Body::from(body)).unwrap();
        let answer = TowerToHyperService::new(router(&port)).call(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{what}");
        assert!(now(port.budget.reserve(&one, 1)).is_none(), "{what}: its answer is held for nothing");
        assert!(now(port.budget.reserve(&other, SHARE)).is_some(), "{what}: another's share is taken");
        answer.into_body().collect().await.unwrap();
        assert!(now(port.budget.reserve(&one, SHARE)).is_some(), "{what}: it was read");
    }
}

#[tokio::test]
async fn of_bodies_larger_than_a_share_there_is_one_at_a_time() {
    let site = Site::new().await;
    let (one, other) = (who(&site, "web-1"), who(&site, "web-2"));
    let budget = Budget::new(8 * MIB, 4 * MIB);
    let large: Reserved = now(budget.reserve_large(&one, 900 * MIB)).unwrap();
    assert!(now(budget.reserve_large(&other, 5 * MIB)).is_none());
    let limits = HttpLimits { throttle_time: Duration::from_millis(5), ..HttpLimits::default() };
    let told = reserved(budget.reserve_large(&other, 5 * MIB), &limits).await.map(|_| ()).unwrap_err();
    assert_eq!(told.code, ErrorCode::Unavailable, "it is to try again: {told:?}");
    // It takes nothing from what fits into a share.
    assert!(now(budget.reserve_large(&other, 4 * MIB)).is_some() && now(budget.reserve(&one, 4 * MIB)).is_some());
    drop(large);
    assert!(now(budget.reserve_large(&other, 5 * MIB)).is_some());
    assert_eq!(budget.reserve(&one, 5 * MIB).await.map(|_| ()).unwrap_err().code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn a_pause_ends_requests_before_clients_give_up_and_holds_no_memory() {
    let limits = HttpLimits { throttle_time: Duration::from_millis(300), ..HttpLimits::default() };
    let site = Site::with(limits).await;
    let agent = site.agent();
    let (start, shipment) = opened(&agent).await;
    let pause = PolicyView { limit: Some("0".into()), ..policy() };
    site.operator().set_policy(pause).await.unwrap();
    let put = |at: usize| {
        let (stored, bytes) = &shipment.segments[at];
        agent.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes.clone())
    };
    let refusal = put(0).await.unwrap_err();
    assert!(refusal.may_pass() && refusal.to_string().contains("lets nothing pass"), "{refusal}");
    let manifest = agent.commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap_err();
    assert!(manifest.may_pass(), "{manifest}");
    site.operator().set_policy(policy()).await.unwrap();
    for at in 0..shipment.segments.len() {
        put(at).await.unwrap();
    }
    agent.commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
}
