//! A bell for those who wait for a change.
//!
//! Not `tokio::sync::watch`: that wakes several who wait in an order drawn at random, and a run of the simulation could not
//! be repeated.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// A count of rings. Those who wait are woken in the order in which they came.
pub(super) struct Bell {
    rings: AtomicU64,
    rung: Notify,
}

impl Bell {
    /// A bell that starts to count at `rings`.
    pub(super) fn new(rings: u64) -> Self {
        Self { rings: AtomicU64::new(rings), rung: Notify::new() }
    }

    /// Wakes everybody who waits.
    pub(super) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.rung.notify_waiters();
    }

    /// The newest ring. To be taken before that is looked at which the bell tells of.
    pub(super) fn newest(&self) -> u64 {
        self.rings.load(Ordering::SeqCst)
    }

    /// Returns once another ring than `seen` is the newest.
    pub(super) async fn after(&self, seen: u64) {
        loop {
            // Made before the count is looked at: it hears each ring from here on.
            let rung = self.rung.notified();
            if self.newest() != seen {
                return;
            }
            rung.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (bell, woken) = (Arc::new(Bell::new(7)), Arc::new(Mutex::new(Vec::new())));
        let wait = |who: usize| {
            let (bell, woken) = (bell.clone(), woken.clone());
            tokio::spawn(async move {
                bell.after(7).await;
                woken.lock().push(who);
            })
        };
        let waiting: Vec<_> = (0..50).map(wait).collect();
        tokio::task::yield_now().await;
        assert!(woken.lock().is_empty());
        bell.ring();
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*woken.lock(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_ring_that_was_not_seen_is_not_waited_for() {
        let bell = Bell::new(0);
        let seen = bell.newest();
        bell.ring();
        bell.after(seen).await;
        assert_eq!(bell.newest(), 1);
    }
}
