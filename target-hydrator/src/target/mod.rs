//! The target: the disk that a cycle is applied to, as the rest of the hydrator sees it.
//!
//! [`Target`] is small, so that a simulated disk can stand in for it. The real ones write through
//! `sluice_platform::DirectFile`: [`LinearTarget`] where the position in the file is arithmetic (raw images, fixed VHD
//! and VHDX, block devices), [`DynamicTarget`] where blocks are made as they are written. [`plan`] decides whether a
//! target may be made, and makes it only after that.

mod dynamic;
mod error;
mod fingerprint;
mod flush;
mod linear;
mod memory;
pub mod plan;
mod unflushed;
mod unproven;
mod writer;

#[cfg(test)]
mod tests;

pub use dynamic::DynamicTarget;
pub use error::{TargetError, TargetErrorKind};
pub use fingerprint::Fingerprint;
pub use linear::LinearTarget;
pub use memory::{MemoryDisk, MemoryTarget};
pub use unflushed::{Unflushed, Watched};
pub use writer::{WRITER_ATTRIBUTE, WriterMark};

use async_trait::async_trait;
use sluice_platform::{AlignedBuf, DirectFile};
use sluice_proto::{Extent, Sector, SectorCount};
use std::ops::Range;

/// A disk to write to, in sectors as its guest will see them. Calls on different sectors may run side by side.
#[async_trait]
pub trait Target: Send + Sync {
    /// How many sectors a guest sees: the source's, rounded up by the format's rules.
    fn sectors(&self) -> SectorCount;

    /// Writes `bytes`, whole sectors, from sector `at` on. Durable only after [`Target::sync`].
    async fn write(&self, at: Sector, bytes: AlignedBuf) -> Result<(), TargetError>;

    /// As [`Target::write`] for extents that ascend; their bytes lie one behind the other.
    async fn write_parts(&self, extents: &[Extent], bytes: AlignedBuf) -> Result<(), TargetError> {
        if let [extent] = extents {
            return self.write(extent.start, bytes).await;
        }
        for (extent, range) in ranges_of(extents) {
            self.write(extent.start, AlignedBuf::from_slice(&bytes[range])).await?;
        }
        Ok(())
    }

    /// Makes the sectors read as zeros and gives their space back where that can be done. Durable as for `write`.
    async fn zero(&self, extent: Extent) -> Result<(), TargetError>;

    /// Fills `buf` with the sectors of `extent`, from the medium, not from what was just written. Its capacity must
    /// be enough; its length is that of the extent then.
    async fn read(&self, extent: Extent, buf: AlignedBuf) -> Result<AlignedBuf, TargetError>;

    /// As [`Target::read`] for extents that ascend; their bytes lie one behind the other.
    async fn read_parts(&self, extents: &[Extent], mut buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        if let [extent] = extents {
            return self.read(*extent, buf).await;
        }
        buf.clear();
        for extent in extents {
            let part = self.read(*extent, AlignedBuf::new(extent.bytes().0 as usize)).await?;
            buf.extend_from_slice(&part);
        }
        Ok(buf)
    }

    /// The first run of sectors at or after `from` that may hold something other than zeros; `None` where none follows.
    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError>;

    /// Returns when all writes that have answered are on stable storage.
    async fn sync(&self) -> Result<(), TargetError>;

    /// What would change if somebody else wrote to the target or put another in its place.
    async fn fingerprint(&self) -> Result<Fingerprint, TargetError>;

    /// Whose mark the target bears; `None` where it can't bear any.
    async fn marked_by(&self) -> Result<Option<WriterMark>, TargetError>;

    /// Puts the mark of whoever begins to write on the target, durably: before the first [`Target::write`]. It changes the
    /// fingerprint. False where the target can't bear it.
    async fn mark(&self, by: WriterMark) -> Result<bool, TargetError>;

    /// What and where the target is, for people.
    fn describe(&self) -> String;
}

/// Where each extent's bytes lie where they lie one behind the other.
fn ranges_of(extents: &[Extent]) -> impl Iterator<Item = (Extent, Range<usize>)> + '_ {
    extents.iter().scan(0, |at, extent| {
        let from = *at;
        *at += extent.bytes().0 as usize;
        Some((*extent, from..*at))
    })
}

/// An open disk as the formats read metadata from it.
pub(crate) fn read_only(file: &DirectFile) -> impl crate::formats::ReadAt + '_ {
    dynamic::Metadata(file)
}
