//! What the core may ask of its surroundings: the time and random bytes. The simulation answers in its own way.

/// Wall-clock time. Durations and timers go by `tokio::time`, which the simulation drives; this is for what people read.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970-01-01 UTC. May jump either way.
    fn unix_ms(&self) -> u64;
}

/// A source of random bytes, good enough for keys.
pub trait Entropy: Send + Sync {
    /// Fills `out` whole.
    fn fill(&self, out: &mut [u8]);
}
