//! The scheduler for tasks: wait until so many bytes may pass.

use super::scheduler::{WAKE_MAX, piece_bytes};
use super::{Limit, Limits, Scheduler, Ticket};
use jiff::Timestamp;
use parking_lot::Mutex;
use sluice_proto::DiskId;
use sluice_proto::env::Clock;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Shares the limits between all disks' connections. Cheap to clone; all clones share one bucket.
#[derive(Clone)]
pub struct Throttle {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    start: Instant,
    state: Mutex<State>,
    /// Rung when limits change, so that those who wait under the old one don't wait it out.
    changed: Notify,
}

struct State {
    limits: Limits,
    scheduler: Scheduler<DiskId>,
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// Whether a task is there that wakes those who wait. It ends when nobody does.
    pumped: bool,
}

impl Throttle {
    /// `clock` tells which window it is; durations go by tokio's time. To be called within a tokio runtime.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let scheduler = Scheduler::new(limits.at(timestamp(&*clock)), Duration::ZERO);
        let state = State { limits, scheduler, waiting: BTreeMap::new(), pumped: false };
        let inner = Inner { clock, start: Instant::now(), state: Mutex::new(state), changed: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Puts other limits in force, for those who already wait too.
    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.inner.state.lock();
        // What passed until now was under the old ones.
        self.inner.advance(&mut state);
        state.limits = limits;
        self.inner.advance(&mut state);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.inner.state.lock().limits.clone()
    }

    /// How many bytes are best acquired at once under the limit that holds: 16 KiB to 1 MiB. In smaller pieces a disk with
    /// one connection falls behind one with many; in larger ones a slow line stands still for long at a time.
    pub fn piece_bytes(&self) -> u64 {
        let limit = self.inner.state.lock().limits.at(timestamp(&*self.inner.clock));
        piece_bytes(limit)
    }

    /// True where the limit that holds is 0: nothing passes, until a window or the policy says otherwise.
    pub fn is_paused(&self) -> bool {
        let limit = self.inner.state.lock().limits.at(timestamp(&*self.inner.clock));
        matches!(limit, Limit::Rate(rate) if rate.bits() == 0)
    }

    /// Waits until the limit is another than 0.
    pub async fn resumed(&self) {
        while self.is_paused() {
            tokio::time::sleep(WAKE_MAX).await;
        }
    }

    /// Waits until `bytes` of `disk` may pass. Dropping the future takes the request back.
    pub async fn acquire(&self, disk: DiskId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let (done, waiting) = oneshot::channel();
        let ticket = {
            let mut state = self.inner.state.lock();
            let ticket = state.scheduler.submit(disk, bytes);
            state.waiting.insert(ticket, done);
            self.inner.advance(&mut state);
            if !state.waiting.contains_key(&ticket) {
                return;
            }
            if !state.pumped {
                state.pumped = true;
                tokio::spawn(pump(Arc::downgrade(&self.inner)));
            }
            ticket
        };
        let guard = TakeBack { inner: &self.inner, ticket };
        // An error would mean that the sender is gone without a grant, which only dropping `inner` could do.
        let _ = waiting.await;
        std::mem::forget(guard);
    }
}

impl Inner {
    fn advance(&self, state: &mut State) {
        let limit = state.limits.at(timestamp(&*self.clock));
        let mut granted = Vec::new();
        state.scheduler.advance(self.start.elapsed(), limit, &mut granted);
        for ticket in granted {
            if let Some(done) = state.waiting.remove(&ticket) {
                // Nobody listens any more where the request is just being dropped.
                let _ = done.send(());
            }
        }
    }
}

/// Takes an unfinished request back when the future that waits for it is dropped.
struct TakeBack<'a> {
    inner: &'a Inner,
    ticket: Ticket,
}

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        if state.waiting.remove(&self.ticket).is_some() {
            state.scheduler.cancel(self.ticket);
        }
    }
}

async fn pump(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let idle_time = {
            let mut state = inner.state.lock();
            inner.advance(&mut state);
            match state.scheduler.idle_time() {
                Some(time) => time,
                None => {
                    state.pumped = false;
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = inner.changed.notified() => {}
            () = tokio::time::sleep(idle_time) => {}
        }
    }
}

fn timestamp(clock: &dyn Clock) -> Timestamp {
    let ms = i64::try_from(clock.unix_ms()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
