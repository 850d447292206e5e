//! What all disks of a hydrator share: memory, and who goes first.

use sluice_platform::{Precedence, Short};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Segments that are open at once, over all disks: with 24 MiB each (the object and its plaintext), what bounds the
/// hydrator's memory however many disks it has.
const SEGMENTS_MAX: usize = 4;
/// Of these, how many may be of initial cycles: a small delta never stands behind a large disk's first copy.
const INITIAL_MAX: usize = SEGMENTS_MAX - 1;
/// Plaintext, over all disks, that is held from a cycle's check to its writing, in KiB.
const HELD_KIB_MAX: usize = 32 << 10;

/// The budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    segments: Arc<Semaphore>,
    initial: Arc<Semaphore>,
    held: Arc<Semaphore>,
    precedence: Precedence,
}

impl Default for Budget {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            segments: semaphore(SEGMENTS_MAX),
            initial: semaphore(INITIAL_MAX),
            held: semaphore(HELD_KIB_MAX),
            precedence: Precedence::default(),
        }
    }
}

impl Budget {
    /// A cycle is being applied that is not a first copy: those give way until this is dropped.
    pub(super) fn delta(&self) -> Short {
        self.precedence.short()
    }

    /// To be waited for before each step of a first copy or a comparison.
    pub(crate) async fn give_way(&self) {
        self.precedence.give_way().await;
    }

    /// Waits until one more segment may be opened; whoever came first is served first. It counts until this is dropped.
    pub(super) async fn segment(&self) -> OwnedSemaphorePermit {
        take(&self.segments).await
    }

    /// The same for a segment of an initial cycle.
    pub(super) async fn initial_segment(&self) -> [OwnedSemaphorePermit; 2] {
        self.give_way().await;
        [take(&self.initial).await, take(&self.segments).await]
    }

    /// Room to hold the plaintext of a cycle of `bytes`, if there is as much right now.
    pub(super) fn hold(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        self.held.clone().try_acquire_many_owned(kib).ok()
    }
}

async fn take(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    // These semaphores are never closed.
    semaphore.clone().acquire_owned().await.expect("the budget's semaphores stay open")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn initial_cycles_leave_room_for_another_kind() {
        let budget = Budget::default();
        let initial: Vec<_> = (0..INITIAL_MAX).map(|_| budget.initial_segment().now_or_never()).collect();
        assert!(initial.iter().all(Option::is_some));
        assert!(budget.initial_segment().now_or_never().is_none());
        let delta = budget.segment().now_or_never();
        assert!(delta.is_some() && budget.segment().now_or_never().is_none());
        drop(initial);
        assert!(budget.initial_segment().now_or_never().is_some());
    }

    #[test]
    fn held_plaintext_is_bounded_over_all_disks() {
        let budget = Budget::default();
        let first = budget.hold(20 << 20);
        assert!(first.is_some() && budget.hold(20 << 20).is_none() && budget.hold(12 << 20).is_some());
        drop(first);
        assert!(budget.hold(20 << 20).is_some() && budget.hold(u64::MAX).is_none());
    }
}
