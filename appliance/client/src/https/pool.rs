//! Kept-alive connections.

use super::body::Upload;
use super::connect::Connector;
use crate::{ApiError, ApiResult};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A connection that was idle for so long is not used again: the appliance closes idle ones a while later.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Idle connections that are kept.
const IDLE_COUNT_MAX: usize = 16;

/// Idle connections to one appliance, and the means to make more.
pub(super) struct Pool {
    connector: Connector,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

/// One connection, for one request at a time.
pub(super) struct Connection {
    sender: SendRequest<Upload>,
}

impl Connection {
    pub(super) async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, String> {
        self.sender.ready().await.map_err(|e| chain(&e))?;
        self.sender.send_request(request).await.map_err(|e| chain(&e))
    }
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, idle: Mutex::default() }
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.connector.host
    }

    /// A connection, and whether it is a new one.
    pub(super) async fn take(&self) -> ApiResult<(Connection, bool)> {
        while let Some((connection, since)) = self.idle().pop() {
            if since.elapsed() < IDLE_MAX && connection.sender.is_ready() {
                return Ok((connection, false));
            }
        }
        let stream = self.connector.connect().await.map_err(|e| self.unreachable(e))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(chain(&e)))?;
        tokio::spawn(async move {
            // What ends a connection is seen by the request on it; without one there is nobody to tell.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the appliance ended");
            }
        });
        Ok((Connection { sender }, true))
    }

    /// Keeps the connection for the next request. The one used last is used first, so that the others can age.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        if idle.len() < IDLE_COUNT_MAX && !connection.sender.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }

    pub(super) fn unreachable(&self, detail: String) -> ApiError {
        ApiError::Unreachable { appliance: self.connector.address().to_owned(), detail }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes, of which only the last tells what went wrong.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
