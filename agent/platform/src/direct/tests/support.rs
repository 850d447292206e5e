//! What the tests of direct I/O share.

use super::*;
use std::fs::File;
use std::ops::Deref;

pub const ENGINES: [EngineChoice; 2] = [EngineChoice::Ring, EngineChoice::Threads];

/// A disk of the test's own, with what it stands on.
#[derive(Debug)]
pub struct Disk {
    disk: DirectFile,
    _ground: Ground,
}

enum Ground {
    Folder(#[allow(dead_code)] tempfile::TempDir),
    Device(#[allow(dead_code)] Loop),
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Folder(_)) { "file" } else { "loop" })
    }
}

impl Disk {
    /// A sparse file of zeros.
    pub fn file(bytes: u64, engine: EngineChoice) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        File::create(&path).and_then(|file| file.set_len(bytes)).expect("a sparse file");
        let disk = OpenOptions::new().write(true).engine(engine).open(&path).expect("opens");
        Self { disk, _ground: Ground::Folder(folder) }
    }

    /// A file that says it wants whole 4 KiB, as on a disk with such sectors.
    pub fn coarse_file(bytes: u64, engine: EngineChoice) -> Self {
        let mut made = Self::file(bytes, engine);
        let options = OpenOptions::new().write(true).engine(engine);
        made.disk = options.open_aligned(made.path(), 4096).expect("opens");
        made
    }

    /// A loop device.
    pub fn device(bytes: u64, sector: u32, engine: EngineChoice) -> Self {
        let device = Loop::new(bytes, sector);
        let disk = OpenOptions::new().write(true).engine(engine).open(device.path()).expect("opens");
        Self { disk, _ground: Ground::Device(device) }
    }

    /// Another descriptor of it, through the page cache.
    pub fn other(&self) -> File {
        File::options().read(true).write(true).open(self.path()).expect("opens")
    }
}

impl Deref for Disk {
    type Target = DirectFile;
    fn deref(&self) -> &DirectFile {
        &self.disk
    }
}

/// Every kind of disk on every engine: files, and (for root) devices with either size of sector.
pub fn disks(bytes: u64) -> Vec<Disk> {
    let devices = root("direct I/O on loop devices");
    let of = |engine| {
        let files = [Disk::file(bytes, engine), Disk::coarse_file(bytes, engine)];
        let sectors = if devices { &[512, 4096][..] } else { &[] };
        files.into_iter().chain(sectors.iter().map(move |sector| Disk::device(bytes, *sector, engine)))
    };
    ENGINES.into_iter().flat_map(of).collect()
}

/// Bytes that tell their place; none is zero.
pub fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8 | 1).collect()
}

/// Reads a range, which must succeed.
pub fn read(disk: &DirectFile, offset: u64, len: usize) -> Vec<u8> {
    let (buf, result) = disk.read_at_blocking(offset, AlignedBuf::new(len), len);
    result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(buf.len(), len);
    buf.to_vec()
}

/// Writes a range, which must succeed.
pub fn write(disk: &DirectFile, offset: u64, bytes: &[u8]) {
    let (_, result) = disk.write_at_blocking(offset, AlignedBuf::from_slice(bytes), 0..bytes.len());
    result.unwrap_or_else(|error| panic!("{error}"));
}
