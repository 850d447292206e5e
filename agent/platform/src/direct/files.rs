//! The open descriptors of a disk, what the kernel demands of direct I/O on it, and the calls themselves.

use crate::buf::AlignedBuf;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What direct I/O demands, in bytes; powers of two. 1 means anything goes (no direct I/O).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Of an offset and a length: the logical sector size, or what the file system asks for.
    pub offset: usize,
    /// Of the memory's address.
    pub memory: usize,
}

impl Alignment {
    const NONE: Self = Self { offset: 1, memory: 1 };
    /// What every file system and device takes, where the kernel doesn't tell.
    const SAFE: Self = Self { offset: 4096, memory: 4096 };

    pub(super) fn down(self, at: u64) -> u64 {
        at & !(self.offset as u64 - 1)
    }
    pub(super) fn up(self, at: u64) -> u64 {
        self.down(at.saturating_add(self.offset as u64 - 1))
    }
    pub(super) fn fits(self, at: u64) -> bool {
        self.down(at) == at
    }
}

/// A disk's descriptors, shared by the threads that use them.
pub(crate) struct Files {
    main: File,
    /// For the last partial unit of a file with an odd size; opened when first needed.
    buffered: OnceLock<File>,
    pub path: PathBuf,
    pub name: Arc<str>,
    pub align: Alignment,
    pub is_block: bool,
    pub is_direct: bool,
    pub writable: bool,
}

/// One system call on a disk. Copy, because a job keeps the buffer and may send the call again for the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Read {
        to: *mut u8,
        len: usize,
        offset: u64,
    },
    Write {
        from: *const u8,
        len: usize,
        offset: u64,
    },
    /// Through the page cache, flushed and dropped from it at once, so that direct I/O sees it.
    Tail {
        from: *const u8,
        len: usize,
        offset: u64,
    },
    Sync,
    Fallocate {
        mode: i32,
        offset: u64,
        len: u64,
    },
    SetLen(u64),
    Seek {
        whence: i32,
        offset: u64,
    },
}

// SAFETY: the pointers lead into a buffer that the job owns until the call's completion has come back to the engine's
// thread; the buffer itself is Send.
unsafe impl Send for Call {}

