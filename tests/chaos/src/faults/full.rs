//! Small file systems that get full.

use super::Fault;
use crate::scene::Scene;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use sluice_test_support::mounts::SmallDisk;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;

/// No room in the cache's folder for a while.
pub struct FullCache {
    /// What is left, in bytes.
    pub room: u64,
    pub filler: Option<PathBuf>,
}

impl Fault for FullCache {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        self.filler = scene.cache.as_ref().and_then(|small| fill(small, self.room));
        scene.counts.add("full caches", u64::from(self.filler.is_some()));
        self.filler.is_some()
    }

    fn end(&mut self, _: &mut Scene) {
        empty(self.filler.take());
    }
}

impl fmt::Display for FullCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache full but for {} KiB", self.room >> 10)
    }
}

/// No room where the targets lie for a while.
pub struct FullTarget {
    /// What is left, in bytes.
    pub room: u64,
    pub filler: Option<PathBuf>,
}

impl Fault for FullTarget {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        self.filler = fill(&scene.targets, self.room);
        scene.counts.add("full targets", u64::from(self.filler.is_some()));
        self.filler.is_some()
    }

    fn end(&mut self, _: &mut Scene) {
        empty(self.filler.take());
    }
}

impl fmt::Display for FullTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "targets' disk full but for {} KiB", self.room >> 10)
    }
}

/// `None` if it is being filled already. Others write meanwhile: what is free changes, and less may be left than asked for.
fn fill(small: &SmallDisk, room: u64) -> Option<PathBuf> {
    let filler = small.path().join("filler");
    let file = File::create_new(&filler).ok()?;
    let facts = statvfs(small.path()).expect("a file system tells what is free");
    let free = facts.blocks_available() * facts.fragment_size();
    let taken = free.saturating_sub(room).max(1);
    match fallocate(&file, FallocateFlags::empty(), 0, taken as i64) {
        Ok(()) | Err(Errno::ENOSPC) => Some(filler),
        Err(error) => panic!("{}: {error}", filler.display()),
    }
}

fn empty(filler: Option<PathBuf>) {
    if let Some(filler) = filler {
        std::fs::remove_file(filler).expect("room again");
    }
}
