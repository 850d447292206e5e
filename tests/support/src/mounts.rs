//! File systems on a test's devices.

use crate::command::{output, run};
use crate::devices::text;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, without lazily written tables: what a test sees is what it wrote.
    Ext4,
    /// XFS; 300 MiB at least.
    Xfs,
    /// Btrfs; 120 MiB at least.
    Btrfs,
}

/// A mounted file system; unmounted on drop.
#[derive(Debug)]
pub struct Mount {
    dir: TempDir,
    mounted: bool,
}

impl Mount {
    /// Makes the file system on `device` and mounts it.
    pub fn format(device: &Path, fs: FileSystem) -> Self {
        match fs {
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", text(device)]),
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-f", text(device)]),
            FileSystem::Btrfs => run("mkfs.btrfs", &["-q", "-f", text(device)]),
        };
        Self::of(device, &[])
    }

    /// Mounts what is on `device`, with further options of mount.
    pub fn of(device: &Path, options: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        run("mount", &[options, &[text(device), text(dir.path())]].concat());
        Self { dir, mounted: true }
    }

    /// Mounts a file system in memory that holds `bytes` at most.
    pub fn memory(bytes: u64) -> Self {
        Self::of(Path::new("tmpfs"), &["-t", "tmpfs", "-o", &format!("size={bytes}")])
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Unmounts: afterwards all that was written is on the device, and nothing more comes.
    pub fn unmount(mut self) {
        run("umount", &[text(self.dir.path())]);
        self.mounted = false;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a process that a failing test left must not keep it in the host's table.
            output("umount", &["--lazy", text(self.dir.path())]);
        }
    }
}

/// A small ext4 on a loop device, to fill it up. It goes with its backing file.
#[derive(Debug)]
pub struct SmallDisk {
    // Dropped in this order: unmounted, detached, deleted.
    mount: Mount,
    _device: crate::devices::Loop,
    _folder: TempDir,
}

impl SmallDisk {
    /// One of `bytes`, 4 MiB at least.
    pub fn new(bytes: u64) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let device = crate::devices::Loop::new(folder.path(), "small", bytes, 512);
        run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal", "-m", "0", text(device.path())]);
        Self { mount: Mount::of(device.path(), &[]), _device: device, _folder: folder }
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// Takes away all room but `bytes`; what it is taken with is returned, and gives room again when it is removed.
    pub fn fill_but(&self, bytes: u64) -> PathBuf {
        let filler = self.path().join("filler");
        let free: u64 = run("df", &["--output=avail", "-B1", text(self.path())])
            .lines()
            .nth(1)
            .and_then(|line| line.trim().parse().ok())
            .expect("df tells the free bytes");
        run("fallocate", &["-l", &free.saturating_sub(bytes).max(1).to_string(), text(&filler)]);
        filler
    }
}
