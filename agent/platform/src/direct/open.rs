//! How to open a disk.

use super::DirectFile;
use super::engine::EngineChoice;
use super::error::{IoError, IoOp, IoResult};
use super::files::Files;
use super::handle::Handle;
use std::path::Path;
use std::sync::Arc;

/// The default for how many calls are in the kernel at once. A cycle's changes are scattered, at the source as at the target, and
/// what waits for them is a cycle, not a person: many at once let the disk work at its full rate. A delta of 15,700 places took
/// 0.80 s with its source read so, and 1.26 with 32.
const DEPTH_DEFAULT: u32 = 128;
/// The most calls in the kernel at once; more gain nothing and cost pinned memory.
const DEPTH_MAX: u32 = 1024;

/// How to open a disk: by default for reading, direct, with 128 calls at once, on whichever engine there is.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    write: bool,
    create: bool,
    exclusive: bool,
    direct: bool,
    depth: u32,
    engine: EngineChoice,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// The defaults.
    pub fn new() -> Self {
        let engine = EngineChoice::Auto;
        Self { write: false, create: false, exclusive: false, direct: true, depth: DEPTH_DEFAULT, engine }
    }

    /// For writing too.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Makes the file where there is none, for its owner only (mode 0600). Implies writing.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self.write |= create;
        self
    }

    /// Refuses a block device that is mounted or claimed by somebody else, and a file that another `DirectFile` claims, and
    /// keeps others from claiming it. Right after a `DirectFile` of this process was dropped it may be refused once, where another thread is just starting a
    /// child: the child has copies of all descriptors until it executes its program.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Past the page cache (the default). Where the file system refuses it goes through the cache all the same, as
    /// [`DirectFile::is_direct`] tells.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// How many calls are in the kernel at once: 1 to 1024.
    #[must_use]
    pub fn depth(mut self, depth: u32) -> Self {
        self.depth = depth.clamp(1, DEPTH_MAX);
        self
    }

    /// Which engine to use.
    #[must_use]
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// Opens the disk and starts its thread.
    pub fn open(&self, path: impl AsRef<Path>) -> IoResult<DirectFile> {
        self.open_aligned(path.as_ref(), 1)
    }

    /// As `open`, on a disk that demands at least this alignment of offsets and lengths, in bytes.
    pub(super) fn open_aligned(&self, path: &Path, least: usize) -> IoResult<DirectFile> {
        let failed = |source| IoError::new(IoOp::Open, &path.to_string_lossy().into(), 0, 0, source);
        let mut files = Files::open(path, self.write, self.create, self.exclusive, self.direct).map_err(failed)?;
        files.align.offset = files.align.offset.max(least);
        let files = Arc::new(files);
        let engine = Handle::start(files.clone(), self.engine, self.depth).map_err(failed)?;
        Ok(DirectFile { files, engine })
    }
}