impl Files {
    /// Opens `path`, past the page cache where the file system allows.
    pub fn open(path: &Path, write: bool, create: bool, exclusive: bool, direct: bool) -> io::Result<Self> {
        let open = |flags: i32| {
            let mut options = File::options();
            options.read(true).write(write).custom_flags(flags);
            if create {
                options.create(true).mode(0o600);
            }
            options.open(path)
        };
        // O_EXCL without O_CREAT means, for a block device: refuse if mounted or otherwise claimed.
        let claim = if exclusive && !create { libc::O_EXCL } else { 0 };
        let opened = if direct { Some(open(libc::O_DIRECT | claim)) } else { None };
        let (main, opened_direct) = match opened {
            Some(Ok(file)) => (file, true),
            Some(Err(error)) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => (open(claim)?, false),
        };
        let kind = main.metadata()?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a block device nor a regular file"));
        }
        let is_block = kind.is_block_device();
        let asked = if opened_direct { alignment(&main, is_block)? } else { None };
        let main = match asked {
            // The file system takes the flag but would refuse the I/O.
            None if opened_direct => open(claim)?,
            _ => main,
        };
        if exclusive && !is_block {
            claim_file(&main)?;
        }
        let name = path.to_string_lossy().into();
        let align = asked.unwrap_or(Alignment::NONE);
        let is_direct = asked.is_some();
        let path = path.to_path_buf();
        Ok(Self { main, buffered: OnceLock::new(), path, name, align, is_block, is_direct, writable: write })
    }

    pub fn main(&self) -> &File {
        &self.main
    }
    pub fn fd(&self) -> RawFd {
        self.main.as_raw_fd()
    }

    /// The size now, in bytes. A device counts in whole logical sectors: a rest behind the last one (a loop device with
    /// 4096-byte sectors over a file of an odd size has such) is out of reach for the kernel itself.
    pub fn size(&self) -> io::Result<u64> {
        if !self.is_block {
            return Ok(self.main.metadata()?.len());
        }
        let size = ioctl::size(&self.main)?;
        Ok(size - size % u64::from(ioctl::logical_sector(&self.main)?.max(1)))
    }

    /// Drops all clean pages that are cached of it.
    pub fn forget_cached(&self) {
        forget_cached(&self.main, 0, 0);
    }

    fn buffered(&self) -> io::Result<&File> {
        if !self.is_direct {
            return Ok(&self.main);
        }
        if let Some(file) = self.buffered.get() {
            return Ok(file);
        }
        // By way of the descriptor, so that it is the same file even if its name now leads elsewhere.
        let file = File::options().read(true).write(self.writable).open(format!("/proc/self/fd/{}", self.fd()))?;
        Ok(self.buffered.get_or_init(|| file))
    }

    /// Makes the call on this thread and waits for it. Answers with bytes moved, or a position.
    pub fn make(&self, call: Call) -> io::Result<u64> {
        let moved = |n: isize| u64::try_from(n).map_err(|_| io::Error::last_os_error());
        let done = |n: i32| if n == 0 { Ok(0) } else { Err(io::Error::last_os_error()) };
        let fd = self.fd();
        match call {
            // SAFETY: `to` leads to `len` writable bytes that the job keeps for the duration of the call.
            Call::Read { to, len, offset } => moved(unsafe { libc::pread(fd, to.cast(), len, signed(offset)?) }),
            // SAFETY: `from` leads to `len` readable bytes that the job keeps for the duration of the call.
            Call::Write { from, len, offset } => moved(unsafe { libc::pwrite(fd, from.cast(), len, signed(offset)?) }),
            // SAFETY: as for Write.
            Call::Tail { from, len, offset } => unsafe { self.tail_write(from, len, offset) },
            // SAFETY: no memory is passed, in this and the following calls.
            Call::Sync => done(unsafe { libc::fdatasync(fd) }),
            Call::Fallocate { mode, offset, len } => {
                // SAFETY: as above.
                done(unsafe { libc::fallocate(fd, mode, signed(offset)?, signed(len)?) })
            }
            // SAFETY: as above.
            Call::SetLen(len) => done(unsafe { libc::ftruncate(fd, signed(len)?) }),
            Call::Seek { whence, offset } => {
                // SAFETY: as above. Nothing here reads or writes at the descriptor's own position.
                let at = unsafe { libc::lseek(fd, signed(offset)?, whence) };
                u64::try_from(at).map_err(|_| io::Error::last_os_error())
            }
        }
    }

    /// # Safety
    /// `from` leads to `len` readable bytes.
    unsafe fn tail_write(&self, from: *const u8, len: usize, offset: u64) -> io::Result<u64> {
        let file = self.buffered()?;
        // SAFETY: by this function's own contract.
        let n = unsafe { libc::pwrite(file.as_raw_fd(), from.cast(), len, signed(offset)?) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        file.sync_data()?;
        forget_cached(file, offset, n);
        Ok(n as u64)
    }
}

/// Drops clean cached pages of a range, to the file's end if `len` is 0: the next read asks the medium.
fn forget_cached(file: &File, offset: u64, len: usize) {
    if let (Ok(offset), Ok(len)) = (signed(offset), signed(len as u64)) {
        // SAFETY: no memory is passed. A refusal does no harm: the kernel keeps the cache coherent, this is for
        // reading from the medium.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
    }
}

