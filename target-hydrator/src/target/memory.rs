//! A target in memory, for tests and simulation.

use super::linear::extent_of;
use super::{Fingerprint, Target, TargetError, TargetErrorKind, WriterMark};
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_platform::AlignedBuf;
use sluice_proto::{Extent, SECTOR_BYTES, Sector, SectorCount};
use std::ops::Range;

/// A disk that forgets everything with the process. Whoever reads it is given what was written, but a power cut takes what was
/// not flushed.
#[derive(Debug)]
pub struct MemoryTarget(Mutex<MemoryDisk>);

/// What such a disk holds at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryDisk {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Rises with each change, as a file's times do.
    pub changes: i64,
    /// Who has put a mark on it last.
    pub writer: WriterMark,
    /// What was written and not flushed, in this order: where, and the bytes that the medium still has there.
    unflushed: Vec<(usize, Vec<u8>)>,
}

impl MemoryDisk {
    fn change(&mut self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.bytes);
        self.changes += 1;
    }

    fn write(&mut self, range: Range<usize>, write: impl FnOnce(&mut [u8])) {
        self.unflushed.push((range.start, self.bytes[range.clone()].to_vec()));
        self.change(|bytes| write(&mut bytes[range]));
    }
}

impl MemoryTarget {
    /// A disk of zeros.
    pub fn new(sectors: SectorCount) -> Self {
        Self(Mutex::new(MemoryDisk { bytes: vec![0; sectors.bytes().0 as usize], ..MemoryDisk::default() }))
    }

    /// A copy of all its bytes.
    pub fn contents(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    /// The disk as it is.
    pub fn snapshot(&self) -> MemoryDisk {
        self.0.lock().clone()
    }

    /// Puts the disk back to what it was.
    pub fn restore(&self, disk: &MemoryDisk) {
        self.0.lock().clone_from(disk);
    }

    /// Changes bytes as somebody else would, durably.
    pub fn tamper(&self, change: impl FnOnce(&mut [u8])) {
        self.0.lock().change(change);
    }

    /// Takes back what was written and not flushed. Its times stay, as a file system may have brought them out alone.
    pub fn cut_power(&self) {
        let disk = &mut *self.0.lock();
        for (at, before) in disk.unflushed.drain(..).rev() {
            disk.bytes[at..at + before.len()].copy_from_slice(&before);
        }
    }

    /// Makes the disk larger, with zeros; nothing where it is as large already.
    pub fn grow(&self, to: SectorCount) {
        let mut disk = self.0.lock();
        let len = disk.bytes.len().max(to.bytes().0 as usize);
        disk.bytes.resize(len, 0);
        disk.changes += 1;
    }

    fn range(&self, extent: Extent) -> Result<Range<usize>, TargetError> {
        if !extent.is_within(self.sectors()) {
            return Err(TargetError::new(
                TargetErrorKind::TooSmall,
                format!("{extent} are not on the target in memory"),
            ));
        }
        Ok(extent.start.offset() as usize..extent.end().offset() as usize)
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn sectors(&self) -> SectorCount {
        SectorCount(self.0.lock().bytes.len() as u64 / SECTOR_BYTES)
    }

    async fn write(&self, at: Sector, bytes: AlignedBuf) -> Result<(), TargetError> {
        let range = self.range(extent_of(at, bytes.len()))?;
        self.0.lock().write(range, |sectors| sectors.copy_from_slice(&bytes));
        Ok(())
    }

    async fn zero(&self, extent: Extent) -> Result<(), TargetError> {
        let range = self.range(extent)?;
        self.0.lock().write(range, |sectors| sectors.fill(0));
        Ok(())
    }

    async fn read(&self, extent: Extent, mut buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        let range = self.range(extent)?;
        buf.clear();
        buf.extend_from_slice(&self.0.lock().bytes[range]);
        Ok(buf)
    }

    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError> {
        let disk = &self.0.lock().bytes;
        let sector_size = SECTOR_BYTES as usize;
        let mut rest = disk.chunks(sector_size).enumerate().skip(from.0 as usize);
        let first = rest.find(|(_, sector)| sector.iter().any(|b| *b != 0));
        Ok(first.map(|(at, _)| Extent::new(at as u64, (disk.len() / sector_size - at) as u64)))
    }

    async fn sync(&self) -> Result<(), TargetError> {
        self.0.lock().unflushed.clear();
        Ok(())
    }

    async fn fingerprint(&self) -> Result<Fingerprint, TargetError> {
        let size = self.sectors().bytes().0;
        Ok(Fingerprint { size, changed_ns: self.0.lock().changes, ..Fingerprint::default() })
    }

    async fn marked_by(&self) -> Result<Option<WriterMark>, TargetError> {
        Ok(Some(self.0.lock().writer))
    }

    async fn mark(&self, by: WriterMark) -> Result<bool, TargetError> {
        self.tamper(|_| ());
        self.0.lock().writer = by;
        Ok(true)
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
