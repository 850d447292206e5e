//! One connection from its first byte to its last.

use super::Port;
use super::answer::refused;
use super::deadline::Deadline;
use crate::identity::Identity;
use crate::tls::Refusal;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sluice_proto::wire::{ErrorCode, WireError};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

type Stream = Deadline<TlsStream<TcpStream>>;
type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// How long, and for how many bytes, a peer is listened to after it was told that it would not be.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 32 << 20;

pub(super) async fn run(port: Arc<Port>, router: Router, tcp: TcpStream, from: IpAddr) {
    // A refusal here costs speed, not sense.
    let _ = tcp.set_nodelay(true);
    let mut handshake = port.gate.enter(from);
    let shaken = tokio::select! {
        biased;
        shaken = timeout(port.limits.handshake_time, port.tls.accept(tcp)) => shaken,
        () = handshake.sent_away() => return tracing::debug!(%from, "sent away in its handshake to make room"),
        () = port.stopped() => return,
    };
    drop(handshake);
    let (stream, who) = match shaken {
        Ok(Ok(shaken)) => shaken,
        // Port scanners and cut lines, of which nobody is to be told.
        Ok(Err(refusal @ Refusal::Handshake(_))) => return tracing::debug!(%from, %refusal, "no handshake"),
        Ok(Err(refusal)) => return tracing::info!(%from, %refusal, "a peer is not let in"),
        Err(_) => return tracing::debug!(%from, "a handshake took too long"),
    };
    match port.gate.seat(&who) {
        Some(_seat) => http(&port, router, Deadline::new(stream, port.limits.write_time), who).await,
        None => tracing::info!(%from, %who, "a peer has too many connections"),
    }
}

/// Serves HTTP until the peer leaves, errs or idles, or the appliance is to stop.
async fn http(port: &Arc<Port>, router: Router, stream: Stream, who: Identity) {
    let limits = &port.limits;
    let requests = {
        let (port, who) = (Arc::clone(port), who.clone());
        service_fn(move |request| answer(&port, &router, &who, request))
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max)
        .serve_connection(TokioIo::new(stream), requests);
    let mut stopping = false;
    let over = sleep(limits.connection_time);
    tokio::pin!(over);
    let ended = loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = port.stopped(), if !stopping => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut over, if !stopping => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%who, %error, "a connection ended");
    }
    linger(connection.into_parts().io.into_inner()).await;
}

fn answer(port: &Arc<Port>, router: &Router, who: &Identity, mut request: Request<Incoming>) -> Answer {
    // A connection outlives the certificate that it began with.
    if let Err(refusal) = port.tls.check(who) {
        tracing::info!(%who, %refusal, "a peer is not let in any more");
        let mut answer = refused(WireError::new(ErrorCode::Forbidden, refusal.to_string()));
        answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        return Box::pin(async { Ok(answer) });
    }
    request.extensions_mut().insert(who.clone());
    let request = request.map(Body::new);
    let answering = TowerToHyperService::new(router.clone()).call(request);
    Box::pin(answering)
}

/// Says goodbye and listens on for a moment: closing with bytes unread makes TCP throw away the answer that was sent.
async fn linger(mut stream: Stream) {
    let _ = timeout(LINGER_TIME, async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(len) => left = left.saturating_sub(len),
            }
        }
    })
    .await;
}
