//! Many connections at once.

use super::world::*;
use crate::http::HttpLimits;
use crate::http::deadline::Deadline;
use crate::identity::Role;
use crate::service::tests::fixture::*;
use sluice_client::{AgentApi, OperatorApi};
use sluice_proto::Generation;
use sluice_proto::cycle::State as CycleState;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections that are opened while one cycle is shipped, at least.
const CROWD: usize = 10_000;
/// How many of these who opens them holds at a time.
const HELD: usize = 256;
/// Where they come from. Not from the honest agent's own address: of the address with most, the oldest goes, whoever's it is.
const CROWD_ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
    Ipv4Addr::new(127, 0, 0, 5),
];

/// Both ends of each connection are open files of this very process.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Root may have as many as it asks for.
    let wanted = hard.max(4096);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted);
    raised.or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard)).unwrap();
}

/// Opens one connection after the other, holds the newest and counts them all, for ever.
async fn crowd(from: Ipv4Addr, to: SocketAddr, opened: Arc<watch::Sender<usize>>) {
    let mut held = VecDeque::new();
    for at in 0_usize.. {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut tcp = socket.connect(to).await.unwrap();
        // The port may have sent it away by now.
        match at % 3 {
            0 => {}
            1 => drop(tcp.write_all(&BEGUN).await),
            _ => drop((tcp.write_all(&BEGUN).await, tcp.shutdown().await)),
        }
        held.push_back(tcp);
        if held.len() > HELD {
            held.pop_front();
        }
        opened.send_modify(|count| *count += 1);
    }
}

/// The beginning of a handshake that is never finished.
const BEGUN: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_say_nothing_stop_nobody() {
    raise_open_files();
    let world = Site::with(HttpLimits { handshakes_max: 256, ..HttpLimits::default() }).await;
    let (opened, mut count) = watch::channel(0);
    let opened = Arc::new(opened);
    let mut crowds = JoinSet::new();
    for from in CROWD_ADDRESSES {
        crowds.spawn(crowd(from, world.address, Arc::clone(&opened)));
    }
    // The port has all the handshakes that it takes, and more come all the time, before the honest one does.
    count.wait_for(|count| *count > CROWD_ADDRESSES.len() * HELD).await.unwrap();
    let agent = world.agent();
    let start = begun(&agent).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    agent.open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let segments = shipment.segments.len();
    for (at, (stored, bytes)) in shipment.segments.iter().enumerate() {
        count.wait_for(|count| *count >= CROWD * (at + 1) / segments).await.unwrap();
        agent.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes.clone()).await.unwrap();
        // One more newcomer each time: a connection that stands already would prove less.
        world.client(Role::Agent, "web-2").health().await.unwrap();
    }
    agent.commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    let before = *count.borrow();
    assert!(before >= CROWD, "{before}");
    count.wait_for(|count| *count > before + HELD).await.unwrap();
    assert!(crowds.try_join_next().is_none(), "one of the crowd had gone");
    let cycle = world.operator().cycles(DISK, 1).await.unwrap().remove(0);
    assert_eq!((cycle.cycle, cycle.state), (start.cycle, CycleState::Committed));
}

#[tokio::test]
async fn whoever_never_finishes_a_handshake_is_sent_away() {
    let world = Site::with(quick()).await;
    let mut tcp = TcpStream::connect(world.address).await.unwrap();
    let begun = Instant::now();
    let mut said = Vec::new();
    let _ = tcp.read_to_end(&mut said).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "a half-open connection stayed {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_is_kept_neither_idle_nor_for_ever() {
    let world = Site::with(quick()).await;
    let pair = world.issue(Role::Agent, "web-1");
    let begun = Instant::now();
    let mut silent = world.raw(&pair).await;
    assert_eq!(talk(&mut silent, b"").await, "");
    let mut idle = world.raw(&pair).await;
    let said = talk(&mut idle, head("GET /v1/health", &[]).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(8), "idle connections stayed {:?}", begun.elapsed());
    let limits = HttpLimits { connection_time: Duration::from_millis(300), ..HttpLimits::default() };
    let world = Site::with(limits).await;
    let begun = Instant::now();
    let mut old = world.raw(&world.issue(Role::Agent, "web-1")).await;
    let said = talk(&mut old, head("GET /v1/health", &[]).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(5), "a connection was used for {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_its_share_of_connections_and_no_more() {
    let world = Site::with(HttpLimits { connections_per_peer_max: 20, ..HttpLimits::default() }).await;
    let greedy = world.issue(Role::Agent, "web-1");
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let mut stream = world.raw(&greedy).await;
        let _ = stream.write_all(head("GET /v1/health", &[]).as_bytes()).await;
        let mut said = [0; 12];
        match stream.read_exact(&mut said).await {
            Ok(_) => held.push(stream),
            Err(_) => refused += 1,
        }
    }
    assert_eq!((held.len(), refused), (20, 40));
    world.client(Role::Agent, "web-2").health().await.unwrap();
    world.client(Role::Operator, "web-1").health().await.unwrap();
    drop(held);
    // The seats are free again once the port has noticed.
    let begun = Instant::now();
    while world.client_of(&greedy).health().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "seats are never given back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_its_answer_is_sent_away() {
    let (near, mut far) = duplex(1024);
    let mut stream = Deadline::new(near, Duration::from_secs(60));
    let begun = tokio::time::Instant::now();
    let error = stream.write_all(&[1; 4096]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
    // One that reads slowly is served on.
    let reading = tokio::spawn(async move {
        let mut read = 0;
        while read < 8192 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            read += far.read(&mut [0; 1024]).await.unwrap();
        }
    });
    stream.write_all(&[1; 4096]).await.unwrap();
    reading.abort();
}
