//! The writes that need a word with the kernel of their own.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// BLKDISCARD and BLKZEROOUT (linux/fs.h): `_IO(0x12, 119)` and `_IO(0x12, 127)`.
const BLKDISCARD: u64 = 0x1277;
const BLKZEROOUT: u64 = 0x127f;

/// Puts /dev/null in the place of each descriptor of this process that holds the BPF link `id`.
pub fn let_go_of_link(id: u32) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let number = entry.file_name().into_string().unwrap_or_default();
        // One that another test closed meanwhile has no text.
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        if !text.lines().any(|line| line.split_whitespace().eq(["link_id:", &id.to_string()])) {
            continue;
        }
        let number: i32 = number.parse().map_err(io::Error::other)?;
        // SAFETY: the descriptor stays one of its owner's, who closes it; it only leads elsewhere from now on.
        if unsafe { libc::dup2(null.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Discards a range of bytes.
pub fn discard(device: &File, start: u64, length: u64) -> io::Result<()> {
    range_ioctl(device, BLKDISCARD, start, length)
}

/// Writes zeroes by the device's own means.
pub fn zero_out(device: &File, start: u64, length: u64) -> io::Result<()> {
    range_ioctl(device, BLKZEROOUT, start, length)
}

fn range_ioctl(device: &File, request: u64, start: u64, length: u64) -> io::Result<()> {
    let range = [start, length];
    // SAFETY: both ioctls read two 64-bit numbers and write nothing to our memory.
    match unsafe { libc::ioctl(device.as_raw_fd(), request, range.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes `bytes` at `start` through a shared mapping, and msyncs it.
pub fn write_mapped(device: &File, start: u64, bytes: &[u8]) -> io::Result<()> {
    let page = start / 4096 * 4096;
    let within = (start - page) as usize;
    let length = within + bytes.len();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of the file at a place of the kernel's choice.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, device.as_raw_fd(), page as i64)
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `length` bytes long, and the device covers it, so no fault comes of it.
    let synced = unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>().add(within), bytes.len());
        let synced = libc::msync(map, length, libc::MS_SYNC);
        libc::munmap(map, length);
        synced
    };
    if synced == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
