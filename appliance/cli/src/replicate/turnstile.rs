//! What stands between agent and appliance in one process: lets cycles begin, and tells what happens.

use async_trait::async_trait;
use bytes::Bytes;
use sluice_agent::capture::Counts;
use sluice_appliance::service::LocalAgent;
use sluice_client::{AgentApi, ApiError, ApiResult};
use sluice_proto::cycle::CycleKind;
use sluice_proto::wire::{
    DiskStatus, ErrorCode, GiveUp, NextReply, NextRequest, OpenReply, OpenRequest, RegisterRequest, StoredSegment,
};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, watch};

/// Something that the agent did or learned.
#[derive(Clone, Debug)]
pub enum Event {
    /// The disk is known to the appliance.
    Registered,
    /// A cycle begins in this run.
    Begun(CycleNo),
    /// A cycle is planned, or looked at again after an interruption.
    Opened(CycleNo, CycleKind),
    /// Its manifest is stored.
    Committed(CycleNo),
    /// The agent learns how a cycle ended, having read so many bytes for it in this run.
    Ended(CycleNo, u64),
    /// The agent has safely noted all verdicts up to this cycle's.
    Settled(CycleNo),
    /// The cache store or the state has no room: it is tried again, but in vain unless what is there is applied, or
    /// somebody makes room.
    NoRoom(String),
    /// There was room again.
    Room,
}

/// The agent's way to the appliance.
pub struct Turnstile {
    inner: LocalAgent,
    events: mpsc::UnboundedSender<Event>,
    /// How many cycles may still begin.
    permits: watch::Sender<u64>,
    newest: AtomicU64,
    counts: OnceLock<Arc<Counts>>,
    /// Whether the last that was heard is that there is no room.
    scarce: AtomicBool,
}

impl Turnstile {
    /// Lets `permits` cycles begin.
    pub fn new(inner: LocalAgent, permits: u64) -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let permits = watch::Sender::new(permits);
        let turnstile = Self {
            inner,
            events,
            permits,
            newest: AtomicU64::new(0),
            counts: OnceLock::new(),
            scarce: AtomicBool::new(false),
        };
        (Arc::new(turnstile), receiver)
    }

    /// What the agent counts; known once it is there.
    pub fn watch_counts(&self, counts: Arc<Counts>) {
        // Set once, right after the agent was made.
        drop(self.counts.set(counts));
    }

    /// Lets one more cycle begin.
    pub fn permit(&self) {
        self.permits.send_modify(|permits| *permits = permits.saturating_add(1));
    }

    /// Lets no cycle begin any more.
    pub fn close(&self) {
        self.permits.send_replace(0);
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more once the run ends.
        drop(self.events.send(event));
    }

    fn note<T>(&self, result: ApiResult<T>) -> ApiResult<T> {
        if let Err(ApiError::Refused(refusal)) = &result
            && refusal.code == ErrorCode::NoRoom
        {
            self.scarce.store(true, Ordering::SeqCst);
            self.tell(Event::NoRoom(refusal.message.clone()));
        }
        result
    }
}

#[async_trait]
impl AgentApi for Turnstile {
    async fn register(&self, disk: DiskId, request: RegisterRequest) -> ApiResult<DiskStatus> {
        let status = self.note(self.inner.register(disk, request).await)?;
        self.tell(Event::Registered);
        Ok(status)
    }

    async fn next(&self, disk: DiskId, request: NextRequest) -> ApiResult<NextReply> {
        self.tell(Event::Settled(request.settled));
        // An order whose planning failed is given again: it has its permit already.
        let ordered = self.newest.load(Ordering::SeqCst) > request.settled.0;
        if request.running.is_none() && !ordered {
            // The sender lives in this very struct, so the wait ends by a permit or not at all.
            let _ = self.permits.subscribe().wait_for(|permits| *permits > 0).await;
        }
        let reply = self.note(self.inner.next(disk, request).await)?;
        if let Some(start) = &reply.start
            && self.newest.fetch_max(start.cycle.0, Ordering::SeqCst) < start.cycle.0
        {
            self.permits.send_modify(|permits| *permits = permits.saturating_sub(1));
            self.tell(Event::Begun(start.cycle));
        }
        if let Some(verdict) = &reply.verdict {
            let read = self.counts.get().map_or(0, |counts| counts.bytes_read.load(Ordering::Relaxed));
            self.tell(Event::Ended(verdict.cycle(), read));
        }
        Ok(reply)
    }

    async fn open(&self, disk: DiskId, cycle: CycleNo, request: OpenRequest) -> ApiResult<OpenReply> {
        let kind = request.kind;
        let reply = self.note(self.inner.open(disk, cycle, request).await)?;
        self.tell(Event::Opened(cycle, kind));
        Ok(reply)
    }

    async fn put_segment(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        name: &str,
        bytes: Bytes,
    ) -> ApiResult<StoredSegment> {
        let stored = self.note(self.inner.put_segment(disk, cycle, generation, name, bytes).await)?;
        if self.scarce.swap(false, Ordering::SeqCst) {
            self.tell(Event::Room);
        }
        Ok(stored)
    }

    async fn commit(&self, disk: DiskId, cycle: CycleNo, generation: Generation, manifest: Bytes) -> ApiResult<()> {
        self.note(self.inner.commit(disk, cycle, generation, manifest).await)?;
        if self.scarce.swap(false, Ordering::SeqCst) {
            self.tell(Event::Room);
        }
        self.tell(Event::Committed(cycle));
        Ok(())
    }

    async fn give_up(&self, disk: DiskId, cycle: CycleNo, request: GiveUp) -> ApiResult<()> {
        self.note(self.inner.give_up(disk, cycle, request).await)
    }

    async fn digests(
        &self,
        disk: DiskId,
        cycle: CycleNo,
        generation: Generation,
        part: u64,
        wait_ms: u64,
    ) -> ApiResult<Option<Bytes>> {
        self.note(self.inner.digests(disk, cycle, generation, part, wait_ms).await)
    }
}
