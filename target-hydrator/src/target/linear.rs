//! Targets whose sectors lie in the file in their own order, from one position on.

use super::dynamic::run;
use super::flush::{flush, forget};
use super::unproven::Unproven;
use super::{Fingerprint, Target, TargetError, TargetErrorKind, WriterMark, ranges_of, writer};
use crate::formats::Step;
use async_trait::async_trait;
use sluice_platform::{AlignedBuf, DirectFile, Part};
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES, Sector, SectorCount};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard};

/// A raw image, a fixed VHD or VHDX, or a block device. A crash while data is written can't hurt its format: no metadata
/// changes after it was made, but for what a VHDX's header says of its being written.
#[derive(Debug)]
pub struct LinearTarget {
    file: DirectFile,
    /// The byte of the file that holds byte 0 of the disk.
    start: u64,
    /// Bytes of the disk that are in the file; the last sector may be partial in a raw image.
    size: ByteCount,
    /// What is to be done before the first write.
    first: Mutex<Vec<Step>>,
    begun: AtomicBool,
    /// Held for reading while something is written, for writing while it is flushed; only where reading back takes that.
    writing: RwLock<()>,
}

impl LinearTarget {
    /// The disk of `size` bytes that lies in `file` from byte `start` on. The `first` steps are done before it is first written.
    pub fn new(file: DirectFile, start: u64, size: ByteCount, first: Vec<Step>) -> Self {
        Self {
            file,
            start,
            size,
            begun: AtomicBool::new(first.is_empty()),
            first: Mutex::new(first),
            writing: RwLock::default(),
        }
    }

    /// To be called before anything is changed, and the answer held until it is. Where it fails it is done again, in the same
    /// places.
    async fn begin(&self) -> Result<Option<RwLockReadGuard<'_, ()>>, TargetError> {
        let writing = match self.file.is_direct() {
            true => None,
            false => Some(self.writing.read().await),
        };
        if self.begun.load(Ordering::Acquire) {
            return Ok(writing);
        }
        let mut first = self.first.lock().await;
        let mut unproven = Unproven::default();
        run(&self.file, unproven.note(first.clone())).await?;
        forget(&self.file).await;
        unproven.prove(&self.file).await?;
        first.clear();
        self.begun.store(true, Ordering::Release);
        Ok(writing)
    }

    /// Where the extent is in the file: offset and length in bytes, without what a partial last sector lacks.
    fn place(&self, extent: Extent) -> Result<(u64, u64), TargetError> {
        if !extent.is_within(self.sectors()) {
            let text = format!("{extent} are not on target {}, which has {} sectors", self.describe(), self.sectors());
            return Err(TargetError::new(TargetErrorKind::TooSmall, text));
        }
        let offset = extent.start.offset();
        Ok((self.start + offset, extent.bytes().0.min(self.size.0 - offset)))
    }

    /// Where the extents are in the file, their bytes lying one behind the other.
    fn parts(&self, extents: &[Extent]) -> Result<Vec<Part>, TargetError> {
        let part = |(extent, range): (Extent, std::ops::Range<usize>)| {
            let (offset, len) = self.place(extent)?;
            Ok(Part { offset, range: range.start..range.start + len as usize })
        };
        ranges_of(extents).map(part).collect()
    }
}

/// The extent of `len` bytes, whole sectors, from `at` on.
pub(super) fn extent_of(at: Sector, len: usize) -> Extent {
    debug_assert_eq!(len as u64 % SECTOR_BYTES, 0);
    Extent::new(at.0, len as u64 / SECTOR_BYTES)
}

#[async_trait]
impl Target for LinearTarget {
    fn sectors(&self) -> SectorCount {
        self.size.sectors_ceil()
    }

    async fn write(&self, at: Sector, bytes: AlignedBuf) -> Result<(), TargetError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (offset, len) = self.place(extent_of(at, bytes.len()))?;
        let _writing = self.begin().await?;
        Ok(self.file.write_at(offset, bytes, 0..len as usize).await.1?)
    }

    async fn write_parts(&self, extents: &[Extent], bytes: AlignedBuf) -> Result<(), TargetError> {
        let parts = self.parts(extents)?;
        let _writing = self.begin().await?;
        Ok(self.file.write_parts(parts, bytes).await.1?)
    }

    async fn zero(&self, extent: Extent) -> Result<(), TargetError> {
        if extent.is_empty() {
            return Ok(());
        }
        let (offset, len) = self.place(extent)?;
        let _writing = self.begin().await?;
        Ok(self.file.punch_hole(offset, len).await?)
    }

    async fn read(&self, extent: Extent, buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        if extent.is_empty() {
            return Ok(buf);
        }
        let (offset, len) = self.place(extent)?;
        let (mut buf, result) = self.file.read_at(offset, buf, len as usize).await;
        result?;
        buf.set_len(extent.bytes().0 as usize);
        buf[len as usize..].fill(0);
        Ok(buf)
    }

    async fn read_parts(&self, extents: &[Extent], mut buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        let parts = self.parts(extents)?;
        let (read, whole) = (parts.last().map_or(0, |part| part.range.end), sum_of(extents));
        buf.set_len(whole);
        let (mut buf, result) = self.file.read_parts(parts, buf).await;
        result?;
        // Only the disk's last sector may be partial in the file.
        buf[read..].fill(0);
        Ok(buf)
    }

    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError> {
        let end = self.start + self.size.0;
        let offset = self.start.saturating_add(from.offset());
        if from >= Sector(self.sectors().0) {
            return Ok(None);
        }
        let Some(range) = self.file.next_data(offset).await? else { return Ok(None) };
        if range.start >= end {
            return Ok(None);
        }
        let first = (range.start - self.start) / SECTOR_BYTES;
        let behind = (range.end.min(end) - self.start).div_ceil(SECTOR_BYTES);
        Ok(Some(Extent::new(first, behind - first)))
    }

    async fn sync(&self) -> Result<(), TargetError> {
        let _nothing_written = match self.file.is_direct() {
            true => None,
            false => Some(self.writing.write().await),
        };
        flush(&self.file).await
    }

    async fn fingerprint(&self) -> Result<Fingerprint, TargetError> {
        fingerprint(&self.file)
    }

    async fn marked_by(&self) -> Result<Option<WriterMark>, TargetError> {
        writer::marked_by(&self.file)
    }

    async fn mark(&self, by: WriterMark) -> Result<bool, TargetError> {
        writer::mark(&self.file, by).await
    }

    fn describe(&self) -> String {
        self.file.path().display().to_string()
    }
}

/// How many bytes the extents have.
pub(super) fn sum_of(extents: &[Extent]) -> usize {
    extents.iter().map(|extent| extent.bytes().0 as usize).sum()
}

/// Asks the file system about the open file.
pub(super) fn fingerprint(file: &DirectFile) -> Result<Fingerprint, TargetError> {
    let size = file.size()?.0;
    Fingerprint::of(file.file(), file.path(), size).map_err(|e| {
        TargetError::caused(TargetErrorKind::Io, format!("cannot query target {}: {e}", file.path().display()), e)
    })
}
