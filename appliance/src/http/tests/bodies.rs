//! Headers and bodies that no client sends.

use super::world::*;
use crate::http::HttpLimits;
use crate::identity::Role;
use crate::service::tests::fixture::*;
use sluice_client::AgentApi;
use sluice_proto::Generation;
use sluice_proto::segment::SEGMENT_BYTES_MAX;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

fn segment_path(size: &str) -> String {
    head(
        &format!("PUT /v1/disks/{DISK}/cycles/1/segments/s0000000000-0000000000000000.seg?generation=1"),
        &[("content-length", size)],
    )
}

async fn site(limits: HttpLimits) -> Site {
    let world = Site::with(limits).await;
    opened(&world.agent()).await;
    world
}

#[track_caller]
fn says(said: &str, status: u16) {
    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}: {said:?}");
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let world = Site::with(quick()).await;
    let pair = world.issue(Role::Agent, "web-1");
    let long = "x".repeat(64 << 10);
    let mut stream = world.raw(&pair).await;
    says(&talk(&mut stream, head("GET /v1/health", &[("x-long", &long)]).as_bytes()).await, 431);
    let many = vec![("x-many", "1"); 100];
    let mut stream = world.raw(&pair).await;
    says(&talk(&mut stream, head("GET /v1/health", &many).as_bytes()).await, 431);
    let mut stream = world.raw(&pair).await;
    let said = talk(&mut stream, head(&format!("GET /v1/{long}"), &[]).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 414") || said.starts_with("HTTP/1.1 431"), "{said}");
    let mut stream = world.raw(&pair).await;
    says(&talk(&mut stream, b"\x16\x03\x01 not HTTP\r\n\r\n").await, 400);
    world.agent().health().await.unwrap();
}

#[tokio::test]
async fn oversized_bodies_are_refused_before_they_are_read() {
    let world = site(quick()).await;
    let pair = world.issue(Role::Agent, "web-1");
    let begun = Instant::now();
    let mut stream = world.raw(&pair).await;
    let said = talk(&mut stream, segment_path(&(17 << 20).to_string()).as_bytes()).await;
    says(&said, 413);
    assert!(said.contains("\"code\":8"), "{said}");
    // The same with the body behind it: the answer must not be lost over the unread bytes.
    let mut stream = world.raw(&pair).await;
    let mut request = segment_path(&(17 << 20).to_string()).into_bytes();
    request.resize(request.len() + (17 << 20), 1);
    says(&talk(&mut stream, &request).await, 413);
    let huge = (u64::MAX).to_string();
    let mut stream = world.raw(&pair).await;
    let said = talk(&mut stream, segment_path(&huge).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 4"), "{said}");
    let register = format!("POST /v1/disks/{DISK}/register");
    let mut stream = world.raw(&pair).await;
    let mut request = head(&register, &[("content-length", "1000000")]).into_bytes();
    request.resize(request.len() + 1_000_000, b' ');
    says(&talk(&mut stream, &request).await, 413);
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn odd_bodies_are_refused_in_words() {
    let world = site(quick()).await;
    let pair = world.issue(Role::Agent, "web-1");
    let mut chunked = head(
        &format!("PUT /v1/disks/{DISK}/cycles/1/manifest?generation=1"),
        &[("transfer-encoding", "chunked"), ("connection", "close")],
    );
    chunked.push_str("5\r\nhello\r\n0\r\n\r\n");
    let nested = "[".repeat(100_000);
    let json = |body: &str| {
        let len = body.len().to_string();
        let headers = [("content-length", len.as_str()), ("connection", "close")];
        head(&format!("POST /v1/disks/{DISK}/next"), &headers) + body
    };
    let requests = [
        chunked,
        json(&nested),
        json("{}"),
        json("{\"generation\":1,\"settled\":0,\"running\":null,\"wait_ms\":0,\"more\":1}"),
        json("\u{fc}"),
        head(&format!("PUT /v1/disks/{DISK}/cycles/x/manifest?generation=1"), &[("connection", "close")]),
        head(&format!("PUT /v1/disks/{DISK}/cycles/1/manifest"), &[("connection", "close")]),
        head(&format!("PUT /v1/disks/{DISK}/cycles/1/manifest?generation=-1"), &[("connection", "close")]),
        head("POST /v1/disks/../../etc/passwd/next", &[("connection", "close")]),
        head("DELETE /v1/disks", &[("connection", "close")]),
    ];
    for request in requests {
        let mut stream = world.raw(&pair).await;
        let said = talk(&mut stream, request.as_bytes()).await;
        says(&said, 400);
        assert!(said.contains("{\"code\":1,\"message\":"), "{said}");
    }
    let mut stream = world.raw(&pair).await;
    says(&talk(&mut stream, head("GET /v9/disks", &[("connection", "close")]).as_bytes()).await, 426);
}

/// By the end of TLS as it should be, and by that of the connection alone.
#[tokio::test]
async fn a_segment_that_is_cut_off_is_none_and_comes_again() {
    let world = Site::new().await;
    let agent = world.agent();
    let (start, shipment) = opened(&agent).await;
    let (stored, bytes) = &shipment.segments[0];
    let pair = world.issue(Role::Agent, "web-1");
    let path = format!("PUT /v1/disks/{DISK}/cycles/{}/segments/{}?generation=1", start.cycle, stored.name);
    let request = head(&path, &[("content-length", &bytes.len().to_string())]);
    for sent in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        for orderly in [true, false] {
            let mut stream = world.raw(&pair).await;
            stream.write_all(&[request.as_bytes(), &bytes[..sent]].concat()).await.unwrap();
            stream.flush().await.unwrap();
            match orderly {
                true => stream.shutdown().await.unwrap(),
                false => stream.get_mut().0.shutdown().await.unwrap(),
            }
            let said = talk(&mut stream, b"").await;
            assert!(!said.starts_with("HTTP/1.1 2"), "{sent} bytes of {} were taken: {said}", bytes.len());
            assert_eq!(world.service.objects().await, Vec::<String>::new(), "{sent} bytes were stored");
        }
    }
    let whole = agent.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes.clone()).await.unwrap();
    assert_eq!(whole, *stored);
    assert_eq!(world.service.objects().await.len(), 1);
}

