//! A disk that becomes larger while it is copied.

use super::Fault;
use crate::scene::Scene;
use std::fmt;

/// A source grows, and stays so: a disk in use does not shrink.
pub struct Grow {
    /// Which of the sources.
    pub source: usize,
    /// By how much, in sectors of 512 bytes.
    pub sectors: u64,
}

impl Fault for Grow {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let grown = scene.sources[self.source].grow(self.sectors * 512);
        scene.counts.add("disks grown", u64::from(grown));
        grown
    }

    fn end(&mut self, _: &mut Scene) {}
}

impl fmt::Display for Grow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk-{} grows by {} sectors", self.source, self.sectors)
    }
}
