//! Who is let in.

use super::world::*;
use crate::identity::Role;
use crate::pki::Authority;
use crate::service::tests::fixture::*;
use jiff::{Timestamp, ToSpan};
use rustls::version::{TLS12, TLS13};
use sluice_client::{AgentApi, ApiError, HydratorApi, OperatorApi};
use sluice_proto::Generation;
use sluice_proto::cycle::FailReason;
use sluice_proto::wire::{ErrorCode, GiveUp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[track_caller]
fn unreachable<T: std::fmt::Debug>(result: Result<T, ApiError>, words: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, ApiError::Unreachable { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains(words), "{error}");
}

#[tokio::test]
async fn nobody_is_let_in_without_a_good_certificate() {
    let world = Site::new().await;
    world.agent().health().await.unwrap();
    let (stranger, _) = Authority::create("stranger", Timestamp::now()).unwrap();
    let foreign = stranger.issue_client(Role::Agent, &name("web-1"), Timestamp::now(), 10).unwrap();
    let ca = world.authority.certificate_pem();
    let endpoint = format!("https://localhost:{}", world.address.port());
    unreachable(world.client_at(&endpoint, &foreign, ca).health().await, "alert");
    let long_ago = Timestamp::now() - (48 * 30).hours();
    let expired = world.authority.issue_client(Role::Agent, &name("web-1"), long_ago, 1).unwrap();
    unreachable(world.client_of(&expired).health().await, "expired");
    let revoked = world.issue(Role::Agent, "web-3");
    let client = world.client_of(&revoked);
    client.health().await.unwrap();
    world.revoke(&revoked);
    let refusal = client.health().await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::Forbidden), "a kept-alive connection outlives a revocation: {refusal}");
    unreachable(client.health().await, "revoked");
    let mut none = match world.raw_with(None, &[&TLS13]).await {
        Ok(stream) => stream,
        Err(_) => return,
    };
    assert_eq!(talk(&mut none, head("GET /v1/health", &[]).as_bytes()).await, "");
}

#[tokio::test]
async fn a_client_lets_itself_be_fooled_by_no_other_server() {
    let world = Site::new().await;
    let pair = world.issue(Role::Agent, "web-1");
    let (stranger, _) = Authority::create("stranger", Timestamp::now()).unwrap();
    let endpoint = format!("https://localhost:{}", world.address.port());
    unreachable(world.client_at(&endpoint, &pair, stranger.certificate_pem()).health().await, "unknownissuer");
    let ca = world.authority.certificate_pem();
    let by_another_name = format!("https://127.0.0.2:{}", world.address.port());
    let client = world.client_at(&by_another_name, &pair, ca);
    // Nothing listens there; what counts is a listener of another name, so the name is checked on the right address.
    unreachable(client.health().await, "");
    let by_address = format!("https://127.0.0.1:{}", world.address.port());
    world.client_at(&by_address, &pair, ca).health().await.unwrap();
}

#[tokio::test]
async fn old_clients_may_speak_tls_1_2_and_nothing_below() {
    let world = Site::new().await;
    let pair = world.issue(Role::Agent, "web-1");
    let request = head("GET /v1/health", &[("connection", "close")]);
    for version in [&TLS13, &TLS12] {
        let mut stream = world.raw_with(Some(&pair), &[version]).await.unwrap();
        let said = talk(&mut stream, request.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    for minor in [0, 1, 2] {
        let mut tcp = TcpStream::connect(world.address).await.unwrap();
        tcp.write_all(&client_hello(minor)).await.unwrap();
        let mut said = Vec::new();
        tcp.read_to_end(&mut said).await.unwrap();
        // A fatal alert: 70 is protocol_version.
        assert_eq!((said[0], &said[5..7]), (21, &[2, 70][..]), "SSL 3.{minor}: {said:?}");
    }
}

/// The hello of a client that knows nothing above SSL 3.`minor` (3.1 is TLS 1.0, 3.2 is TLS 1.1).
fn client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0);
    // TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, no compression.
    body.extend([0, 4, 0xc0, 0x09, 0xc0, 0x2f, 1, 0]);
    // supported_groups: secp256r1; signature_algorithms: ecdsa_secp256r1_sha256.
    body.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut hello = vec![22, 3, 1, 0, (body.len() + 4) as u8, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn an_old_request_that_is_played_again_does_nothing() {
    let world = Site::new().await;
    let agent = world.agent();
    let start = begun(&agent).await;
    let shipment = world.service.ship(&start, &whole(), 1).await;
    let lease = world.service.verify(&shipment).await;
    let (hydrator, operator) = (world.hydrator(), world.operator());
    let before = operator.cycles(DISK, 9).await.unwrap();
    let (stored, bytes) = &shipment.segments[0];
    assert_eq!(code(agent.open(DISK, start.cycle, shipment.open.clone()).await), ErrorCode::WrongState);
    let (reason, detail) = (FailReason::SourceRead, "of then".to_owned());
    let given_up = GiveUp { generation: Generation(1), reason, detail };
    let given_up = agent.give_up(DISK, start.cycle, given_up).await;
    assert_eq!(code(given_up), ErrorCode::WrongState);
    assert_eq!(code(hydrator.claim(DISK, start.cycle, Generation(1)).await), ErrorCode::WrongState);
    hydrator.verdict(DISK, start.cycle, shipment.verified(lease)).await.unwrap();
    let other = hydrator.verdict(DISK, start.cycle, shipment.failed(lease, reason)).await;
    assert_eq!(code(other), ErrorCode::WrongState);
    let put = agent.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes.clone()).await;
    assert_eq!(code(put), ErrorCode::WrongState);
    agent.commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    assert_eq!(operator.cycles(DISK, 9).await.unwrap(), before);
    agent.register(DISK, registration(DISK, Generation(2))).await.unwrap();
    let old = agent.register(DISK, registration(DISK, Generation(1))).await;
    assert_eq!(code(old), ErrorCode::OldGeneration);
    let put = agent.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes.clone()).await;
    assert_eq!(code(put), ErrorCode::OldGeneration);
    assert_eq!(world.service.objects().await, Vec::<String>::new(), "a replayed request stored something");
}
