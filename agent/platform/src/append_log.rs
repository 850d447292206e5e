//! A journal: records appended to a file, each whole or not there after a crash.
//!
//! File header (16 bytes): magic `SLUICLOG`, version u32, BLAKE3 of these 12 bytes cut to 4. Then records, all numbers
//! little-endian: length u32, durable u64, checksum 8 bytes, payload. `durable` is how far the file was flushed when the
//! record was appended; the checksum is BLAKE3 over the record's offset, length, `durable` and payload, cut to 8 bytes.
//!
//! What follows the last good record after a crash is a torn tail and is cut off. A bad record *before* a place that is
//! known to have been flushed is no torn tail but a damaged disk, and is refused: the `durable` fields of later records
//! tell the two apart. Without them, damage in the middle would silently drop every record behind it.

use crate::durable::{FileError, sync_folder};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"SLUICLOG";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 16;
const RECORD_HEADER_BYTES: usize = 20;
/// The largest payload of a record, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// The largest log that is opened, in bytes.
pub const LOG_BYTES_MAX: u64 = 16 << 30;
/// What of a log is read at once, in bytes, where its records are smaller.
const WINDOW_BYTES: usize = 1 << 20;
/// How many times the bytes behind the last good record are hashed in the search for later ones. A crash leaves none that
/// look like records; whoever fills a log with such must not keep its owner busy for days.
const SEARCHES_MAX: u64 = 16;

/// A journal that is open for appending. Blocking; one process at a time (see [`crate::lock`]).
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: PathBuf,
    /// Where the next record goes.
    end: u64,
    /// How far the file is known to be on the medium.
    durable: u64,
    /// A flush or the cleaning after a failed append failed: what is on the medium is unknown from here on.
    broken: bool,
}

/// What was found in a log when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The records' payloads, oldest first.
    pub records: Vec<Vec<u8>>,
    /// How many bytes of a torn tail were cut off.
    pub cut_bytes: u64,
}

/// A journal could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not such a log, or of another version.
    #[error("{} is not a sluice journal of version {VERSION}; check the path, or use the sluice that wrote it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A record that had been flushed is damaged.
    #[error("{} is damaged at byte {offset}, where it was whole once: check the disk it lies on; moving it aside makes sluice start over with a resync", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record starts.
        offset: u64,
    },
    /// Larger than any journal gets.
    #[error("{}: {bytes} bytes are more than a journal takes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The size of the record or the file.
        bytes: u64,
    },
    /// An earlier flush failed, so that nothing more may be built on it.
    #[error("{} failed to be written before: open it again", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

impl AppendLog {
    /// Opens or makes a log; cuts off a torn tail. What it returns is flushed, and in memory as a whole.
    pub fn open(path: &Path) -> Result<(Self, Recovered), LogError> {
        let mut records = Vec::new();
        let (log, cut_bytes) = Self::open_each(path, |record| records.push(record.to_vec()))?;
        Ok((log, Recovered { records, cut_bytes }))
    }

    /// As [`Self::open`], for a log of any size: `each` sees the records one by one, oldest first. Gives how many bytes of a torn
    /// tail were cut off. Where it fails, `each` has seen what lies before the damage.
    pub fn open_each(path: &Path, each: impl FnMut(&[u8])) -> Result<(Self, u64), LogError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(FileError::of("open", path))?;
        let size = file.metadata().map_err(FileError::of("open", path))?.len();
        if size > LOG_BYTES_MAX {
            return Err(LogError::TooLarge { path: path.to_path_buf(), bytes: size });
        }
        let mut log = Self { file, path: path.to_path_buf(), end: HEADER_BYTES, durable: 0, broken: false };
        let failed = |error| FileError::of("read", path)(error);
        let mut window = Window::new(&log.file, size);
        let head = window.at(0, HEADER_BYTES as usize + 1).map_err(&failed)?;
        if !check_header(head, path)? {
            log.reset()?;
            return Ok((log, size));
        }
        let end = window.records(each).map_err(&failed)?;
        if window.vouches_for_more_than(end).map_err(&failed)? {
            return Err(LogError::Damaged { path: log.path, offset: end });
        }
        log.end = end;
        let cut_bytes = size - end;
        if cut_bytes > 0 {
            log.file.set_len(end).map_err(FileError::of("cut the torn tail of", path))?;
        }
        log.sync()?;
        // Its maker may have been killed just before this.
        log.sync_name()?;
        Ok((log, cut_bytes))
    }

    /// Reads all records again, oldest first.
    pub fn for_each(&self, each: impl FnMut(&[u8])) -> Result<(), LogError> {
        self.check_usable()?;
        let end = Window::new(&self.file, self.end).records(each).map_err(FileError::of("read", &self.path))?;
        match end == self.end {
            true => Ok(()),
            false => Err(LogError::Damaged { path: self.path.clone(), offset: end }),
        }
    }

    /// Appends a record. It survives a crash of this process; a power cut only after [`AppendLog::sync`]. If it fails
    /// (a full disk, say) nothing of it stays behind.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), LogError> {
        self.check_usable()?;
        let total = self.end + (RECORD_HEADER_BYTES + payload.len()) as u64;
        if payload.len() > RECORD_BYTES_MAX || total > LOG_BYTES_MAX {
            return Err(LogError::TooLarge { path: self.path.clone(), bytes: total });
        }
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
        let len = payload.len() as u32;
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&self.durable.to_le_bytes());
        record.extend_from_slice(&checksum(self.end, len, self.durable, payload));
        record.extend_from_slice(payload);
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            self.broken = self.file.set_len(self.end).is_err();
            return Err(FileError::of("append to", &self.path)(error).into());
        }
        self.end = total;
        Ok(())
    }

    /// Flushes what was appended. After a failed flush the log takes nothing more: the kernel may have dropped the data
    /// and would report success the next time.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if let Err(error) = self.file.sync_data() {
            self.broken = true;
            return Err(FileError::of("flush", &self.path)(error).into());
        }
        self.durable = self.end;
        Ok(())
    }

    /// Empties the log, durably.
    pub fn truncate(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        self.reset()
    }

    /// Replaces the whole log by these records at once: after a crash there is either the old log or the new.
    pub fn rewrite<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<(), LogError> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        crate::durable::remove_file(&aside)?;
        let (mut log, _) = Self::open(&aside)?;
        for record in records {
            log.append(record)?;
        }
        log.sync()?;
        crate::durable::rename_file(&aside, &self.path)?;
        *self = Self { path: std::mem::take(&mut self.path), ..log };
        Ok(())
    }

    /// The log's size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.end
    }

    fn reset(&mut self) -> Result<(), LogError> {
        // Zero length first: a crash then finds an empty or torn header, never old records behind a new one.
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header())?;
            self.file.sync_all()
        };
        if let Err(error) = write() {
            self.broken = true;
            return Err(FileError::of("empty", &self.path)(error).into());
        }
        (self.end, self.durable) = (HEADER_BYTES, HEADER_BYTES);
        self.sync_name()
    }

    fn sync_name(&self) -> Result<(), LogError> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        Ok(sync_folder(folder.unwrap_or(Path::new(".")))?)
    }

    fn check_usable(&self) -> Result<(), LogError> {
        if self.broken { Err(LogError::Broken { path: self.path.clone() }) } else { Ok(()) }
    }
}

