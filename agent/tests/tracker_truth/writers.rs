//! Threads that write to a device in every way there is.

use crate::raw;
use nix::fcntl::{FallocateFlags, fallocate};
use sluice_platform::AlignedBuf;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A small generator of random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// One thread's handles on the device.
pub struct Writer {
    direct: File,
    buffered: File,
    random: Random,
    bytes: u64,
    block: u64,
    buffer: AlignedBuf,
    unsynced: u32,
}

const LARGEST: u64 = 1 << 20;

impl Writer {
    pub fn open(device: &Path, bytes: u64, block: u64, seed: u64) -> Self {
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(device);
        let direct = open(libc::O_DIRECT).expect("the device, direct");
        let buffered = open(0).expect("the device, buffered");
        let buffer = AlignedBuf::zeroed(LARGEST as usize);
        Self { direct, buffered, random: Random(seed), bytes, block, buffer, unsynced: 0 }
    }

    /// Writes until `budget` is used up.
    pub fn run(mut self, budget: &AtomicU64) {
        let take = || budget.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        while take() {
            may_collide(self.write_one()).expect("a write to a device of the test's own");
        }
        may_collide(self.buffered.sync_data()).expect("fsync");
    }

    fn write_one(&mut self) -> io::Result<()> {
        match self.random.below(1000) {
            0..=799 => self.direct(8 * 512),
            800..=849 => self.direct(64 << 10),
            850..=852 => self.direct(LARGEST),
            853..=962 => self.buffered(),
            963..=972 => self.mapped(),
            973..=982 => self.range(4 << 10, raw::discard),
            983..=992 => self.range(4 << 10, raw::zero_out),
            993 => self.range(300 << 10, raw::discard),
            994 => self.range(2 << 20, raw::zero_out),
            995..=997 => self.range(64 << 10, |file, start, length| {
                allocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, start, length)
            }),
            _ => self.range(64 << 10, |file, start, length| {
                allocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, start, length)
            }),
        }
    }

    /// A range of whole blocks, `most` bytes at most.
    fn place(&mut self, most: u64) -> (u64, u64) {
        let length = (1 + self.random.below((most / self.block).max(1))) * self.block;
        let length = length.min(self.bytes / self.block * self.block);
        (self.random.below((self.bytes - length) / self.block + 1) * self.block, length)
    }

    /// Gives each sector of the buffer's first `length` bytes contents that it never had.
    fn stamp(&mut self, length: u64) {
        for sector in self.buffer[..length as usize].chunks_mut(512) {
            let stamp = self.random.next().to_le_bytes();
            sector[..8.min(stamp.len())].copy_from_slice(&stamp);
        }
    }

    fn direct(&mut self, most: u64) -> io::Result<()> {
        let (start, length) = self.place(most);
        self.stamp(length);
        self.direct.write_all_at(&self.buffer[..length as usize], start)
    }

    /// Any length from one byte to 6000, at any byte.
    fn buffered(&mut self) -> io::Result<()> {
        let length = 1 + self.random.below(6000);
        let start = self.random.below(self.bytes - length);
        let stamp = self.random.next().to_le_bytes();
        let bytes: Vec<u8> = stamp.iter().copied().cycle().take(length as usize).collect();
        self.buffered.write_all_at(&bytes, start)?;
        self.unsynced += 1;
        if self.unsynced.is_multiple_of(64) { self.buffered.sync_data() } else { Ok(()) }
    }

    fn mapped(&mut self) -> io::Result<()> {
        let length = 1 + self.random.below(5000);
        let whole_pages = self.bytes / 4096 * 4096;
        let start = self.random.below(whole_pages - length);
        let stamp = self.random.next().to_le_bytes();
        let bytes: Vec<u8> = stamp.iter().copied().cycle().take(length as usize).collect();
        raw::write_mapped(&self.buffered, start, &bytes)
    }

    fn range(&mut self, most: u64, f: impl Fn(&File, u64, u64) -> io::Result<()>) -> io::Result<()> {
        let (start, length) = self.place(most);
        // A page that another thread's mapping dirties at the same time makes the kernel refuse; it is a write that was
        // not made.
        match f(&self.direct, start, length) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EINVAL)) => Ok(()),
            other => other,
        }
    }
}

/// Where direct and buffered writers meet in one page, the kernel writes what it was given and then answers EIO ("Page
/// cache invalidation failure on direct I/O"). The checker looks at the device, not at answers.
fn may_collide(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|e| if e.raw_os_error() == Some(libc::EIO) { Ok(()) } else { Err(e) })
}

fn allocate(file: &File, flags: FallocateFlags, start: u64, length: u64) -> io::Result<()> {
    let flags = flags | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, start as i64, length as i64).map_err(io::Error::from)
}
