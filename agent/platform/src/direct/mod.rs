//! A disk or an image file, read and written past the page cache.
//!
//! [`DirectFile`] belongs to many tasks at once: each request hands its buffer over and gets it back with the answer,
//! so a caller may stop waiting at any moment. Offsets and lengths are in bytes and of any value: what the device or the
//! file system demands is met inside. Aligned requests cost no copy.
//!
//! Writes that touch the same aligned unit happen one after the other, in the order in which they were asked for. That
//! holds within one `DirectFile` only: two that write one disk, or another program that does, are not kept apart. Reads
//! are not ordered against writes; who wants to read what was written waits for the write first.

#[allow(unsafe_code)]
mod engine;
mod error;
#[allow(unsafe_code)]
pub(crate) mod files;
mod handle;
mod job;
mod open;
mod plan;
mod pool;
#[allow(unsafe_code)]
mod ring;
mod scatter;

pub use engine::{EngineChoice, EngineKind};
pub use error::{IoError, IoErrorKind, IoOp, IoResult};
pub use files::Alignment;
pub use open::OpenOptions;
pub use scatter::Part;

use crate::blocking;
use crate::buf::AlignedBuf;
use files::Files;
use futures_util::future::join_all;
use handle::{Event, Handle};
use job::{Answer, Ask};
use scatter::Scatter;
use sluice_proto::units::ByteCount;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Parts that are asked for at once where each needs a buffer of its own, of whole pages.
const PARTS_AT_ONCE: usize = 16;

/// An open disk. See the module for what it promises. Dropping it waits for the calls under way.
pub struct DirectFile {
    files: Arc<Files>,
    engine: Handle,
}

impl DirectFile {
    /// Opens a disk for reading, with the default options.
    pub fn open(path: impl AsRef<Path>) -> IoResult<Self> {
        OpenOptions::new().open(path)
    }

    /// Opens a disk for reading and writing, with the default options.
    pub fn open_rw(path: impl AsRef<Path>) -> IoResult<Self> {
        OpenOptions::new().write(true).open(path)
    }

    /// Fills the buffer with `len` bytes from `offset`; its length is `len` then. A range that ends behind the disk's
    /// end is an error ([`IoErrorKind::PastEnd`]), never a short read.
    pub async fn read_at(&self, offset: u64, buf: AlignedBuf, len: usize) -> (AlignedBuf, IoResult<()>) {
        if len > buf.capacity() {
            let ask = Ask::Read { offset, len };
            return (buf, Err(self.invalid(&ask, "the buffer is smaller than the read")));
        }
        let (buf, result) = self.ask(Ask::Read { offset, len }, buf).await;
        (buf, result.map(drop))
    }

    /// Writes `buf[range]` at `offset`. It is on the disk, though maybe in the disk's own cache: see
    /// [`DirectFile::sync_data`].
    pub async fn write_at(&self, offset: u64, buf: AlignedBuf, range: Range<usize>) -> (AlignedBuf, IoResult<()>) {
        let ask = Ask::Write { offset, range };
        let Ask::Write { range, .. } = &ask else { unreachable!() };
        if range.start > range.end || range.end > buf.len() {
            return (buf, Err(self.invalid(&ask, "the range lies outside the buffer")));
        }
        if let Err(error) = self.may_write(&ask) {
            return (buf, Err(error));
        }
        let (buf, result) = self.ask(ask, buf).await;
        (buf, result.map(drop))
    }

    /// Fills each part's range of the buffer from the part's place, in any order. What lies between the ranges stays as it is.
    ///
    /// # Panics
    /// Where a range lies outside of the buffer's length: that is a caller's mistake, never input's.
    pub async fn read_parts(&self, parts: Vec<Part>, buf: AlignedBuf) -> (AlignedBuf, IoResult<()>) {
        match self.takes(&parts, &buf) {
            true => self.scatter(false, parts, buf).await,
            false => self.read_one_by_one(&parts, buf).await,
        }
    }