#[tokio::test]
async fn whoever_sends_headers_slowly_is_sent_away() {
    let world = Site::with(quick()).await;
    let pair = world.issue(Role::Agent, "web-1");
    let mut stream = world.raw(&pair).await;
    let begun = Instant::now();
    let slowly = async {
        let _ = stream.write_all(b"GET /v1/health HTTP/1.1\r\n").await;
        while begun.elapsed() < Duration::from_secs(5) {
            if stream.write_all(b"x-a: 1\r\n").await.is_err() || stream.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    slowly.await;
    assert!(begun.elapsed() < Duration::from_secs(4), "headers trickled in for {:?}", begun.elapsed());
}

#[tokio::test]
async fn whoever_sends_a_body_slowly_is_sent_away() {
    let limits = HttpLimits { body_grace: Duration::from_millis(500), body_rate_min: 100_000, ..quick() };
    let world = site(limits).await;
    let pair = world.issue(Role::Agent, "web-1");
    let begun = Instant::now();
    let mut stream = world.raw(&pair).await;
    let said = talk(&mut stream, (segment_path("1000") + "a few bytes").as_bytes()).await;
    says(&said, 503);
    assert!(said.contains("stood still"), "{said}");
    // A byte now and then is not standing still, but it is too slow.
    let (mut reader, mut writer) = tokio::io::split(world.raw(&pair).await);
    let drip = tokio::spawn(async move {
        let _ = writer.write_all(segment_path("100000").as_bytes()).await;
        while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut said = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut said).await;
    let said = String::from_utf8_lossy(&said);
    says(&said, 503);
    assert!(said.contains("too slowly"), "{said}");
    drip.abort();
    assert!(begun.elapsed() < Duration::from_secs(10));
    world.agent().health().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_hoards_memory_hoards_its_own() {
    // Room for the share of the one that hoards, and for one of somebody else.
    let share = 2 * SEGMENT_BYTES_MAX;
    let limits = HttpLimits {
        memory_per_peer_max: share,
        memory_max: 2 * share,
        body_stall_time: Duration::from_secs(30),
        ..HttpLimits::default()
    };
    let world = site(limits).await;
    let pair = world.issue(Role::Agent, "web-1");
    let mut hoarders = Vec::new();
    for _ in 0..8 {
        let mut stream = world.raw(&pair).await;
        stream.write_all(segment_path(&SEGMENT_BYTES_MAX.to_string()).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        hoarders.push(stream);
    }
    // Its share is gone once nothing of its own is answered any more.
    let one_byte = segment_path("1").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n") + "x";
    loop {
        let mut stream = world.raw(&pair).await;
        let answer = tokio::time::timeout(Duration::from_millis(300), talk(&mut stream, one_byte.as_bytes())).await;
        match answer {
            Ok(said) => says(&said, 400),
            Err(_) => break,
        }
    }
    let other = world.client(Role::Agent, "web-2");
    let disk = sluice_proto::DiskId([9; 16]);
    other.register(disk, registration(disk, Generation(1))).await.unwrap();
    let start = other.next(disk, asks(0, None, 0)).await.unwrap().start.unwrap();
    let shipment = Shipment::of(disk, Generation(1), &start, &whole(), 1);
    other.open(disk, start.cycle, shipment.open.clone()).await.unwrap();
    for (stored, bytes) in &shipment.segments {
        let put = other.put_segment(disk, start.cycle, Generation(1), &stored.name, bytes.clone());
        let put = tokio::time::timeout(Duration::from_secs(10), put).await;
        put.expect("another agent's hoarding stops this one").unwrap();
    }
    drop(hoarders);
}
