//! The appliance's port: HTTP/1.1 over mutual TLS, made to stand on a hostile network.
//!
//! - A connection that has not yet shown a certificate costs little, and not for long: there is a time limit and a limit in
//!   number, and where that is reached the oldest of whoever has most goes, so that a newcomer always gets a hearing.
//! - Whoever has shown one has a share of the connections and of the memory for bodies; nobody can use up another's.
//! - Headers and bodies are bounded before they are read, and must come at a minimum rate, unless it is this appliance's
//!   own throttle that makes them wait.
//! - Whether a certificate still holds is asked for every request, as connections are kept alive.

mod agent;
mod answer;
mod body;
mod connection;
mod deadline;
mod gate;
mod hydrator;
mod operator;
mod router;

#[cfg(test)]
mod tests;

pub use answer::asked;

use crate::service::Service;
use crate::tls::TlsServer;
use body::Budget;
use gate::Gate;
use sluice_proto::manifest::MANIFEST_BYTES_MAX;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Limits of the port.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections that have not finished their TLS handshake, at most.
    pub handshakes_max: usize,
    /// The longest that a handshake may take.
    pub handshake_time: Duration,
    /// Connections in all, at most; keep the limit on open files above it.
    pub connections_max: usize,
    /// How long a connection may be used, so that it does not outlive its certificate by more; a request that runs then is
    /// answered yet.
    pub connection_time: Duration,
    /// Connections of one certificate's name, at most. Each disk's agent holds one open.
    pub connections_per_peer_max: usize,
    /// The longest that request headers may take to come, which is also how long an idle connection is kept.
    pub header_time: Duration,
    /// The most bytes of request line and headers.
    pub header_bytes_max: usize,
    /// The most headers.
    pub headers_max: usize,
    /// The longest that a body may stand still.
    pub body_stall_time: Duration,
    /// How long a body may come at any rate.
    pub body_grace: Duration,
    /// The rate that a body must keep from then on, in bytes a second over its whole length; waiting for the throttle does
    /// not count.
    pub body_rate_min: u64,
    /// The longest that a request may wait for the throttle to let anything pass. Less than the time after which clients
    /// give up by themselves.
    pub throttle_time: Duration,
    /// The longest that a peer may take to read a piece of an answer.
    pub write_time: Duration,
    /// Memory for bodies and long answers in all, in bytes.
    pub memory_max: u64,
    /// Memory for those of one certificate's name, in bytes.
    pub memory_per_peer_max: u64,
    /// The largest manifest, in bytes. One that is larger than a peer's memory is taken beside all others, one at a time.
    pub manifest_bytes_max: u64,
    /// How long requests may take to end once the appliance is to stop.
    pub stop_time: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            handshakes_max: 1024,
            handshake_time: Duration::from_secs(10),
            connections_max: 16_384,
            connection_time: Duration::from_secs(3600),
            connections_per_peer_max: 512,
            header_time: Duration::from_secs(60),
            header_bytes_max: 32 << 10,
            headers_max: 64,
            body_stall_time: Duration::from_secs(30),
            body_grace: Duration::from_secs(20),
            body_rate_min: 1024,
            throttle_time: Duration::from_secs(240),
            write_time: Duration::from_secs(60),
            memory_max: 1 << 30,
            memory_per_peer_max: 256 << 20,
            manifest_bytes_max: MANIFEST_BYTES_MAX,
            stop_time: Duration::from_secs(20),
        }
    }
}

/// The rate that a body must keep which is larger than a peer's memory, in bytes a second.
const LARGE_BODY_RATE_MIN: u64 = 32 << 10;

impl HttpLimits {
    fn for_large_bodies(&self) -> Self {
        Self { body_rate_min: self.body_rate_min.max(LARGE_BODY_RATE_MIN), ..self.clone() }
    }
}

/// What all connections share.
struct Port {
    service: Service,
    tls: TlsServer,
    limits: HttpLimits,
    gate: Gate,
    budget: Budget,
    stopping: watch::Receiver<bool>,
}

impl Port {
    fn new(service: Service, tls: TlsServer, limits: HttpLimits, stopping: watch::Receiver<bool>) -> Arc<Self> {
        let (gate, budget) = (Gate::new(&limits), Budget::new(limits.memory_max, limits.memory_per_peer_max));
        Arc::new(Self { service, tls, limits, gate, budget, stopping })
    }

    /// Ends once the appliance is to stop.
    async fn stopped(&self) {
        // The sender is alive as long as the server runs; should it be gone, that is a stop too.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }
}

/// Serves until `stop` ends, then lets requests that run come to their end.
pub async fn serve(
    listener: TcpListener,
    tls: TlsServer,
    service: Service,
    limits: HttpLimits,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(false);
    let port = Port::new(service, tls, limits, stopped);
    let router = router::router(&port);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    connections.spawn(connection::run(Arc::clone(&port), router.clone(), tcp, from.ip()));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: those who are here are served on, and the idle ones leave.
                    tracing::warn!(%error, "a connection can't be accepted now");
                    sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let ended = timeout(port.limits.stop_time, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(count = connections.len(), "connections were cut off at the stop");
        connections.shutdown().await;
    }
}
