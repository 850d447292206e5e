//! Targets that make their blocks as they are written: dynamic VHD and VHDX.

use super::flush::{flush, forget};
use super::linear::{extent_of, fingerprint, sum_of};
use super::unproven::Unproven;
use super::{Fingerprint, Target, TargetError, TargetErrorKind, WriterMark, ranges_of, writer};
use crate::formats::{FileRange, LiveImage, ReadAt, Step, open_as};
use async_trait::async_trait;
use sluice_platform::{AlignedBuf, DirectFile, Part};
use sluice_proto::env::Entropy;
use sluice_proto::{Extent, GRAIN_SECTORS, Sector, SectorCount};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{Mutex, RwLock};

/// How far `next_data` looks at once: 1 GiB, so that a table of a large disk is not walked in one go.
const LOOK_SECTORS: u64 = 2 << 20;

/// A dynamic image. Its tables change only in [`Target::sync`], after the data that they expose is on stable storage.
///
/// Where a write failed, or nobody waited for its end, the tables in memory may name blocks that are not in the file. Then
/// everything fails in the same way until the next [`Target::sync`], which opens the image again as after a crash, and
/// fails too: what was written since the one before may be lost. It fails so, too, where the tables that it has written are not
/// on the medium.
pub struct DynamicTarget {
    file: DirectFile,
    live: Mutex<Live>,
    /// Held for reading while data is written, for writing while tables are: no table entry may become durable before
    /// the data of the write that made it.
    writing: RwLock<()>,
    /// Tables that were written since the last flush; it reads them back.
    unproven: parking_lot::Mutex<Unproven>,
    entropy: Arc<dyn Entropy>,
    sectors: SectorCount,
}

/// The image as it is in memory.
struct Live {
    image: LiveImage,
    /// Why it no longer knows what is in the file.
    lost: Option<(TargetErrorKind, String)>,
}

impl Live {
    /// The image, if it knows what is in the file.
    fn image(&self) -> Result<&LiveImage, TargetError> {
        match &self.lost {
            None => Ok(&self.image),
            Some((kind, why)) => Err(TargetError::new(*kind, why.clone())),
        }
    }

    /// The image, to be changed together with the file. It counts as lost until [`Live::end`] says that all went well:
    /// whoever waits for the change may stop waiting in the middle.
    fn begin(&mut self) -> Result<&mut LiveImage, TargetError> {
        self.image()?;
        self.lost = Some((TargetErrorKind::Io, "an earlier write to the target was cut short".to_owned()));
        Ok(&mut self.image)
    }

    fn end<T>(&mut self, result: Result<T, TargetError>) -> Result<T, TargetError> {
        self.lost = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
        result
    }
}

impl DynamicTarget {
    /// Takes over an image that was opened from `file`. `recovery` are the steps that came with it.
    pub async fn new(
        file: DirectFile,
        image: LiveImage,
        recovery: Vec<Step>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, TargetError> {
        let mut unproven = Unproven::default();
        run(&file, unproven.note(recovery)).await?;
        let sectors = image.virtual_size().sectors_ceil();
        let live = Mutex::new(Live { image, lost: None });
        Ok(Self { file, live, writing: RwLock::new(()), unproven: unproven.into(), entropy, sectors })
    }

    /// Changes tables; the next flush reads them back.
    async fn run(&self, steps: Vec<Step>) -> Result<(), TargetError> {
        let steps = self.unproven.lock().note(steps);
        run(&self.file, steps).await
    }

    /// Flushes data and tables, and reads the tables back.
    async fn flush(&self, steps: Vec<Step>) -> Result<(), TargetError> {
        self.run(steps).await?;
        forget(&self.file).await;
        let written = std::mem::take(&mut *self.unproven.lock());
        written.prove(&self.file).await
    }

    /// Makes blocks for these sectors where there are none; where they are.
    async fn make_room(&self, image: &mut LiveImage, extent: Extent) -> Result<Vec<FileRange>, TargetError> {
        let ranges = image.resolve_write(&Metadata(&self.file), extent).map_err(|e| self.failed(e))?;
        self.run(image.steps_before_data(&*self.entropy)).await?;
        Ok(ranges)
    }

    /// Opens the image again, as after a crash.
    async fn open_again(&self, live: &mut Live) -> Result<(), TargetError> {
        // Requests that nobody waits for any more may still be on their way.
        flush(&self.file).await?;
        let size = self.file.size()?;
        let image = open_as(live.image.format(), &Metadata(&self.file), size).map_err(|e| self.failed(e))?;
        let (image, recovery) = LiveImage::new(image, &*self.entropy);
        *self.unproven.lock() = Unproven::default();
        self.run(recovery).await?;
        *live = Live { image, lost: None };
        Ok(())
    }

    fn failed(&self, error: crate::formats::FormatError) -> TargetError {
        TargetError::format(&self.describe(), error)
    }
}

/// What of `extent`, whose bytes are `bytes` of a buffer, lies at `offset` of the file: `disk`.
fn part(offset: u64, disk: Extent, extent: Extent, bytes: &Range<usize>) -> Part {
    let from = bytes.start + (disk.start.offset() - extent.start.offset()) as usize;
    Part { offset, range: from..from + disk.bytes().0 as usize }
}

/// Reads metadata through the same file that is written, so that nothing is cached elsewhere.
pub(super) struct Metadata<'a>(pub &'a DirectFile);

