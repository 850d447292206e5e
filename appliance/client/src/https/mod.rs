//! The HTTPS client: HTTP/1.1 over a few kept-alive TLS 1.3 connections.
//!
//! Every request may be repeated without harm, so a request that a kept-alive connection lost before any answer came is
//! made once more on a new one. Everything beyond that, and when to try again, is the caller's affair.

mod api;
mod body;
mod connect;
mod pool;

use crate::{ApiError, ApiResult};
use body::Upload;
use bytes::Bytes;
use connect::Connector;
pub use connect::{ClientError, ClientFiles};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use pool::Pool;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_proto::wire::{ErrorCode, JSON_BYTES_MAX, WireError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout};

/// The largest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Limits of an [`HttpsClient`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How many segments, manifests and digests may be on their way at once, each over a connection of its own. Requests
    /// that are held open do not count.
    pub uploads_max: usize,
    /// The longest that a connection may take to stand, TLS included.
    pub connect_timeout: Duration,
    /// The longest that an answer may take, beyond the time that the request asks to be held.
    pub answer_timeout: Duration,
    /// The longest that an upload may stand still. The appliance's throttle makes uploads wait, so this is generous.
    pub stall_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            uploads_max: 4,
            connect_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
        }
    }
}

/// A client of one appliance. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct HttpsClient {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    uploads: Semaphore,
    options: ClientOptions,
}

/// A request, ready to be made as often as need be.
struct Call {
    method: Method,
    path: String,
    body: Bytes,
    json: bool,
    /// How long it asks to be held.
    held: Duration,
    /// The largest answer that is read.
    answer_bytes_max: usize,
}

impl Call {
    fn new(method: Method, path: String) -> Self {
        Self { method, path, body: Bytes::new(), json: false, held: Duration::ZERO, answer_bytes_max: JSON_BYTES_MAX }
    }

    fn json(mut self, value: &impl Serialize) -> ApiResult<Self> {
        let bytes = serde_json::to_vec(value).map_err(|e| ApiError::Unreadable(e.to_string()))?;
        self.body = bytes.into();
        self.json = true;
        Ok(self)
    }

    fn bytes(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    fn held(mut self, wait_ms: u64) -> Self {
        self.held = Duration::from_millis(wait_ms.min(sluice_proto::wire::WAIT_MS_MAX));
        self
    }
}

impl HttpsClient {
    /// A client of the appliance at `endpoint`, which is `https://host:port`. Reads the files; connects to nothing yet.
    ///
    /// # Errors
    /// The endpoint is not one, or a file is missing or of no use.
    pub fn new(endpoint: &str, files: &ClientFiles, options: ClientOptions) -> Result<Self, ClientError> {
        let connector = Connector::new(endpoint, files, options.connect_timeout)?;
        let uploads = Semaphore::new(options.uploads_max.max(1));
        Ok(Self { inner: Arc::new(Inner { pool: Pool::new(connector), uploads, options }) })
    }

    /// Asks whether the appliance is there and lets this client in.
    ///
    /// # Errors
    /// Any [`ApiError`].
    pub async fn health(&self) -> ApiResult<()> {
        self.inner.ask(&Call::new(Method::GET, "/v1/health".into())).await.map(|_| ())
    }

    async fn value<T: DeserializeOwned>(&self, call: Call) -> ApiResult<T> {
        let (_, bytes) = self.inner.ask(&call).await?;
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Unreadable(format!("{}: {e}", call.path)))
    }

    async fn done(&self, call: Call) -> ApiResult<()> {
        self.inner.ask(&call).await.map(|_| ())
    }

    /// As [`Self::value`], for large bodies: only so many at once.
    async fn upload<T: DeserializeOwned>(&self, call: Call) -> ApiResult<T> {
        // The semaphore is never closed.
        let _turn = self.inner.uploads.acquire().await;
        self.value(call).await
    }
}

impl Inner {
    /// Makes the request; gives status and body of a success.
    async fn ask(&self, call: &Call) -> ApiResult<(StatusCode, Bytes)> {
        loop {
            let (mut connection, fresh) = self.pool.take().await?;
            let answer = self.ask_over(&mut connection, call).await;
            match answer {
                Ok((status, bytes)) => {
                    self.pool.give_back(connection);
                    return self.judge(status, bytes);
                }
                // Most likely the appliance had just closed it for having been idle.
                Err(_) if !fresh => {}
                Err(detail) => return Err(self.pool.unreachable(detail)),
            }
        }
    }

    async fn ask_over(&self, connection: &mut pool::Connection, call: &Call) -> Result<(StatusCode, Bytes), String> {
        let (upload, progress) = Upload::new(call.body.clone());
        let answering = connection.send(self.request(call, upload)?);
        tokio::pin!(answering);
        let response = loop {
            // While the body goes out its progress counts; afterwards the answer has its time.
            let (at, sent) = progress.last();
            let patience = if sent { self.patience(call) } else { self.options.stall_timeout };
            tokio::select! {
                biased;
                response = &mut answering => break response?,
                () = sleep_until(at + patience) => {
                    if progress.last() == (at, sent) {
                        return Err(format!("no answer to {} {} within {patience:?}", call.method, call.path));
                    }
                }
            }
        };
        let status = response.status();
        let bytes = self.read(response, call).await?;
        Ok((status, bytes))
    }

    /// How long the answer may take once the request is sent. An upload's waits for the cache store, whose own repetitions
    /// take their time.
    fn patience(&self, call: &Call) -> Duration {
        match call.method == Method::PUT {
            true => self.options.stall_timeout,
            false => call.held + self.options.answer_timeout,
        }
    }

    fn request(&self, call: &Call, upload: Upload) -> Result<Request<Upload>, String> {
        let mut request = Request::builder().method(call.method.clone()).uri(&call.path);
        if let Some(headers) = request.headers_mut() {
            headers.insert(hyper::header::HOST, self.pool.host().clone());
            let kind = if call.json { "application/json" } else { "application/octet-stream" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        request.body(upload).map_err(|e| e.to_string())
    }

    async fn read(&self, response: Response<Incoming>, call: &Call) -> Result<Bytes, String> {
        let bytes_max = if response.status().is_success() { call.answer_bytes_max } else { REFUSAL_BYTES_MAX };
        let reading = Limited::new(response.into_body(), bytes_max).collect();
        let read = timeout(self.options.stall_timeout, reading).await.map_err(|_| "the answer stopped".to_owned())?;
        read.map(|body| body.to_bytes()).map_err(|e| format!("reading the answer to {}: {e}", call.path))
    }

    fn judge(&self, status: StatusCode, bytes: Bytes) -> ApiResult<(StatusCode, Bytes)> {
        if status.is_success() {
            return Ok((status, bytes));
        }
        match serde_json::from_slice::<WireError>(&bytes) {
            Ok(refusal) => Err(refusal.into()),
            // Not the appliance's own words: something in between, or a request that its HTTP layer could not even read.
            Err(_) if status.is_server_error() => Err(self.pool.unreachable(format!("HTTP status {status}"))),
            Err(_) => Err(ApiError::Unreadable(format!("HTTP status {status} without a reason"))),
        }
    }
}

/// A name as part of a path: nothing that could change which path it is.
fn part_of_path(name: &str) -> ApiResult<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match !name.is_empty() && name.bytes().all(plain) {
        true => Ok(name),
        false => {
            Err(WireError::new(ErrorCode::BadRequest, "an object's name holds letters, digits and -_. only").into())
        }
    }
}

#[cfg(test)]
mod tests;
