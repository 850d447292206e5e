//! Where hashing, compressing and sealing run: on threads of their own, or, in the simulation, in the only thread.

use sluice_platform::Precedence;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Runs computations away from the tasks that wait for disks and peers.
#[derive(Clone)]
pub struct Workers {
    slots: Option<Arc<Semaphore>>,
    count: usize,
    precedence: Precedence,
}

/// A computation under way.
pub type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Workers {
    /// `count` computations at once at most, each on a thread of the runtime's blocking pool.
    pub fn threads(count: usize) -> Self {
        let count = count.max(1);
        Self { slots: Some(Arc::new(Semaphore::new(count))), count, precedence: Precedence::default() }
    }

    /// As many as the machine has processors.
    pub fn per_processor() -> Self {
        Self::threads(std::thread::available_parallelism().map_or(2, usize::from))
    }

    /// Everything in the thread that asks: one order of events for one seed.
    pub fn inline() -> Self {
        Self { slots: None, count: 1, precedence: Precedence::default() }
    }

    /// How many run at once.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Which disk's work goes first.
    pub fn precedence(&self) -> &Precedence {
        &self.precedence
    }

    /// Runs `work`. A panic in it goes on in the task that waits.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let Some(slots) = self.slots.clone() else {
            return Box::pin(async move { work() });
        };
        Box::pin(async move {
            // The semaphore is never closed.
            let slot = slots.acquire_owned().await;
            let joined = tokio::task::spawn_blocking(move || {
                let _slot = slot;
                work()
            })
            .await;
            match joined {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Cancelled: the runtime is shutting down and this task with it.
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }
}
