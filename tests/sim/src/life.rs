//! The life of a process: it may be told to die at its Nth operation, and then does nothing more.

use crate::rng::Rng;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

/// One incarnation of a process.
#[derive(Clone)]
pub struct Life(Arc<Inner>);

struct Inner {
    /// Operations left; `None` lives until it is killed.
    left: Mutex<Option<u64>>,
    dead: Mutex<bool>,
    died: Notify,
    rng: Rng,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is done and answers.
    Go,
    /// It is done, but nobody hears of it.
    DoneUnheard,
    /// It is not done.
    NotDone,
}

impl Life {
    /// A life of `operations`.
    pub fn new(operations: Option<u64>, rng: Rng) -> Self {
        Self(Arc::new(Inner { left: Mutex::new(operations), dead: Mutex::new(false), died: Notify::new(), rng }))
    }

    /// Counts one operation.
    pub fn step(&self) -> Step {
        if self.is_dead() {
            return Step::NotDone;
        }
        let mut left = self.0.left.lock();
        match &mut *left {
            Some(0) => {
                drop(left);
                self.kill();
                if self.0.rng.once_in(2) { Step::DoneUnheard } else { Step::NotDone }
            }
            Some(n) => {
                *n -= 1;
                Step::Go
            }
            None => Step::Go,
        }
    }

    /// What comes of `act`, an operation of the process: never returns where it dies of that, done or not.
    pub async fn carry_out<T>(&self, act: impl Future<Output = T>) -> T {
        let step = self.step();
        if step == Step::NotDone {
            std::future::pending::<()>().await;
        }
        let done = act.await;
        if step == Step::DoneUnheard {
            std::future::pending::<()>().await;
        }
        done
    }

    /// Ends it.
    pub fn kill(&self) {
        *self.0.dead.lock() = true;
        self.0.died.notify_waiters();
        self.0.died.notify_one();
    }

    /// True once it has ended.
    pub fn is_dead(&self) -> bool {
        *self.0.dead.lock()
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        while !self.is_dead() {
            self.0.died.notified().await;
        }
    }

    /// What comes of `work` at this process; `None` if it dies before.
    pub async fn lives_through<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.ended() => None,
            done = work => Some(done),
        }
    }

    /// Never returns where the process is dead: nothing after it happens.
    pub async fn or_never(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}