    /// Writes each part's range of the buffer to the part's place, in any order. As [`DirectFile::write_at`] for each; but
    /// where parts are not aligned, other writes may come in between them.
    ///
    /// # Panics
    /// As [`DirectFile::read_parts`].
    pub async fn write_parts(&self, parts: Vec<Part>, buf: AlignedBuf) -> (AlignedBuf, IoResult<()>) {
        let Some(first) = parts.first() else { return (buf, Ok(())) };
        if let Err(error) = self.may_write(&Ask::Write { offset: first.offset, range: first.range.clone() }) {
            return (buf, Err(error));
        }
        let size = if self.files.is_block { self.size().map_or(0, |size| size.0) } else { u64::MAX };
        let on_disk = parts.iter().all(|part| part.offset.saturating_add(part.range.len() as u64) <= size);
        match self.takes(&parts, &buf) && on_disk {
            true => self.scatter(true, parts, buf).await,
            false => {
                let result = self.write_one_by_one(&parts, &buf).await;
                (buf, result)
            }
        }
    }

    /// True where all of the parts are what direct I/O takes as it is.
    fn takes(&self, parts: &[Part], buf: &AlignedBuf) -> bool {
        let inside = parts.iter().all(|part| part.range.start <= part.range.end && part.range.end <= buf.len());
        assert!(inside, "parts lie inside their buffer");
        parts.iter().all(|part| part.fits(self.files.align))
    }

    async fn scatter(&self, write: bool, mut parts: Vec<Part>, buf: AlignedBuf) -> (AlignedBuf, IoResult<()>) {
        parts.retain(|part| !part.range.is_empty());
        if parts.is_empty() {
            return (buf, Ok(()));
        }
        let (reply, answer) = oneshot::channel();
        let scatter = Scatter::new(write, parts, buf, reply);
        let lost = scatter.refused(&self.files, io::ErrorKind::BrokenPipe.into());
        self.engine.wake.send(Event::Scatter(scatter));
        match answer.await {
            Ok(Answer { buf, result }) => (buf, result.map(drop)),
            Err(_) => (AlignedBuf::new(0), Err(lost)),
        }
    }

    async fn read_one_by_one(&self, parts: &[Part], mut buf: AlignedBuf) -> (AlignedBuf, IoResult<()>) {
        for some in parts.chunks(PARTS_AT_ONCE) {
            let read = |part: &Part| self.read_at(part.offset, AlignedBuf::new(part.range.len()), part.range.len());
            for (part, (bytes, result)) in some.iter().zip(join_all(some.iter().map(read)).await) {
                if result.is_err() {
                    return (buf, result);
                }
                buf[part.range.clone()].copy_from_slice(&bytes);
            }
        }
        (buf, Ok(()))
    }

    async fn write_one_by_one(&self, parts: &[Part], buf: &AlignedBuf) -> IoResult<()> {
        for some in parts.chunks(PARTS_AT_ONCE) {
            let write = |part: &Part| {
                let bytes = AlignedBuf::from_slice(&buf[part.range.clone()]);
                self.write_at(part.offset, bytes, 0..part.range.len())
            };
            join_all(some.iter().map(write)).await.into_iter().try_for_each(|(_, result)| result)?;
        }
        Ok(())
    }

    /// Makes everything durable that was written by requests sent before this one, finished or not.
    pub async fn sync_data(&self) -> IoResult<()> {
        self.ask_plain(Ask::Sync).await.map(drop)
    }

