//! Memory that all disks of a hydrator share.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Segments that are open at once, over all disks: with 24 MiB each (the object and its plaintext), what bounds the
/// hydrator's memory however many disks it has.
const SEGMENTS_MAX: usize = 3;
/// Plaintext, over all disks, that is held from a cycle's check to its writing, in KiB: scattered sectors take twice as much,
/// as each has a page of its own.
const HELD_KIB_MAX: usize = 32 << 10;

/// The budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    segments: Arc<Semaphore>,
    held: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { segments: Arc::new(Semaphore::new(SEGMENTS_MAX)), held: Arc::new(Semaphore::new(HELD_KIB_MAX)) }
    }
}

impl Budget {
    /// Waits until one more segment may be opened; whoever came first is served first. It counts until this is dropped.
    pub(super) async fn segment(&self) -> OwnedSemaphorePermit {
        // The semaphore is never closed.
        self.segments.clone().acquire_owned().await.expect("the budget's semaphore stays open")
    }

    /// Room to hold the plaintext of a cycle of `bytes`, if there is as much right now.
    pub(super) fn hold(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        self.held.clone().try_acquire_many_owned(kib).ok()
    }
}
