//! Refusals as HTTP answers, and the parts of a request that every handler reads.

use super::body::Reserved;
use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use sluice_proto::wire::{ErrorCode, WireError};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A refusal on its way out.
pub(super) struct Refused(pub(super) WireError);

impl From<WireError> for Refused {
    fn from(refusal: WireError) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refused(self.0)
    }
}

/// What a handler answers.
pub(super) type Answered<T> = Result<T, Refused>;

/// The answer that says no.
pub(super) fn refused(refusal: WireError) -> Response {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let unread = refusal.code == ErrorCode::TooLarge;
    let mut answer = (status, Json(refusal)).into_response();
    if unread {
        // What was too large to be read must not be taken for the next request.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

pub(super) fn bad_request(what: impl std::fmt::Display) -> Refused {
    Refused(WireError::new(ErrorCode::BadRequest, what.to_string()))
}

/// The numbers and names in a request's path.
pub(super) struct Place<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Place<T> {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let place = Path::from_request_parts(parts, state).await.map_err(|e| bad_request(e.body_text()))?;
        Ok(Self(place.0))
    }
}

/// What stands behind a request's question mark.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Ok(Self(asked(&parts.uri)?))
    }
}

/// What stands behind the question mark of a request's target.
///
/// # Errors
/// `BadRequest`: a name that is not known, twice or not there, or a value that is none.
pub fn asked<T: DeserializeOwned>(target: &Uri) -> Result<T, WireError> {
    Query::try_from_uri(target).map(|asked| asked.0).map_err(|e| WireError::new(ErrorCode::BadRequest, e.body_text()))
}

/// An answer that keeps its memory reserved until it is sent, or given up.
pub(super) fn until_sent(answer: impl IntoResponse, room: Reserved) -> Response {
    answer.into_response().map(|body| Body::new(UntilSent { body, _room: room }))
}

struct UntilSent {
    body: Body,
    _room: Reserved,
}

impl HttpBody for UntilSent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// Never said before it is asked for more: hyper would drop this with the last piece still in its hands.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Success with nothing more to say.
pub(super) fn done() -> Json<serde_json::Value> {
    Json(serde_json::Value::Object(serde_json::Map::new()))
}
