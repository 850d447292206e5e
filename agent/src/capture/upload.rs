//! Segments on their way to the appliance.

use super::cut::Open;
use super::{Capture, Encoders, salt_of};
use crate::journal::{Journal, JournalError, Noted, Plan};
use crate::workers::Place;
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

/// A stored segment, and the bytes of the plan in it.
pub(super) type Sent = (Noted, u64);

/// The segments under way.
pub(super) struct Uploads<'a> {
    capture: &'a Capture,
    encoders: &'a Encoders,
    plan_cycle: CycleNo,
    disk: DiskId,
    generation: Generation,
    salt: Digest,
    place: Place,
    under_way: FuturesUnordered<BoxFuture<'a, ApiResult<Sent>>>,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(
        capture: &'a Capture,
        plan: &Plan,
        header: &Header,
        encoders: &'a Encoders,
        place: Place,
    ) -> Self {
        Self {
            capture,
            encoders,
            plan_cycle: plan.cycle,
            disk: header.disk,
            generation: header.generation,
            salt: salt_of(header),
            place,
            under_way: FuturesUnordered::new(),
        }
    }

    /// True where one more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < self.capture.options.uploads.max(1)
    }

    /// True where none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Begins to send a segment. It makes progress while [`Self::next`] is waited for.
    pub(super) fn start(&mut self, full: Open) {
        self.under_way.push(Box::pin(self.send(full)));
    }

    /// The next that has ended, however it did. Nothing is lost where the wait is given up.
    pub(super) async fn next(&mut self) -> Option<ApiResult<Sent>> {
        self.under_way.next().await
    }

    /// Notes a stored segment in the journal.
    pub(super) fn note(&self, (stored, plain_bytes): Sent, journal: &mut Journal) -> Result<(), JournalError> {
        journal.note_stored(stored)?;
        self.capture.counts.bytes_stored.fetch_add(plain_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for all that are under way and notes those that arrive.
    pub(super) async fn settle_rest(&mut self, journal: &mut Journal) -> Result<(), JournalError> {
        while let Some(ended) = self.under_way.next().await {
            if let Ok(sent) = ended {
                self.note(sent, journal)?;
            }
        }
        Ok(())
    }

    fn send(&self, full: Open) -> impl Future<Output = ApiResult<Sent>> + Send + use<'a> {
        let (capture, encoders, cycle, disk) = (self.capture, self.encoders, self.plan_cycle, self.disk);
        let (generation, salt, place) = (self.generation, self.salt, self.place);
        async move {
            let Open { writer, cvs, plain_bytes, .. } = full;
            let (name, first) = (writer.name(), writer.first().0);
            let finish = move || {
                let bytes = Bytes::from(writer.finish());
                let hash = Digest::of(&bytes);
                (bytes, hash)
            };
            let (bytes, hash) = capture.workers.run(place, finish).await;
            let len = bytes.len() as u64;
            let stored = put(capture, disk, cycle, generation, &name, bytes.clone()).await?;
            if bytes.is_unique() {
                encoders.buffers().segments.give_back(Vec::from(bytes));
            }
            if stored.hash != hash || stored.len.0 != len {
                return Err(ApiError::Unreadable(format!("{name} was stored with other bytes than were sent")));
            }
            capture.counts.bytes_sent.fetch_add(len, Ordering::Relaxed);
            Ok((Noted { cycle, first, len, hash, salt, cvs }, plain_bytes))
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
