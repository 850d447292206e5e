//! The writes that need a word with the kernel of their own.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// BLKDISCARD and BLKZEROOUT (linux/fs.h): `_IO(0x12, 119)` and `_IO(0x12, 127)`.
const BLKDISCARD: u64 = 0x1277;
const BLKZEROOUT: u64 = 0x127f;

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
