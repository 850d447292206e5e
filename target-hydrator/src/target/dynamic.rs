//! Targets that make their blocks as they are written: dynamic VHD and VHDX.

use super::linear::{extent_of, fingerprint};
use super::{Fingerprint, Target, TargetError, TargetErrorKind};
use crate::formats::{FileRange, LiveImage, ReadAt, Step, open_as};
use async_trait::async_trait;
use sluice_platform::{AlignedBuf, DirectFile};
use sluice_proto::env::Entropy;
use sluice_proto::{Extent, GRAIN_SECTORS, Sector, SectorCount};
use std::sync::Arc;
use tokio::sync::{Mutex, RwLock};

/// How far `next_data` looks at once: 1 GiB, so that a table of a large disk is not walked in one go.
const LOOK_SECTORS: u64 = 2 << 20;

/// A dynamic image. Its tables change only in [`Target::sync`], after the data that they expose is on stable storage.
///
/// Where a write failed, or nobody waited for its end, the tables in memory may name blocks that are not in the file. Then
/// everything fails in the same way until the next [`Target::sync`], which opens the image again as after a crash, and
/// fails too: what was written since the one before may be lost.
pub struct DynamicTarget {
    file: DirectFile,
    live: Mutex<Live>,
    /// Held for reading while data is written, for writing while tables are: no table entry may become durable before
    /// the data of the write that made it.
    writing: RwLock<()>,
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
        run(&file, recovery).await?;
        let sectors = image.virtual_size().sectors_ceil();
        let live = Mutex::new(Live { image, lost: None });
        Ok(Self { file, live, writing: RwLock::new(()), entropy, sectors })
    }

    /// Makes blocks for these sectors where there are none; where they are.
    async fn make_room(&self, image: &mut LiveImage, extent: Extent) -> Result<Vec<FileRange>, TargetError> {
        let ranges = image.resolve_write(&Metadata(&self.file), extent).map_err(|e| self.failed(e))?;
        run(&self.file, image.steps_before_data(&*self.entropy)).await?;
        Ok(ranges)
    }

    async fn write_data(&self, at: Sector, bytes: AlignedBuf, ranges: Vec<FileRange>) -> Result<(), TargetError> {
        let mut buf = bytes;
        for range in ranges {
            let from = (range.disk.start.offset() - at.offset()) as usize;
            let part = from..from + range.disk.bytes().0 as usize;
            let (back, result) = self.file.write_at(range.file_offset, buf, part).await;
            result?;
            buf = back;
        }
        Ok(())
    }

    /// Opens the image again, as after a crash.
    async fn open_again(&self, live: &mut Live) -> Result<(), TargetError> {
        // Requests that nobody waits for any more may still be on their way.
        self.file.sync_data().await?;
        let size = self.file.size()?;
        let image = open_as(live.image.format(), &Metadata(&self.file), size).map_err(|e| self.failed(e))?;
        let (image, recovery) = LiveImage::new(image, &*self.entropy);
        run(&self.file, recovery).await?;
        *live = Live { image, lost: None };
        Ok(())
    }

    fn failed(&self, error: crate::formats::FormatError) -> TargetError {
        TargetError::format(&self.describe(), error)
    }
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
        let _writing = self.writing.read().await;
        let extent = extent_of(at, bytes.len());
        let ranges = {
            let mut live = self.live.lock().await;
            let made = self.make_room(live.begin()?, extent).await;
            live.end(made)?
        };
        let written = self.write_data(at, bytes, ranges).await;
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
                let done = run(&self.file, steps).await;
                live.end(done)?;
            }
            present
        };
        for range in present {
            self.file.punch_hole(range.file_offset, range.disk.bytes().0).await?;
        }
        Ok(())
    }

    async fn read(&self, extent: Extent, mut buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        let ranges = self.live.lock().await.image()?.resolve_read(&Metadata(&self.file), extent);
        buf.set_len(extent.bytes().0 as usize);
        for range in ranges.map_err(|e| self.failed(e))? {
            let from = (range.disk.start.offset() - extent.start.offset()) as usize;
            let len = range.disk.bytes().0 as usize;
            match range.file_offset {
                None => buf[from..from + len].fill(0),
                Some(offset) => {
                    let (part, result) = self.file.read_at(offset, AlignedBuf::new(len), len).await;
                    result?;
                    buf[from..from + len].copy_from_slice(&part);
                }
            }
        }
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
        let done = run(&self.file, steps).await;
        live.end(done)
    }

    async fn fingerprint(&self) -> Result<Fingerprint, TargetError> {
        fingerprint(&self.file)
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
