//! Random numbers and bytes from a seed that is printed first.

/// A xorshift generator: good enough to be incompressible and unlike itself.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// From `$SLUICE_SEED`, else from the system's random numbers; tells which.
    pub fn announced(test: &str) -> Self {
        let seed = match std::env::var("SLUICE_SEED") {
            Ok(text) => text.parse().expect("SLUICE_SEED is a number"),
            Err(_) => {
                use std::hash::{BuildHasher, Hasher};
                std::hash::RandomState::new().build_hasher().finish()
            }
        };
        eprintln!("{test}: SLUICE_SEED={seed}");
        Self::seeded(seed)
    }

    /// From a seed.
    pub fn seeded(seed: u64) -> Self {
        // Zero is the one state that a xorshift never leaves.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_number() % end
    }

    /// Bytes that don't compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next_number().to_le_bytes()).take(count).collect()
    }
}
