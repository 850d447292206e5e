//! Block devices and image files.

use super::{Source, SourceError};
use async_trait::async_trait;
use futures_util::future::join_all;
use sluice_platform::{AlignedBuf, DirectFile, Part};
use sluice_proto::cycle::FailReason;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES};
use std::ops::Range;
use std::time::Duration;

/// How often a read is tried before the cycle fails.
const READ_TRIES: u32 = 3;
/// How many extents of one block are read at once: each has a buffer of whole pages, and a block of single sectors has
/// 2048 of them.
const EXTENTS_AT_ONCE: usize = 8;
/// The pause before a failed read is tried again.
const READ_PAUSE: Duration = Duration::from_millis(200);

/// A block device or an image file, read with `O_DIRECT`.
pub struct DeviceSource {
    file: DirectFile,
    name: String,
    size: ByteCount,
    logical_sector: u32,
    rest: Rest,
}

/// How it can be known that nobody writes.
pub enum Rest {
    /// It can't.
    Unknown,
    /// The device was read-only when it was opened, which is asked again each time, as it can be changed.
    ReadOnly,
    /// A lease on the file, broken as soon as anybody opens it for writing.
    Lease(sluice_platform::lease::ReadLease),
}

impl DeviceSource {
    /// The source in an open device or file.
    ///
    /// # Errors
    /// A size that can't be told, or none.
    pub fn new(file: DirectFile, name: String, logical_sector: u32, rest: Rest) -> Result<Self, SourceError> {
        let size = file.size().map_err(|e| SourceError::read(e.to_string()))?;
        if size.0 == 0 {
            return Err(SourceError::read(format!("{name}: the source is empty; check that it is the right one")));
        }
        Ok(Self { file, name, size, logical_sector, rest })
    }

    /// Reads one extent to the front of `buf`, and zeros what lies beyond the source's end.
    async fn read_extent(&self, extent: Extent, mut buf: AlignedBuf) -> (AlignedBuf, Result<(), SourceError>) {
        let want = extent.bytes().0 as usize;
        let len = want.min(self.size.0.saturating_sub(extent.start.offset()) as usize);
        for attempt in 1.. {
            let (back, result) = self.file.read_at(extent.start.offset(), buf, len).await;
            buf = back;
            match result {
                Ok(()) => break,
                Err(error) if attempt == READ_TRIES => return (buf, Err(self.read_error(extent, &error))),
                Err(error) => {
                    tracing::warn!(source = self.name, %extent, attempt, %error, "read failed, trying again");
                    tokio::time::sleep(READ_PAUSE).await;
                }
            }
        }
        buf.set_len(want);
        buf[len..].fill(0);
        (buf, Ok(()))
    }

    /// Where the extents' bytes are, one behind the other; `None` where the source ends within them.
    fn parts(&self, extents: &[Extent]) -> Option<Vec<Part>> {
        let mut at = 0;
        let mut parts = Vec::with_capacity(extents.len());
        for extent in extents {
            let (offset, len) = (extent.start.offset(), extent.bytes().0);
            if offset + len > self.size.0 {
                return None;
            }
            parts.push(Part { offset, range: at..at + len as usize });
            at += len as usize;
        }
        Some(parts)
    }

    fn read_error(&self, extent: Extent, error: &dyn std::fmt::Display) -> SourceError {
        SourceError::read(format!(
            "{}: {extent} can't be read after {READ_TRIES} tries: {error}; check the disk and its cabling or path. \
             Nothing is lost: the sectors go into the next cycle",
            self.name
        ))
    }
}

#[async_trait]
impl Source for DeviceSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> ByteCount {
        self.size
    }

    fn logical_sector(&self) -> u32 {
        self.logical_sector
    }

    async fn current_size(&self) -> Result<ByteCount, SourceError> {
        let vanished = |why: String| SourceError {
            reason: FailReason::SourceRead,
            detail: format!("{}: {why}; the source has vanished: attach it again, or stop protecting it", self.name),
        };
        match self.file.size() {
            // What an open disk that was pulled out says of itself.
            Ok(ByteCount(0)) if self.file.is_block_device() => Err(vanished("it has no sectors any more".into())),
            Ok(size) => Ok(size),
            Err(error) => Err(vanished(error.to_string())),
        }
    }

    async fn read(&self, extents: &[Extent], mut buf: AlignedBuf) -> (AlignedBuf, Result<(), SourceError>) {
        if let [extent] = extents {
            return self.read_extent(*extent, buf).await;
        }
        if let Some(parts) = self.parts(extents) {
            buf.set_len(parts.last().map_or(0, |part| part.range.end));
            let (back, result) = self.file.read_parts(parts, buf).await;
            buf = back;
            match result {
                Ok(()) => return (buf, Ok(())),
                // Once more, extent by extent: that finds which one it is, and tries again.
                Err(error) => tracing::warn!(source = self.name, %error, "read failed, trying again"),
            }
        }
        buf.clear();
        for some in extents.chunks(EXTENTS_AT_ONCE) {
            let room = |e: &Extent| AlignedBuf::new((e.bytes().0 as usize).max(SECTOR_BYTES as usize));
            for (part, result) in join_all(some.iter().map(|e| self.read_extent(*e, room(e)))).await {
                if result.is_err() {
                    return (buf, result);
                }
                buf.extend_from_slice(&part);
            }
        }
        (buf, Ok(()))
    }

    async fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        if self.file.is_block_device() {
            return Ok((offset < self.size.0).then_some(offset..self.size.0));
        }
        self.file.next_data(offset).await.map_err(|e| SourceError::read(format!("{}: {e}", self.name)))
    }

    fn proven_at_rest(&self) -> bool {
        match &self.rest {
            Rest::Unknown => false,
            Rest::ReadOnly => sluice_platform::device::refuses_all_writes(self.file.file()),
            Rest::Lease(lease) => lease.is_unbroken(),
        }
    }
}

#[cfg(test)]
mod tests;
