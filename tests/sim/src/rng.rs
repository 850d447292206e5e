//! Randomness from a seed: the same seed, the same run.

use parking_lot::Mutex;
use sluice_proto::env::Entropy;
use std::sync::Arc;
use std::time::Duration;

/// A stream of numbers; clones draw from the same stream.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<u64>>);

impl Rng {
    /// The stream that `seed` and `purpose` name: purposes do not disturb each other.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self(Arc::new(Mutex::new(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03),
        )))
    }

    /// The next number (SplitMix64).
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `one_in` times; never for 0.
    pub fn once_in(&self, one_in: u64) -> bool {
        one_in > 0 && self.below(one_in) == 0
    }

    /// A duration up to `ms_max`, in whole milliseconds, as the runtime's clock ticks in them.
    pub fn pause(&self, ms_max: u64) -> Duration {
        Duration::from_millis(self.below(ms_max + 1))
    }
}

impl Entropy for Rng {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