    /// Empties the page cache of the file, as far as nothing waits there to be written: what is read next comes from the medium.
    /// Of use after [`DirectFile::sync_data`] where the file system refuses direct I/O. May take a while for a large file.
    pub fn forget_cached(&self) -> impl FnOnce() + Send + 'static {
        let files = self.files.clone();
        move || files.forget_cached()
    }

    /// Makes the range read as zeros and gives its space back where the disk can: a hole in a file, an unmapped range
    /// of a device; else zeros are written. What lies behind a file's end is left alone.
    pub async fn punch_hole(&self, offset: u64, len: u64) -> IoResult<()> {
        self.change(Ask::Zero { offset, len, free: true }).await
    }

    /// Makes the range read as zeros and keeps its space.
    pub async fn zero_range(&self, offset: u64, len: u64) -> IoResult<()> {
        self.change(Ask::Zero { offset, len, free: false }).await
    }

    /// Reserves a file's space for the range and makes the file as long as it demands. Nothing to do on a device.
    pub async fn allocate(&self, offset: u64, len: u64) -> IoResult<()> {
        self.change(Ask::Allocate { offset, len }).await
    }

    /// Sets a file's size in bytes; what is added reads as zeros. Waits for all writes before it.
    pub async fn set_len(&self, len: ByteCount) -> IoResult<()> {
        self.change(Ask::SetLen(len.0)).await
    }

    /// The first range at or after `offset` that may hold data (start and end in bytes); `None` where only holes
    /// follow. A file system that doesn't know answers with the whole rest, and so does a device.
    pub async fn next_data(&self, offset: u64) -> IoResult<Option<Range<u64>>> {
        let size = self.size()?.0;
        if self.files.is_block {
            return Ok((offset < size).then_some(offset..size));
        }
        let seek = |whence, offset| self.ask_plain(Ask::Seek { whence, offset });
        let start = match seek(libc::SEEK_DATA, offset).await {
            Ok(start) => start,
            Err(error) if error.errno() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(error),
        };
        match seek(libc::SEEK_HOLE, start).await {
            Ok(end) => Ok(Some(start..end)),
            // Cut short in between: up to where it ended when this began.
            Err(error) if error.errno() == Some(libc::ENXIO) => Ok((start < size).then_some(start..size)),
            Err(error) => Err(error),
        }
    }

    /// As [`DirectFile::read_at`], on a thread that may block.
    pub fn read_at_blocking(&self, offset: u64, buf: AlignedBuf, len: usize) -> (AlignedBuf, IoResult<()>) {
        blocking::wait(self.read_at(offset, buf, len))
    }

    /// As [`DirectFile::write_at`], on a thread that may block.
    pub fn write_at_blocking(&self, offset: u64, buf: AlignedBuf, range: Range<usize>) -> (AlignedBuf, IoResult<()>) {
        blocking::wait(self.write_at(offset, buf, range))
    }

    /// As [`DirectFile::sync_data`], on a thread that may block.
    pub fn sync_data_blocking(&self) -> IoResult<()> {
        blocking::wait(self.sync_data())
    }

    /// The size in bytes, as the kernel knows it now.
    pub fn size(&self) -> IoResult<ByteCount> {
        let size = self.files.size();
        size.map(ByteCount).map_err(|source| IoError::new(IoOp::Query, &self.files.name, 0, 0, source))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.files.path
    }
    /// Which engine it runs on.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind
    }
    /// False where the file system refuses direct I/O, so that reads come from the page cache.
    pub fn is_direct(&self) -> bool {
        self.files.is_direct
    }
    /// True for a block device, false for a regular file.
    pub fn is_block_device(&self) -> bool {
        self.files.is_block
    }
    /// True where it was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.files.writable
    }
    /// What direct I/O demands here. Requests that keep to it cost no copy and no second call.
    pub fn alignment(&self) -> Alignment {
        self.files.align
    }
    /// The descriptor, for asking more about the same file.
    pub fn file(&self) -> &std::fs::File {
        self.files.main()
    }

    async fn change(&self, ask: Ask) -> IoResult<()> {
        self.may_write(&ask)?;
        self.ask_plain(ask).await.map(drop)
    }

    async fn ask_plain(&self, ask: Ask) -> IoResult<u64> {
        self.ask(ask, AlignedBuf::new(0)).await.1
    }

    async fn ask(&self, ask: Ask, buf: AlignedBuf) -> (AlignedBuf, IoResult<u64>) {
        let (reply, answer) = oneshot::channel();
        let lost = ask.clone();
        self.engine.wake.send(Event::Request(ask, buf, reply));
        match answer.await {
            Ok(Answer { buf, result }) => (buf, result),
            Err(_) => {
                let error = lost.error(&self.files, io::ErrorKind::BrokenPipe.into());
                (AlignedBuf::new(0), Err(error))
            }
        }
    }

    fn may_write(&self, ask: &Ask) -> IoResult<()> {
        if self.files.writable {
            return Ok(());
        }
        Err(ask.error(&self.files, io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only")))
    }

    fn invalid(&self, ask: &Ask, what: &'static str) -> IoError {
        ask.error(&self.files, io::Error::new(io::ErrorKind::InvalidInput, what))
    }
}

impl fmt::Debug for DirectFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Files { path, is_direct, writable, align, .. } = &*self.files;
        f.debug_struct("DirectFile")
            .field("path", path)
            .field("direct", is_direct)
            .field("writable", writable)
            .field("alignment", align)
            .field("engine", &self.engine.kind)
            .finish()
    }
}

#[cfg(test)]
mod tests;
