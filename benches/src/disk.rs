//! The disks that are copied, and what is written to them.

use crate::bench::Plan;
use crate::measure::{command, run};
use anyhow::{Context, Result};
use sluice_e2e::Pins;
use sluice_platform::buf::AlignedBuf;
use sluice_platform::direct::DirectFile;
use sluice_test_support::command::run as must;
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::mounts::{FileSystem, Mount};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What is written at random is written in pieces of this size.
pub const PIECE: usize = 4096;

/// A disk in a folder of the bench's own, with room for targets beside it.
pub struct Disk {
    // Dropped in this order: nothing tracks it any more, detached, deleted.
    _pins: Pins,
    device: Loop,
    folder: TempDir,
}

impl Disk {
    /// An ext4 with as much of this Debian's `/usr` as fits.
    pub fn with_debian(plan: &Plan) -> Result<Self> {
        let disk = Self::empty(plan, plan.disk_bytes)?;
        let mount = Mount::format(disk.path(), FileSystem::Ext4);
        // A tenth is left free, as on most disks.
        let room = (plan.disk_bytes / 10 * 8).to_string();
        let script = "tar --create --file=- --one-file-system --directory=/ usr 2>/dev/null | head --bytes=\"$0\" \
                      | tar --extract --file=- --directory=\"$1\" 2>/dev/null; true";
        run(command("sh", &["-c", script, &room, text(mount.path())]))?;
        mount.unmount();
        run(command("blockdev", &["--flushbufs", text(disk.path())]))?;
        run(command("sync", &["-d", text(disk.device.backing())]))?;
        Ok(disk)
    }

    /// A disk that reads as zeros.
    pub fn empty(plan: &Plan, bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluice-bench-").tempdir_in(&plan.folder)?;
        let device = Loop::new(folder.path(), "disk.img", bytes, 512);
        Ok(Self { _pins: Pins::of(folder.path()), device, folder })
    }

    /// The device.
    pub fn path(&self) -> &Path {
        self.device.path()
    }

    /// The file under it.
    pub fn backing(&self) -> &Path {
        self.device.backing()
    }

    /// A path beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reads all of it into the page cache: contenders are to be compared, not runs with a cold and a warm cache.
    pub fn warm(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut file = File::open(self.backing())?;
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Writes random bytes to `count` pieces at random places below `bytes`, the same ones for the same seed; they have
    /// reached the disk when this returns.
    pub fn dirty(&self, seed: u64, bytes: u64, count: u64) -> Result<()> {
        let disk = DirectFile::open_rw(self.path())?;
        let mut noise = Noise::new(seed);
        let mut buffer = AlignedBuf::zeroed(PIECE);
        for _ in 0..count {
            noise.fill(&mut buffer);
            let at = noise.below(bytes / PIECE as u64) * PIECE as u64;
            let (back, written) = disk.write_at_blocking(at, buffer, 0..PIECE);
            written.with_context(|| format!("writing to {}", self.path().display()))?;
            buffer = back;
        }
        Ok(disk.sync_data_blocking()?)
    }
}

/// Removes a target and what was noted of it, for the next round to begin anew.
pub fn remove_target(target: &Path) {
    // It need not be there.
    drop(std::fs::remove_file(target));
    let state = PathBuf::from(format!("{}.sluice", target.display()));
    if state.exists() {
        drop(Pins::of(&state));
        must("rm", &["-rf", text(&state)]);
    }
}

/// Numbers that no compressor finds anything in, quick and the same for the same seed (xorshift64*, Vigna 2016).
pub struct Noise(u64);

impl Noise {
    /// By a seed; any will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }
}
