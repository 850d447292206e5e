//! The disk that is protected, as the rest of the agent sees it: sectors that can be read.

mod device;

pub use device::{DeviceSource, Rest};

use async_trait::async_trait;
use sluice_platform::AlignedBuf;
use sluice_proto::cycle::FailReason;
use sluice_proto::{ByteCount, Extent};

/// A source can't give its sectors.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// What becomes of the cycle.
    pub reason: FailReason,
    /// Which device and sectors, what happened, what to do.
    pub detail: String,
}

impl SourceError {
    /// A source that can't be read.
    pub fn read(detail: impl Into<String>) -> Self {
        Self { reason: FailReason::SourceRead, detail: detail.into() }
    }
}

/// A disk to be read.
#[async_trait]
pub trait Source: Send + Sync {
    /// What people call it.
    fn name(&self) -> String;

    /// Its size when it was opened, in bytes. May end within a sector.
    fn size(&self) -> ByteCount;

    /// Its logical sector in bytes.
    fn logical_sector(&self) -> u32;

    /// Its size now. A size that changed while it is protected ends the cycle; an error says that the source has
    /// vanished, which ends its protection until it is there again.
    async fn current_size(&self) -> Result<ByteCount, SourceError>;

    /// Reads `extents`, one behind the other, to the front of `buf`, whose length becomes theirs. Bytes beyond the end of
    /// a source that ends within a sector are zeros. The buffer comes back in any case.
    async fn read(&self, extents: &[Extent], buf: AlignedBuf) -> (AlignedBuf, Result<(), SourceError>);

    /// The first data at or after the byte `offset`, as a range of bytes; what lies before it reads as zeros. `None`
    /// where nothing but zeros follows. A source that can't tell answers with everything from `offset`.
    async fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, SourceError>;

    /// True where nobody can write at this moment: to a device that is read-only and was when it was opened, or to a file under
    /// a lease that nobody broke. Who relies on it for a time asks at its beginning and at its end. A device that was made
    /// writable between the two and read-only again is not noticed.
    fn proven_at_rest(&self) -> bool;
}
