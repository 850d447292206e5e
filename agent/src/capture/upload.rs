//! Segments on their way to the appliance.

use super::{Capture, CaptureError, Open, salt_of};
use crate::journal::{Journal, Plan, Stored};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use sluice_client::{ApiError, ApiResult};
use sluice_proto::header::Header;
use sluice_proto::{CycleNo, Digest, DiskId, Generation};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a segment is sent before the cycle waits.
const SEND_TRIES: u32 = 5;

/// The segments under way.
pub(super) struct Uploads<'a> {
    capture: &'a Capture,
    plan_cycle: CycleNo,
    disk: DiskId,
    generation: Generation,
    salt: Digest,
    under_way: FuturesUnordered<BoxFuture<'a, ApiResult<(Stored, u64)>>>,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(capture: &'a Capture, plan: &Plan, header: &Header) -> Self {
        Self {
            capture,
            plan_cycle: plan.cycle,
            disk: header.disk,
            generation: header.generation,
            salt: salt_of(header),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Sends a full segment, once there is room for one more.
    pub(super) async fn push(&mut self, full: Open, journal: &mut Journal) -> Result<(), CaptureError> {
        while self.under_way.len() >= self.capture.options.uploads.max(1) {
            self.settle_one(journal).await?;
        }
        self.under_way.push(Box::pin(self.send(full)));
        Ok(())
    }

    /// Waits for all that are under way.
    pub(super) async fn finish(mut self, journal: &mut Journal) -> Result<(), CaptureError> {
        while !self.under_way.is_empty() {
            self.settle_one(journal).await?;
        }
        Ok(())
    }

    async fn settle_one(&mut self, journal: &mut Journal) -> Result<(), CaptureError> {
        if let Some(done) = self.under_way.next().await {
            let (stored, plain_bytes) = done?;
            journal.note_stored(stored)?;
            self.capture.counts.bytes_stored.fetch_add(plain_bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn send(&self, full: Open) -> impl Future<Output = ApiResult<(Stored, u64)>> + Send + use<'a> {
        let (capture, cycle, disk, generation, salt) =
            (self.capture, self.plan_cycle, self.disk, self.generation, self.salt);
        async move {
            let Open { writer, cvs, plain_bytes } = full;
            let (name, first) = (writer.name(), writer.first().0);
            let (bytes, hash) = capture
                .workers
                .run(move || {
                    let bytes = Bytes::from(writer.finish());
                    let hash = Digest::of(&bytes);
                    (bytes, hash)
                })
                .await;
            let len = bytes.len() as u64;
            let stored = put(capture, disk, cycle, generation, &name, bytes).await?;
            if stored.hash != hash || stored.len.0 != len {
                return Err(ApiError::Unreadable(format!("{name} was stored with other bytes than were sent")));
            }
            capture.counts.bytes_sent.fetch_add(len, Ordering::Relaxed);
            Ok((Stored { cycle, first, len, hash, salt, cvs }, plain_bytes))
        }
    }
}

/// Stores the same bytes until it succeeds or is refused for good: a repeat with other bytes would be another segment.
async fn put(
    capture: &Capture,
    disk: DiskId,
    cycle: CycleNo,
    generation: Generation,
    name: &str,
    bytes: Bytes,
) -> ApiResult<sluice_proto::wire::StoredSegment> {
    let mut pause = Duration::from_millis(100);
    for _ in 1..SEND_TRIES {
        match capture.api.put_segment(disk, cycle, generation, name, bytes.clone()).await {
            Err(error) if error.may_pass() => {
                tracing::warn!(%disk, ?cycle, segment = name, %error, "segment not stored, trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    capture.api.put_segment(disk, cycle, generation, name, bytes).await
}
