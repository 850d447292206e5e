//! Who writes to a disk while it is replicated.

use crate::disk::Noise;
use anyhow::{Context, Result};
use sluice_platform::buf::AlignedBuf;
use sluice_platform::direct::DirectFile;
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes that come at a rate, random bytes at random places.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// What is written at once, in bytes.
    pub piece: usize,
    /// Where it ends, in bytes: it begins at 0.
    pub end: u64,
    /// At how many places, evenly spread; a sparse disk takes no more room than these.
    pub places: u64,
    /// For how long.
    pub seconds: u64,
    /// Of its places and bytes.
    pub seed: u64,
}

impl Churn {
    /// Writes; how many bytes a second these were. `each` is called between writes.
    pub fn write(&self, path: &Path, mut each: impl FnMut(Duration) -> Result<()>) -> Result<f64> {
        let disk = DirectFile::open_rw(path)?;
        let mut noise = Noise::new(self.seed);
        let mut buffer = AlignedBuf::zeroed(self.piece);
        let pieces_apart = (self.end / self.piece as u64 / self.places).max(1);
        let (start, mut written) = (Instant::now(), 0_u64);
        while start.elapsed().as_secs() < self.seconds {
            noise.fill(&mut buffer);
            let at = noise.below(self.places) * pieces_apart * self.piece as u64;
            let (back, result) = disk.write_at_blocking(at, buffer, 0..self.piece);
            result.with_context(|| format!("writing to {}", path.display()))?;
            buffer = back;
            written += self.piece as u64;
            each(start.elapsed())?;
            let due = Duration::from_secs_f64(written as f64 / self.bytes_per_second as f64);
            // sleep: writes keep to their rate.
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        Ok(written as f64 / start.elapsed().as_secs_f64())
    }
}
