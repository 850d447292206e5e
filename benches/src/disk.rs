//! The disks that are copied, and what is written to them.

use crate::bench::Plan;
use crate::measure::{command, quiet};
use anyhow::{Context, Result, ensure};
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
/// What is written in one go where much is.
pub const LARGE: usize = 256 << 10;
/// Real files, one tree after the other until the disk is full: this Debian, then what its users have.
const TREES: [&str; 3] = ["/usr", "/opt", "/var/lib"];
/// The same, below the home folder of whoever runs this: Rust's own files and others' sources.
const HOME_TREES: [&str; 2] = [".rustup", ".cargo/registry"];

/// A disk in a folder of the bench's own, with room for targets beside it.
#[derive(Debug)]
pub struct Disk {
    // Dropped in this order: nothing tracks it any more, detached, deleted, and unmounted where it lies in memory.
    _pins: Pins,
    device: Loop,
    folder: TempDir,
    _memory: Option<Mount>,
    /// What it holds, in words.
    pub holds: String,
}

impl Disk {
    /// An ext4 of the plan's size, filled with real files but for a seventh, as disks in use are. The files are
    /// gathered once in a run; further disks are copies.
    pub fn with_debian(plan: &Plan) -> Result<Self> {
        let kept = plan.folder.join("debian.img");
        let told = plan.folder.join("debian.txt");
        if !kept.exists() {
            let mut disk = Self::empty(plan, plan.disk_bytes)?;
            disk.gather(plan)?;
            quiet(command("cp", &["--sparse=always", text(disk.backing()), text(&kept)]))?;
            std::fs::write(&told, &disk.holds)?;
            return Ok(disk);
        }
        let folder = tempfile::Builder::new().prefix("disk-").tempdir_in(&plan.folder)?;
        let backing = folder.path().join("disk.img");
        quiet(command("cp", &["--sparse=always", text(&kept), text(&backing)]))?;
        quiet(command("sync", &["-d", text(&backing)]))?;
        let device = Loop::over(&backing, 512);
        Ok(Self {
            _pins: Pins::of(folder.path()),
            device,
            folder,
            _memory: None,
            holds: std::fs::read_to_string(told)?,
        })
    }

    /// Makes a file system and fills it.
    fn gather(&mut self, plan: &Plan) -> Result<()> {
        let mount = Mount::format(self.path(), FileSystem::Ext4);
        let room = (plan.disk_bytes / 100 * 86).to_string();
        let home = std::env::var("HOME").unwrap_or_default();
        let trees = TREES.iter().map(|tree| (*tree).to_owned());
        let trees = trees.chain(HOME_TREES.iter().map(|tree| format!("{home}/{tree}")));
        let trees: Vec<String> = trees.filter(|tree| Path::new(tree).is_dir()).collect();
        let trees = trees.iter().map(|tree| tree.trim_start_matches('/'));
        // The last file is cut off where the disk is full.
        let script = "room=$0 to=$1; shift; tar --create --file=- --directory=/ \"$@\" 2>/dev/null \
                      | head --bytes=\"$room\" | tar --extract --file=- --directory=\"$to\" 2>/dev/null; true";
        let arguments: Vec<&str> = ["-c", script, &room, text(mount.path())].into_iter().chain(trees).collect();
        quiet(command("sh", &arguments))?;
        let used = must("df", &["--output=used", "-B1", text(mount.path())]);
        let used: u64 =
            used.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df tells what is used")?;
        let found = std::fs::read_dir(mount.path())?.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        let found: Vec<_> =
            found.iter().map(|name| name.to_string_lossy()).filter(|name| name != "lost+found").collect();
        self.holds = format!(
            "a disk of {} MiB, an ext4 with {} MiB of this machine's files (from {})",
            plan.disk_bytes >> 20,
            used >> 20,
            found.join(", ")
        );
        mount.unmount();
        quiet(command("blockdev", &["--flushbufs", text(self.path())]))?;
        quiet(command("sync", &["-d", text(self.backing())]))
    }

    /// A disk of bytes that no compressor finds anything in.
    pub fn with_noise(plan: &Plan, bytes: u64) -> Result<Self> {
        Self::empty(plan, bytes)?.noisy(bytes, "")
    }

    /// The same in memory: a source that is not on its target's disk.
    pub fn in_memory(bytes: u64) -> Result<Self> {
        let memory = Mount::memory(bytes + bytes / 16);
        let folder = tempfile::Builder::new().prefix("disk-").tempdir_in(memory.path())?;
        Self::sparse(folder, bytes, Some(memory)).noisy(bytes, ", in memory")
    }

    /// Fills it with such bytes.
    fn noisy(mut self, bytes: u64, place: &str) -> Result<Self> {
        self.fill(0, bytes, 3)?;
        self.holds = format!("a disk of {} MiB of random bytes{place}", bytes >> 20);
        Ok(self)
    }

    /// A disk that reads as zeros.
    pub fn empty(plan: &Plan, bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("disk-").tempdir_in(&plan.folder)?;
        Ok(Self::sparse(folder, bytes, None))
    }

    fn sparse(folder: TempDir, bytes: u64, _memory: Option<Mount>) -> Self {
        let device = Loop::new(folder.path(), "disk.img", bytes, 512);
        let holds = format!("a sparse disk of {} MiB", bytes >> 20);
        Self { _pins: Pins::of(folder.path()), device, folder, _memory, holds }
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

    /// Lets its driver read the file past the page cache, which zeros of a large sparse file would only push others out
    /// of.
    pub fn past_the_cache(&self) {
        must("losetup", &["--direct-io=on", text(self.path())]);
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

    /// Writes random bytes to a whole stretch; they have reached the disk when this returns.
    pub fn fill(&self, from: u64, bytes: u64, seed: u64) -> Result<()> {
        let disk = DirectFile::open_rw(self.path())?;
        let mut noise = Noise::new(seed);
        let mut buffer = AlignedBuf::zeroed(1 << 20);
        for at in (from..from + bytes).step_by(1 << 20) {
            noise.fill(&mut buffer);
            let len = (from + bytes - at).min(1 << 20) as usize;
            let (back, written) = disk.write_at_blocking(at, buffer, 0..len);
            written.with_context(|| format!("writing to {}", self.path().display()))?;
            buffer = back;
        }
        Ok(disk.sync_data_blocking()?)
    }
}

/// A part of a disk as a disk of its own.
#[derive(Debug)]
pub struct Slice(PathBuf);

impl Slice {
    /// `count` parts of the same size, whole MiB, which together are the disk but for its end.
    pub fn all(disk: &Disk, bytes: u64, count: u64) -> Result<Vec<Self>> {
        let each = (bytes / count) & !0xf_ffff;
        ensure!(each > 0, "{bytes} bytes can't be cut into {count} disks");
        let size = format!("--sizelimit={each}");
        let slice = |number: u64| {
            let offset = format!("--offset={}", number * each);
            let path = must("losetup", &["--find", "--show", &offset, &size, text(disk.backing())]);
            Self(PathBuf::from(path))
        };
        Ok((0..count).map(slice).collect())
    }

    /// Its device node.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        sluice_test_support::command::output("losetup", &["--detach", text(&self.0)]);
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
#[derive(Debug)]
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
