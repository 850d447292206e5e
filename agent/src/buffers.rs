//! The large buffers of all disks of an agent. What one disk has no use for any more, another takes rather than memory that is
//! new, each page of which costs the kernel a fault and a clearing: a machine's disks mostly take turns.
//!
//! How much one disk may use is its own bound; none waits for a buffer that another has.

use parking_lot::Mutex;
use sluice_platform::BufPool;
use sluice_proto::BLOCK_BYTES;
use std::sync::{Arc, Weak};

/// The buffers. Clones share them.
#[derive(Clone)]
pub struct Buffers {
    blocks: BufPool,
    /// Kept as long as some cycle is shipped.
    sealed: Arc<Mutex<Weak<Sealed>>>,
}

/// Buffers for what is made of blocks.
#[derive(Default)]
pub struct Sealed {
    /// For encoded blocks.
    pub blocks: Spares,
    /// For segments.
    pub segments: Spares,
}

/// What a cycle at full speed uses of either at once, see `capture`.
const BLOCKS: usize = 7;
const SEGMENTS: usize = 5;

impl Sealed {
    /// Lets go of what so many cycles would not use.
    pub fn keep_for(&self, cycles: usize) {
        self.blocks.keep(cycles * BLOCKS);
        self.segments.keep(cycles * SEGMENTS);
    }
}

/// Buffers that are not in use. Large ones that are freed and asked for anew leave holes that nothing else fills.
#[derive(Default)]
pub struct Spares(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// `count` buffers for blocks as they are read, 1 MiB each.
    pub fn for_blocks(&self, count: usize) -> BufPool {
        self.blocks.sibling(count)
    }

    /// Buffers for what is made of them: those that are in use for another cycle too, or new ones.
    pub fn for_sealed(&self) -> Arc<Sealed> {
        let mut kept = self.sealed.lock();
        kept.upgrade().unwrap_or_else(|| {
            let sealed = Arc::default();
            *kept = Arc::downgrade(&sealed);
            sealed
        })
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self { blocks: BufPool::new(1, BLOCK_BYTES as usize), sealed: Arc::default() }
    }
}

impl Spares {
    /// One that was used before, or one without room.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Gives one back, to be filled again.
    pub fn give_back(&self, bytes: Vec<u8>) {
        self.0.lock().push(bytes);
    }

    fn keep(&self, most: usize) {
        self.0.lock().truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_cycle_gives_back_another_takes_and_with_the_last_it_goes() {
        let buffers = Buffers::default();
        let (one, other) = (buffers.for_sealed(), buffers.clone().for_sealed());
        one.segments.give_back(Vec::with_capacity(7));
        drop(one);
        assert_eq!(other.segments.take().capacity(), 7);
        (0..2 * SEGMENTS).for_each(|_| other.segments.give_back(Vec::with_capacity(7)));
        other.keep_for(1);
        assert_eq!(other.segments.0.lock().len(), SEGMENTS, "more than one cycle uses");
        other.segments.give_back(Vec::with_capacity(7));
        drop(other);
        assert_eq!(buffers.for_sealed().segments.take().capacity(), 0, "kept though nothing is shipped");
    }
}
