//! Writers that do to a file system what fsstress does, of which Debian has no package: random operations on a small tree
//! of files, folders and links, from a seed.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, OFlag, fallocate, renameat};
use sluice_crash::Noise;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const WRITERS: u64 = 2;
/// Names are taken from so many per writer, so that operations meet each other's files.
const NAMES: u64 = 24;
const FOLDERS: u64 = 5;
/// No file grows beyond this: all of them together fit on the disk.
const FILE_BYTES_MAX: u64 = 3 << 20;
/// Direct I/O is aligned to this, whatever the device's sectors.
const ALIGNMENT: usize = 4096;
/// Between two operations, so that two processors are left something for what is tested.
const PAUSE: Duration = Duration::from_millis(8);
/// What an operation on a name that others use, or on a full disk, may come to.
const EXPECTED: &[Errno] = &[
    Errno::ENOENT,
    Errno::EEXIST,
    Errno::ENOTDIR,
    Errno::EISDIR,
    Errno::ENOTEMPTY,
    Errno::ENOSPC,
    Errno::EINVAL,
    Errno::ELOOP,
    Errno::EMLINK,
    Errno::EBUSY,
    // A hard link to a folder.
    Errno::EPERM,
];

/// Running writers; stopped on drop.
#[derive(Debug)]
pub struct Stress {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<()>>,
}

impl Stress {
    /// Starts writing in the file system mounted at `root`.
    pub fn start(root: &Path, seed: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |writer: u64| {
            let mut tree = Tree { root: root.to_owned(), noise: Noise::seeded(seed ^ (writer << 32)) };
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    tree.operate();
                    done.fetch_add(1, Ordering::Relaxed);
                    // sleep: the pause between two operations
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let writers = (0..WRITERS).map(start).collect();
        Self { stop, done, writers }
    }

    /// Stops all writers and waits for them; how many operations they did. Panics if one of them failed.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            if let Err(panic) = writer.join() {
                std::panic::resume_unwind(panic);
            }
        }
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

/// What one writer works on.
struct Tree {
    root: PathBuf,
    noise: Noise,
}

impl Tree {
    fn operate(&mut self) {
        let (path, other) = (self.name(), self.name());
        let done = match self.noise.below(22) {
            0..=3 => self.write(&path),
            4 | 5 => self.write_direct(&path),
            6 => self.truncate(&path),
            7..=10 => self.allocate(&path),
            11 => File::open(&path).and_then(|file| file.sync_all()),
            12 => File::open(&path).and_then(|file| file.sync_data()),
            13 => renameat(AT_FDCWD, &path, AT_FDCWD, &other).map_err(io::Error::from),
            14 => fs::hard_link(&path, &other),
            15 => symlink(&path, &other),
            16 | 17 => fs::remove_file(&path),
            18 => fs::create_dir(&path),
            19 => fs::remove_dir(&path),
            20 => copy(&path, &other),
            _ => File::open(&path).and_then(|mut file| file.read_to_end(&mut Vec::new())).map(drop),
        };
        if let Err(error) = done {
            let expected = error.raw_os_error().is_some_and(|code| EXPECTED.contains(&Errno::from_raw(code)));
            assert!(expected, "{} or {}: {error}", path.display(), other.display());
        }
    }

    /// A name in one of a few folders.
    fn name(&mut self) -> PathBuf {
        let folder = self.root.join(format!("folder-{}", self.noise.below(FOLDERS)));
        // Made where it isn't; a full disk shows in the operation itself.
        drop(fs::create_dir_all(&folder));
        folder.join(format!("name-{}", self.noise.below(NAMES)))
    }

    fn offset(&mut self) -> u64 {
        self.noise.below(FILE_BYTES_MAX - (256 << 10))
    }

    fn write(&mut self, path: &Path) -> io::Result<()> {
        let (at, length) = (self.offset(), 1 + self.noise.below(128 << 10) as usize);
        let bytes = self.noise.bytes(length);
        file(path, 0)?.write_all_at(&bytes, at)
    }

    fn write_direct(&mut self, path: &Path) -> io::Result<()> {
        let align = ALIGNMENT as u64;
        let (at, length) = (self.offset() / align * align, (1 + self.noise.below(32) as usize) * ALIGNMENT);
        let bytes = self.noise.bytes(length + ALIGNMENT);
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        file(path, OFlag::O_DIRECT.bits())?.write_all_at(&bytes[start..start + length], at)
    }

    fn truncate(&mut self, path: &Path) -> io::Result<()> {
        let length = self.offset();
        file(path, 0)?.set_len(length)
    }

    fn allocate(&mut self, path: &Path) -> io::Result<()> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let modes = [
            FallocateFlags::empty(),
            keep,
            keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            FallocateFlags::FALLOC_FL_ZERO_RANGE,
            FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        ];
        let mode = modes[self.noise.below(modes.len() as u64) as usize];
        // Collapsing wants whole blocks.
        let (at, length) = (self.offset() / 4096 * 4096, (1 + self.noise.below(48)) * 4096);
        fallocate(file(path, 0)?, mode, at as i64, length as i64).map_err(io::Error::from)
    }
}

fn file(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(false).custom_flags(flags).open(path)
}

/// On XFS by sharing extents.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let same = fs::canonicalize(from)? == fs::canonicalize(to).unwrap_or_default();
    if same || !fs::metadata(from)?.is_file() {
        return Ok(());
    }
    fs::copy(from, to).map(drop)
}