/// An offset as the kernel takes it. Past 2^63 there is no file.
pub(super) fn signed(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// What direct I/O on this file demands; `None` where it can't be done.
fn alignment(file: &File, is_block: bool) -> io::Result<Option<Alignment>> {
    let told = statx_alignment(file);
    if let Some((offset, memory)) = told {
        return Ok(valid(offset, memory));
    }
    if is_block {
        // The memory's alignment is in sysfs only; a sector's worth suits every driver, and ours is 4 KiB anyway.
        let sector = ioctl::logical_sector(file)?;
        return Ok(valid(sector, sector));
    }
    // Some file systems take the flag and refuse the I/O: one read tells.
    let mut buf = AlignedBuf::new(Alignment::SAFE.offset);
    // SAFETY: the buffer has room for these bytes and outlives the call.
    let n = unsafe { libc::pread(file.as_raw_fd(), buf.start().cast(), Alignment::SAFE.offset, 0) };
    let refused = n < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    Ok((!refused).then_some(Alignment::SAFE))
}

fn valid(offset: u32, memory: u32) -> Option<Alignment> {
    let good = |n: u32| n.is_power_of_two() && n <= 1 << 20;
    (good(offset) && good(memory))
        .then_some(Alignment { offset: offset.max(512) as usize, memory: memory.max(1) as usize })
}

/// `statx(STATX_DIOALIGN)`, since Linux 6.1: (0, 0) says that the file can't do direct I/O, `None` that it isn't told.
fn statx_alignment(file: &File) -> Option<(u32, u32)> {
    // SAFETY: all zeros is a valid value of this plain structure of integers.
    let mut facts: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, and `facts` outlives the call that fills it.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut facts)
    };
    let told = result == 0 && facts.stx_mask & libc::STATX_DIOALIGN != 0;
    told.then_some((facts.stx_dio_offset_align, facts.stx_dio_mem_align))
}

/// What block devices tell by ioctl.
pub(crate) mod ioctl {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_read_bad!(blksszget, libc::BLKSSZGET, libc::c_int);
    nix::ioctl_read_bad!(blkpbszget, libc::BLKPBSZGET, libc::c_uint);
    nix::ioctl_read!(blkgetdiskseq, 0x12, 128, u64);
    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), libc::c_int);

    /// The size in bytes.
    pub(crate) fn size(file: &File) -> io::Result<u64> {
        let mut bytes = 0usize;
        // SAFETY: the kernel writes 64 bits to a value of (on 64-bit Linux, the only one supported) 64 bits.
        unsafe { blkgetsize64(file.as_raw_fd(), &raw mut bytes) }?;
        Ok(bytes as u64)
    }

    /// The logical sector size in bytes: the unit of addressing.
    pub(crate) fn logical_sector(file: &File) -> io::Result<u32> {
        let mut bytes = 0;
        // SAFETY: the kernel writes one int.
        unsafe { blksszget(file.as_raw_fd(), &raw mut bytes) }?;
        u32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The physical sector size in bytes: the unit of an atomic write.
    pub(crate) fn physical_sector(file: &File) -> io::Result<u32> {
        let mut bytes = 0;
        // SAFETY: the kernel writes one unsigned int.
        unsafe { blkpbszget(file.as_raw_fd(), &raw mut bytes) }?;
        Ok(bytes)
    }

    /// The number that no two attachments of disks in one boot share.
    pub(crate) fn diskseq(file: &File) -> io::Result<u64> {
        let mut number = 0;
        // SAFETY: the kernel writes 64 bits.
        unsafe { blkgetdiskseq(file.as_raw_fd(), &raw mut number) }?;
        Ok(number)
    }

    /// Whether the device refuses writes.
    pub(crate) fn read_only(file: &File) -> io::Result<bool> {
        let mut flag = 0;
        // SAFETY: the kernel writes one int.
        unsafe { blkroget(file.as_raw_fd(), &raw mut flag) }?;
        Ok(flag != 0)
    }
}

/// Claims a regular file among all that claim it so (`flock`), as O_EXCL does a block device. A child that another thread
/// is just starting has a copy of every descriptor until it executes its program, those of files that were closed
/// meanwhile too: so it is tried for half a second.
fn claim_file(file: &File) -> io::Result<()> {
    for _ in 0..50 {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            // sleep: nothing tells when a lock is let go but waiting for it without end.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}