/// False for a header that a crash left half-written, which can only be where nothing was appended yet.
fn check_header(head: &[u8], path: &Path) -> Result<bool, LogError> {
    let header = header();
    let common = head.iter().zip(&header).take_while(|(a, b)| a == b).count();
    let torn = head.len() <= header.len() && head[common..].iter().all(|b| *b == 0);
    match common == header.len() {
        true => Ok(true),
        false if torn => Ok(false),
        false => Err(LogError::Foreign { path: path.to_path_buf() }),
    }
}

/// A stretch of a log in memory: never more than the largest record, however large the log is.
struct Window<'a> {
    file: &'a File,
    size: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, size: u64) -> Self {
        Self { file, size, from: 0, bytes: Vec::new() }
    }

    /// `len` bytes, or those that are there.
    fn at(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let left = self.size.saturating_sub(at);
        let len = usize::try_from(left).unwrap_or(len).min(len);
        if at < self.from || at + len as u64 > self.from + self.bytes.len() as u64 {
            self.bytes.resize(usize::try_from(left).unwrap_or(WINDOW_BYTES).min(len.max(WINDOW_BYTES)), 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.from = at;
        }
        let from = (at - self.from) as usize;
        Ok(&self.bytes[from..from + len])
    }

    /// Shows all records up to the first that is not whole; gives where that is.
    fn records(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut end = HEADER_BYTES;
        while let Some(payload) = self.record(end)? {
            each(payload);
            end += (RECORD_HEADER_BYTES + payload.len()) as u64;
        }
        Ok(end)
    }

    /// A whole record anywhere behind `end` that says "flushed to beyond here" proves damage. A false hit would need its
    /// 64-bit checksum to match by chance.
    fn vouches_for_more_than(&mut self, end: u64) -> io::Result<bool> {
        let mut effort = SEARCHES_MAX * self.size.saturating_sub(end);
        for at in end + 1..self.size {
            let Some((len, _)) = self.claim(at)?.filter(|(_, durable)| *durable > end) else { continue };
            let Some(left) = effort.checked_sub(u64::from(len)) else { return Ok(true) };
            effort = left;
            if self.record(at)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the bytes at this place say if they are a record's: the length of its payload, which is there, and its `durable`.
    /// Cheap, so that looking for records in a long tail stays quick.
    fn claim(&mut self, at: u64) -> io::Result<Option<(u32, u64)>> {
        let Some(header) = self.at(at, RECORD_HEADER_BYTES)?.first_chunk::<RECORD_HEADER_BYTES>().copied() else {
            return Ok(None);
        };
        let [a, b, c, d, durable @ .., _, _, _, _, _, _, _, _] = header;
        let (len, durable) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(durable));
        let is_there = at + RECORD_HEADER_BYTES as u64 + u64::from(len) <= self.size;
        let possible = len as usize <= RECORD_BYTES_MAX && (HEADER_BYTES..=at).contains(&durable) && is_there;
        Ok(possible.then_some((len, durable)))
    }

    /// The payload of the whole record at this place, if there is one.
    fn record(&mut self, at: u64) -> io::Result<Option<&[u8]>> {
        let Some((len, durable)) = self.claim(at)? else { return Ok(None) };
        let whole = self.at(at, RECORD_HEADER_BYTES + len as usize)?;
        let (header, payload) = whole.split_at(RECORD_HEADER_BYTES);
        let good = header[12..] == checksum(at, len, durable, payload);
        Ok(good.then_some(payload))
    }
}

fn checksum(at: u64, len: u32, durable: u64, payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&at.to_le_bytes()).update(&len.to_le_bytes()).update(&durable.to_le_bytes()).update(payload);
    let mut cut = [0; 8];
    cut.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    cut
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let digest = blake3::hash(&header[..12]);
    header[12..].copy_from_slice(&digest.as_bytes()[..4]);
    header
}

#[cfg(test)]
mod tests;
