//! The few words with the kernel that have no safe wrapper: bpf(2) where aya has none, and mapping a map's memory.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

// Commands of bpf(2) and map types, from linux/bpf.h.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const OBJ_GET: i32 = 7;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const TYPE_ARRAY: u64 = 2;
const TYPE_ARRAY_OF_MAPS: u64 = 12;

/// Calls bpf(2) with an attribute of `N` words; the kernel takes what follows as zero.
fn bpf<const N: usize>(command: i32, attribute: &mut [u64; N]) -> io::Result<i32> {
    // SAFETY: the attribute is as long as is said; every pointer that callers in this module put into it is to memory
    // that lives, and is as large as the command writes, for the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(attribute)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    bpf(OBJ_GET, &mut [name.as_ptr() as u64, 0]).map(owned)
}

/// How often a program was to run, and was skipped as it was running on that CPU already.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(program_info(program)?[26])
}

/// Runs of a program and the nanoseconds they took, while the kernel's bpf statistics are on.
pub fn run_statistics(program: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let info = program_info(program)?;
    Ok((info[25], info[24]))
}

/// `struct bpf_prog_info` as words: 24 is run_time_ns, 25 run_cnt, 26 recursion_misses.
fn program_info(program: BorrowedFd<'_>) -> io::Result<[u64; 28]> {
    let mut info = [0u64; 28];
    let fd_and_length = program.as_raw_fd() as u64 | (size_of_val(&info) as u64) << 32;
    bpf(OBJ_GET_INFO_BY_FD, &mut [fd_and_length, info.as_mut_ptr() as u64])?;
    Ok(info)
}

/// Waits until every BPF program that is running now has ended.
///
/// The kernel promises this for an update of a map of maps ("wait for any running BPF programs to complete so that
/// userspace, when we return to it, knows that all programs that could be running use the new map value",
/// kernel/bpf/syscall.c). membarrier(MEMBARRIER_CMD_GLOBAL) would do the same, but is refused on machines with nohz_full.
#[derive(Debug)]
pub(super) struct Barrier {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Barrier {
    /// Makes the maps that the barrier needs: two of one entry.
    pub fn new() -> io::Result<Self> {
        // map_type and key_size, value_size and max_entries, map_flags and inner_map_fd: 32 bits each.
        let one_entry = 4 | 1 << 32;
        let inner = owned(bpf(MAP_CREATE, &mut [TYPE_ARRAY | 4 << 32, one_entry, 0])?);
        let inner_fd = (inner.as_raw_fd() as u64) << 32;
        let outer = owned(bpf(MAP_CREATE, &mut [TYPE_ARRAY_OF_MAPS | 4 << 32, one_entry, inner_fd])?);
        Ok(Self { outer, inner })
    }

    /// Returns when every program that ran at the call has ended.
    pub fn wait(&self) -> io::Result<()> {
        let (key, value) = (0u32, self.inner.as_raw_fd());
        let (key, value) = (&raw const key as u64, &raw const value as u64);
        bpf(MAP_UPDATE_ELEM, &mut [self.outer.as_raw_fd() as u64, key, value, 0]).map(drop)
    }
}

/// A stretch of a BPF_F_MMAPABLE array of 64-bit words, shared with the programs that mark in it.
#[derive(Debug)]
struct Window {
    start: NonNull<AtomicU64>,
    /// The array's words that it shows.
    from: u64,
    words: u64,
}

// SAFETY: the memory is only reached through atomics, and is unmapped once, by the owner.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Maps words of the array, from one that lies at a page's start. The kernel refuses what is longer than the array.
    fn map(array: BorrowedFd<'_>, from: u64, words: u64) -> io::Result<Self> {
        let length = usize::try_from(words * 8).map_err(io::Error::other)?;
        let offset = i64::try_from(from * 8).map_err(io::Error::other)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice; nothing else is touched.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, array.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok(Self { start, from, words })
    }

    fn shows(&self, index: u64) -> bool {
        index.checked_sub(self.from).is_some_and(|within| within < self.words)
    }

    /// The word at `index`, counted from the array's start, which the window must show.
    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(self.shows(index), "word {index} is not among {} from {}", self.words, self.from);
        // SAFETY: within the mapping, which lives as long as self; aligned, as it starts on a page.
        unsafe { self.start.add((index - self.from) as usize).as_ref() }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made; no reference into it outlives self.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words as usize * 8) };
    }
}

/// Words in a page.
const PAGE_WORDS: u64 = 512;
/// Words that a cursor shows at a time: 512 KiB, which counts as this process's memory while it is mapped.
const WINDOW_WORDS: u64 = 128 * PAGE_WORDS;

/// An array of 64-bit words that programs and agent share. Its first page is always mapped.
#[derive(Debug)]
pub struct Area {
    array: OwnedFd,
    head: Window,
    words: u64,
}

impl Area {
    /// Takes an array of `words` words.
    pub fn new(array: OwnedFd, words: u64) -> io::Result<Self> {
        let head = Window::map(array.as_fd(), 0, words.min(PAGE_WORDS))?;
        Ok(Self { array, head, words })
    }

    /// Words in the array.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// A word of the first page.
    pub fn load(&self, index: u64) -> u64 {
        self.head.word(index).load(Ordering::Acquire)
    }

    /// Sets a word of the first page.
    pub fn store(&self, index: u64, value: u64) {
        self.head.word(index).store(value, Ordering::Release);
    }

    /// Reaches all words, best in ascending order.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor { area: self, window: None }
    }
}

/// Shows one stretch of an array after the other.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    area: &'a Area,
    window: Option<Window>,
}

impl Cursor<'_> {
    /// The word at `index`.
    pub fn load(&mut self, index: u64) -> io::Result<u64> {
        Ok(self.show(index)?.word(index).load(Ordering::Acquire))
    }

    /// Sets the word at `index`.
    pub fn store(&mut self, index: u64, value: u64) -> io::Result<()> {
        self.show(index)?.word(index).store(value, Ordering::Release);
        Ok(())
    }

    fn show(&mut self, index: u64) -> io::Result<&Window> {
        let shown = self.window.take().filter(|window| window.shows(index));
        let window = match shown {
            Some(window) => window,
            None => {
                let from = index / PAGE_WORDS * PAGE_WORDS;
                if index >= self.area.words {
                    return Err(io::Error::other(format!("word {index} of {}", self.area.words)));
                }
                Window::map(self.area.array.as_fd(), from, WINDOW_WORDS.min(self.area.words - from))?
            }
        };
        Ok(self.window.insert(window))
    }
}
