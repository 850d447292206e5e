//! A long fat link of the bench's own: a TCP proxy that passes bytes on late, and no faster than its rate.
//!
//! Each way has one bottleneck for all connections: a rate, a delay, and a queue as long as what is on its way in a
//! round trip. A connection whose bytes find no room in the queue is not read from, so that its sender feels it as he
//! would feel a full window. TCP's own search for the rate is left out: windows that are too small are a matter of the
//! kernel's.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

/// What is passed on at once. At 200 Mbit/s this takes 0.7 ms.
const PIECE: usize = 16 << 10;

/// What a link is like, both ways alike.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// There and back.
    pub round_trip: Duration,
    /// Bytes a second, each way.
    pub bytes_per_second: f64,
}

/// A running proxy; taken down with all its connections on drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    there: Arc<Way>,
    _runtime: Runtime,
}

impl Proxy {
    /// One on a free port of 127.0.0.1 that leads to `upstream`.
    pub fn start(upstream: SocketAddr, link: Link) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let (there, back) = (Arc::new(Way::new(link)), Arc::new(Way::new(link)));
        runtime.spawn(serve(listener, upstream, link, Arc::clone(&there), back));
        Ok(Self { address, there, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have left the link upstream.
    pub fn passed(&self) -> u64 {
        self.there.passed.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, link: Link, there: Arc<Way>, back: Arc<Way>) {
    while let Ok((client, _)) = listener.accept().await {
        let (there, back) = (Arc::clone(&there), Arc::clone(&back));
        tokio::spawn(async move {
            // Shaking hands takes a round trip before the first byte may be sent.
            tokio::time::sleep(link.round_trip).await;
            // Nobody there: the client sees its connection closed.
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
                return;
            }
            let ((client_reads, client_writes), (server_reads, server_writes)) =
                (client.into_split(), server.into_split());
            tokio::join!(carry(&there, client_reads, server_writes), carry(&back, server_reads, client_writes));
        });
    }
}

/// One way of the link, which all connections share.
#[derive(Debug)]
struct Way {
    link: Link,
    /// Room for what waits and for what is on the way, in bytes.
    room: Arc<Semaphore>,
    /// When the bottleneck is free again.
    free: Mutex<Instant>,
    passed: AtomicU64,
}

/// Bytes, when they arrive, and their place on the link.
type Packet = (Instant, Vec<u8>, OwnedSemaphorePermit);

impl Way {
    fn new(link: Link) -> Self {
        let queue = link.bytes_per_second * link.round_trip.as_secs_f64();
        let flying = queue / 2.0;
        let room = Arc::new(Semaphore::new((queue + flying) as usize + PIECE));
        Self { link, room, free: Mutex::new(Instant::now()), passed: AtomicU64::new(0) }
    }

    /// When so many bytes arrive that are sent now.
    fn arrival(&self, bytes: usize) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let takes = Duration::from_secs_f64(bytes as f64 / self.link.bytes_per_second);
        *free = (*free).max(Instant::now()) + takes;
        *free + self.link.round_trip / 2
    }
}

/// Carries one connection's bytes one way, until its end.
async fn carry(way: &Way, mut from: OwnedReadHalf, to: OwnedWriteHalf) {
    let (sender, packets) = mpsc::unbounded_channel();
    let delivering = deliver(way, packets, to);
    let reading = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            if from.readable().await.is_err() {
                return;
            }
            let Ok(mut permit) = Arc::clone(&way.room).acquire_many_owned(PIECE as u32).await else { return };
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            drop(permit.split(PIECE - count));
            if sender.send((way.arrival(count), buffer[..count].to_vec(), permit)).is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, delivering);
}

async fn deliver(way: &Way, mut packets: mpsc::UnboundedReceiver<Packet>, mut to: OwnedWriteHalf) {
    while let Some((arrival, bytes, permit)) = packets.recv().await {
        sleep_until(arrival).await;
        if to.write_all(&bytes).await.is_err() {
            // Whoever sends hears of it when it reads; what is still on the way goes nowhere.
            return;
        }
        way.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        drop(permit);
    }
    // The other end may be gone already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Bytes arrive whole, and through a link that would take longer than a test for them they don't come sooner than
    /// its rate and its delay allow.
    #[test]
    fn a_link_keeps_its_rate_and_its_delay() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let link = Link { round_trip: Duration::from_millis(40), bytes_per_second: 4e6 };
        let proxy = Proxy::start(listener.local_addr().expect("an address"), link).expect("a proxy");
        let (sent, begun) = ((0..1_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>(), Instant::now());
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("read");
            stream.write_all(b"done").expect("written");
            got
        });
        let mut client = std::net::TcpStream::connect(proxy.address()).expect("connected");
        client.write_all(&sent).expect("written");
        client.shutdown(std::net::Shutdown::Write).expect("shut down");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert_eq!((answer.as_str(), echo.join().expect("no panic") == sent), ("done", true));
        assert_eq!(proxy.passed(), 1_000_000);
        // 250 ms for the bytes, a round trip to connect and one for what is sent and the answer.
        assert!(begun.elapsed() >= Duration::from_millis(330), "{:?}", begun.elapsed());
    }
}
