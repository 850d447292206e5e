//! Reading bodies: bounded, within a memory budget, at a minimum rate, through the throttle.

use super::HttpLimits;
use crate::identity::{Identity, PeerName, Role};
use crate::throttle::Throttle;
use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sluice_proto::DiskId;
use sluice_proto::wire::{ErrorCode, WireError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// The largest JSON body that a client may send, in bytes: requests are small, only answers grow.
const JSON_REQUEST_BYTES_MAX: u64 = 256 << 10;
/// The budgets count in units of this.
const UNIT_BYTES: u64 = 1024;

/// Memory for bodies and long answers: a share for each peer, and a bound for all.
pub(super) struct Budget {
    all: Arc<Semaphore>,
    /// Beside both: one body that is larger than a share.
    large: Arc<Semaphore>,
    peers: Mutex<BTreeMap<(Role, PeerName), Arc<Semaphore>>>,
    all_units: u32,
    peer_units: u32,
}

/// Memory that a body or an answer may take until this is dropped.
pub(super) struct Reserved {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl Budget {
    pub(super) fn new(all_bytes: u64, peer_bytes: u64) -> Self {
        let (all_units, peer_units) = (units(all_bytes), units(peer_bytes));
        let all = Arc::new(Semaphore::new(all_units as usize));
        Self { all, large: Arc::new(Semaphore::new(1)), peers: Mutex::default(), all_units, peer_units }
    }

    /// Waits for room for a body of `len` bytes: first in the peer's own share, so that a peer that waits there holds up
    /// nobody else.
    pub(super) async fn reserve(&self, who: &Identity, len: u64) -> Result<Reserved, WireError> {
        let wanted = units(len);
        if wanted > self.peer_units || wanted > self.all_units {
            return Err(WireError::new(ErrorCode::TooLarge, format!("a body of {len} bytes is more than fits here")));
        }
        let peer = {
            let mut peers = self.peers.lock();
            let share = peers.entry((who.role, who.name.clone()));
            Arc::clone(share.or_insert_with(|| Arc::new(Semaphore::new(self.peer_units as usize))))
        };
        let peer = peer.acquire_many_owned(wanted).await.map_err(closed)?;
        let all = Arc::clone(&self.all).acquire_many_owned(wanted).await.map_err(closed)?;
        Ok(Reserved { _permits: [Some(peer), Some(all)] })
    }

    /// As [`Self::reserve`], for what may be larger than a share: of such there is one at a time, whoever's it is.
    pub(super) async fn reserve_large(&self, who: &Identity, len: u64) -> Result<Reserved, WireError> {
        if units(len) <= self.peer_units.min(self.all_units) {
            return self.reserve(who, len).await;
        }
        let large = Arc::clone(&self.large).acquire_owned().await.map_err(closed)?;
        Ok(Reserved { _permits: [Some(large), None] })
    }

    /// As [`Self::reserve`], for an answer of up to `len` bytes, which is never refused.
    pub(super) async fn reserve_answer(&self, who: &Identity, len: u64) -> Result<Reserved, WireError> {
        let share = u64::from(self.peer_units.min(self.all_units)) * UNIT_BYTES;
        self.reserve(who, len.min(share)).await
    }
}

fn closed(_: tokio::sync::AcquireError) -> WireError {
    WireError::new(ErrorCode::Unavailable, "the appliance is being stopped")
}

/// The length that a body of octets must name, so that memory is set aside before it comes.
pub(super) fn announced(headers: &HeaderMap, len_max: u64, what: &str) -> Result<u64, WireError> {
    let len = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    match len {
        None => Err(WireError::new(ErrorCode::BadRequest, format!("{what}: Content-Length is missing"))),
        Some(len) if len > len_max => {
            Err(WireError::new(ErrorCode::TooLarge, format!("{what} of {len} bytes; {len_max} is the most")))
        }
        Some(len) => Ok(len),
    }
}

/// Reads a body of at most `len_max` bytes. `through` is the throttle that its bytes are to pass, and for which disk.
pub(super) async fn read(
    body: Body,
    len_max: u64,
    limits: &HttpLimits,
    through: Option<(&Throttle, DiskId)>,
) -> Result<Bytes, WireError> {
    let mut body = body;
    let mut bytes = BytesMut::with_capacity(usize::try_from(body.size_hint().lower().min(len_max)).unwrap_or(0));
    let mut waited = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let frame = timeout(limits.body_stall_time, body.frame()).await.map_err(|_| slow("stood still"))?;
        waited += asked.elapsed();
        let Some(frame) = frame else { return Ok(bytes.freeze()) };
        let frame = frame.map_err(|e| WireError::new(ErrorCode::BadRequest, format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > len_max {
            return Err(WireError::new(ErrorCode::TooLarge, format!("a body of more than {len_max} bytes")));
        }
        if let Some((throttle, disk)) = through {
            let passes = throttle.acquire(disk, data.len() as u64);
            timeout(limits.throttle_time, passes).await.map_err(|_| paused())?;
        }
        bytes.extend_from_slice(&data);
        let counted = waited.saturating_sub(limits.body_grace).as_millis();
        let owed = u64::try_from(counted).unwrap_or(u64::MAX).saturating_mul(limits.body_rate_min) / 1000;
        if (bytes.len() as u64) < owed {
            return Err(slow("came too slowly"));
        }
    }
}

/// Waits while the throttle lets nothing pass, before any memory is set aside. Nobody is held for ever: a client that gave up
/// is not noticed while its body stands still.
pub(super) async fn flows(throttle: &Throttle, limits: &HttpLimits) -> Result<(), WireError> {
    timeout(limits.throttle_time, throttle.resumed()).await.map_err(|_| paused())
}

/// Waits for room as long as the throttle may be waited for.
pub(super) async fn reserved(
    room: impl Future<Output = Result<Reserved, WireError>>,
    limits: &HttpLimits,
) -> Result<Reserved, WireError> {
    let busy = |_| WireError::new(ErrorCode::Unavailable, "others have all the memory for now; it is sent again");
    timeout(limits.throttle_time, room).await.map_err(busy)?
}

fn paused() -> WireError {
    WireError::new(ErrorCode::Unavailable, "the throttle lets nothing pass at present; it is sent again until it does")
}

fn slow(how: &str) -> WireError {
    WireError::new(ErrorCode::Unavailable, format!("the body {how}; check the line and send it again"))
}

/// Reads a JSON body.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limits: &HttpLimits) -> Result<T, WireError> {
    let bytes = read(body, JSON_REQUEST_BYTES_MAX, limits, None).await?;
    serde_json::from_slice(&bytes).map_err(|e| WireError::new(ErrorCode::BadRequest, format!("the request: {e}")))
}

/// Throws the rest of a body away whose request was refused, so that the connection can be kept.
pub(super) async fn discard(body: Body, limits: &HttpLimits) {
    let mut body = body;
    // A peer that is slow at what nobody wants is left to the connection's own limits.
    let _ = timeout(limits.body_stall_time, async { while let Some(Ok(_)) = body.frame().await {} }).await;
}
