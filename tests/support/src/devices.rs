//! Block devices that a test makes for itself, and that go when they are dropped.

use crate::command::{output, run};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A loop device over a sparse file in a folder of the test's own.
#[derive(Debug)]
pub struct Loop {
    path: PathBuf,
    backing: PathBuf,
    partitions: u32,
}

impl Loop {
    /// A new disk of `bytes` with logical sectors of `sector` bytes (512 or 4096). `bytes` is a whole number of 512.
    pub fn new(folder: &Path, name: &str, bytes: u64, sector: u32) -> Self {
        let backing = folder.join(name);
        let made = File::create_new(&backing).and_then(|file| file.set_len(bytes));
        made.unwrap_or_else(|e| panic!("a sparse file at {}: {e}", backing.display()));
        Self::over(&backing, sector)
    }

    /// A disk over a file that is there.
    pub fn over(backing: &Path, sector: u32) -> Self {
        let sector = sector.to_string();
        let path = run("losetup", &["--find", "--show", "--sector-size", &sector, text(backing)]);
        let path = PathBuf::from(path);
        Self { path, backing: backing.to_owned(), partitions: 0 }
    }

    /// Its device node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file under it.
    pub fn backing(&self) -> &Path {
        &self.backing
    }

    /// Adds a partition of `sectors` sectors of 512 bytes from `start`; its device node.
    pub fn add_partition(&mut self, start: u64, sectors: u64) -> PathBuf {
        self.partitions += 1;
        let number = self.partitions.to_string();
        run("addpart", &[text(&self.path), &number, &start.to_string(), &sectors.to_string()]);
        PathBuf::from(format!("{}p{number}", self.path.display()))
    }

    /// Gives the file under it, and so the disk, another size.
    pub fn resize(&self, bytes: u64) {
        let file = File::options().write(true).open(&self.backing);
        let resized = file.and_then(|file| file.set_len(bytes));
        resized.unwrap_or_else(|e| panic!("another size for {}: {e}", self.backing.display()));
        run("losetup", &["--set-capacity", text(&self.path)]);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        for number in 1..=self.partitions {
            output("delpart", &[text(&self.path), &number.to_string()]);
        }
        output("losetup", &["--detach", text(&self.path)]);
    }
}

/// A disk in compressed memory: its driver takes bios without a request queue.
#[derive(Debug)]
pub struct Zram {
    path: PathBuf,
    number: String,
}

impl Zram {
    /// A new one of `bytes`. `None` where the kernel has no zram.
    pub fn new(bytes: u64) -> Option<Self> {
        if !Path::new("/sys/class/zram-control").exists() {
            output("modprobe", &["zram"]);
        }
        let number = fs::read_to_string("/sys/class/zram-control/hot_add").ok()?.trim().to_owned();
        let zram = Self { path: format!("/dev/zram{number}").into(), number };
        let sized = fs::write(format!("/sys/block/zram{}/disksize", zram.number), bytes.to_string());
        sized.unwrap_or_else(|e| panic!("a size for {}: {e}", zram.path.display()));
        Some(zram)
    }

    /// Its device node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        // In a drop there is nobody to tell; the test's own failure is what counts.
        drop(fs::write(format!("/sys/block/zram{}/reset", self.number), "1"));
        drop(fs::write("/sys/class/zram-control/hot_remove", &self.number));
    }
}

/// A path as an argument. Temporary folders have plain names.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is not UTF-8", path.display()))
}