impl ReadAt for Metadata<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let (read, result) = self.0.read_at_blocking(offset, AlignedBuf::new(buf.len()), buf.len());
        result?;
        buf.copy_from_slice(&read);
        Ok(())
    }
}

/// Does the steps in order.
pub(super) async fn run(file: &DirectFile, steps: impl IntoIterator<Item = Step>) -> Result<(), TargetError> {
    for step in steps {
        match step {
            Step::SetLen(len) => file.set_len(sluice_proto::ByteCount(len)).await?,
            Step::Write(offset, bytes) => {
                let len = bytes.len();
                file.write_at(offset, AlignedBuf::from_slice(&bytes), 0..len).await.1?;
            }
            Step::Sync => file.sync_data().await?,
        }
    }
    Ok(())
}

#[async_trait]
impl Target for DynamicTarget {
    fn sectors(&self) -> SectorCount {
        self.sectors
    }

    async fn write(&self, at: Sector, bytes: AlignedBuf) -> Result<(), TargetError> {
        self.write_parts(&[extent_of(at, bytes.len())], bytes).await
    }

    async fn write_parts(&self, extents: &[Extent], bytes: AlignedBuf) -> Result<(), TargetError> {
        let _writing = self.writing.read().await;
        let mut parts = Vec::with_capacity(extents.len());
        {
            let mut live = self.live.lock().await;
            for (extent, bytes) in ranges_of(extents) {
                let made = self.make_room(live.begin()?, extent).await;
                let ranges = live.end(made)?;
                parts.extend(ranges.iter().map(|range| part(range.file_offset, range.disk, extent, &bytes)));
            }
        }
        let written = self.file.write_parts(parts, bytes).await.1.map_err(TargetError::from);
        if written.is_err() {
            return self.live.lock().await.end(written);
        }
        written
    }

    async fn zero(&self, extent: Extent) -> Result<(), TargetError> {
        let _writing = self.writing.read().await;
        let present = {
            let mut live = self.live.lock().await;
            let present = live.image()?.resolve_present(&Metadata(&self.file), extent).map_err(|e| self.failed(e))?;
            if !present.is_empty() {
                let steps = live.begin()?.steps_before_data(&*self.entropy);
                let done = self.run(steps).await;
                live.end(done)?;
            }
            present
        };
        for range in present {
            self.file.punch_hole(range.file_offset, range.disk.bytes().0).await?;
        }
        Ok(())
    }

    async fn read(&self, extent: Extent, buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        self.read_parts(&[extent], buf).await
    }

    async fn read_parts(&self, extents: &[Extent], mut buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        buf.set_len(sum_of(extents));
        let mut parts = Vec::with_capacity(extents.len());
        {
            let live = self.live.lock().await;
            for (extent, bytes) in ranges_of(extents) {
                let ranges = live.image()?.resolve_read(&Metadata(&self.file), extent);
                for range in ranges.map_err(|e| self.failed(e))? {
                    let part = part(range.file_offset.unwrap_or_default(), range.disk, extent, &bytes);
                    match range.file_offset {
                        None => buf[part.range].fill(0),
                        Some(_) => parts.push(part),
                    }
                }
            }
        }
        let (buf, result) = self.file.read_parts(parts, buf).await;
        result?;
        Ok(buf)
    }

    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError> {
        let mut at = from.0;
        while at < self.sectors.0 {
            let end = (at + LOOK_SECTORS).min(self.sectors.0);
            let window = Extent::new(at, end - at);
            let present = self.live.lock().await.image()?.resolve_present(&Metadata(&self.file), window);
            if let Some(range) = present.map_err(|e| self.failed(e))?.first() {
                return Ok(Some(range.disk));
            }
            at = end;
        }
        Ok(None)
    }

    async fn sync(&self) -> Result<(), TargetError> {
        let _all_written = self.writing.write().await;
        let mut live = self.live.lock().await;
        if let Err(error) = live.image() {
            self.open_again(&mut live).await?;
            return Err(error);
        }
        let steps = live.begin()?.steps_after_data(&*self.entropy);
        let done = self.flush(steps).await;
        live.end(done)
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

impl std::fmt::Debug for DynamicTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamicTarget").field("file", &self.file).field("sectors", &self.sectors).finish()
    }
}

/// The smallest part of a disk that reading by grains asks for must not be split by the image's own blocks.
const _: () = assert!(LOOK_SECTORS.is_multiple_of(GRAIN_SECTORS));

impl From<std::io::Error> for TargetError {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => TargetErrorKind::Full,
            _ => TargetErrorKind::Io,
        };
        let text = error.to_string();
        Self::caused(kind, text, error)
    }
}
