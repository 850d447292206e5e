//! Where hashing, compressing and sealing run: on threads of their own, or, in the simulation, in the only thread.

mod slots;

use crate::buffers::Buffers;
use slots::Slots;
use sluice_platform::Precedence;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Runs computations away from the tasks that wait for disks and peers.
#[derive(Clone)]
pub struct Workers {
    slots: Option<Arc<Slots>>,
    count: usize,
    precedence: Precedence,
    places: Arc<AtomicU64>,
    buffers: Buffers,
}

/// Whose work goes first where threads are short: what is short, then the long work that had least to do when it began, then
/// what began first. Long work of several disks that took turns would all end at one time: until then none of them would be
/// protected, and while all are brought to their end at once, by flushes and questions, the processors would have nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    bytes: u64,
    number: u64,
}

impl Place {
    /// That of short work.
    pub const FIRST: Self = Self { bytes: 0, number: 0 };
}

/// A computation under way.
pub type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Workers {
    /// `count` computations at once at most, each on a thread of the runtime's blocking pool.
    pub fn threads(count: usize) -> Self {
        let count = count.max(1);
        Self { slots: Some(Arc::new(Slots::new(count))), count, ..Self::inline() }
    }

    /// As many as the machine has processors.
    pub fn per_processor() -> Self {
        Self::threads(std::thread::available_parallelism().map_or(2, usize::from))
    }

    /// Everything in the thread that asks: one order of events for one seed.
    pub fn inline() -> Self {
        Self {
            slots: None,
            count: 1,
            precedence: Precedence::default(),
            places: Arc::default(),
            buffers: Buffers::default(),
        }
    }

    /// How many run at once.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Which disk's work goes first.
    pub fn precedence(&self) -> &Precedence {
        &self.precedence
    }

    /// What they work on.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The place of long work on `bytes` that begins now.
    pub fn place(&self, bytes: u64) -> Place {
        Place { bytes, number: self.places.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Runs `work`. A panic in it goes on in the task that waits.
    pub fn run<T: Send + 'static>(&self, place: Place, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let Some(slots) = self.slots.clone() else {
            return Box::pin(async move { work() });
        };
        Box::pin(async move {
            let (sender, done) = oneshot::channel();
            let job = move || {
                // Where nobody waits for it any more, it need not be done.
                if !sender.is_closed() {
                    drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
                }
            };
            slots.run(place, Box::new(job));
            match done.await {
                Ok(Ok(value)) => value,
                Ok(Err(panic)) => resume_unwind(panic),
                // The runtime is shutting down and this task with it.
                Err(_) => std::future::pending().await,
            }
        })
    }
}
