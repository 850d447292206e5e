//! What a disk is: its size and sectors, its names, who uses it, and whether two of them are the same storage.

mod activity;
mod medium;
mod mounts;
mod storage;
mod sysfs;
mod uses;

pub use activity::Activity;
pub use medium::Medium;
pub use mounts::{Mount, parse_mountinfo};
pub use storage::{SameStorage, same_storage};
pub use sysfs::DevNo;
pub use uses::Use;

use crate::direct::IoResult;
use crate::direct::files::{Files, ioctl};
use crate::direct::{Alignment, IoError, IoOp};
use sluice_proto::units::ByteCount;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What kind of disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A whole block device.
    Disk,
    /// A partition of a block device.
    Partition,
    /// A regular file.
    File,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Partition => "partition",
            Self::File => "file",
        })
    }
}

/// The facts of a disk at the moment when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The path with all links followed.
    pub path: PathBuf,
    /// The kernel's name (`sda1`), or the file's name.
    pub name: String,
    /// What kind of disk it is.
    pub kind: DeviceKind,
    /// The size. Of a device always whole 512-byte sectors; a file has any size.
    pub size: ByteCount,
    /// The unit of addressing in bytes; 512 for a file.
    pub logical_sector: u32,
    /// The unit of an atomic write in bytes; 512 for a file.
    pub physical_sector: u32,
    /// What direct I/O demands; `None` where it can't be done.
    pub alignment: Option<Alignment>,
    /// Nothing can write to it: the device refuses writes, or (for a file) its file system is mounted read-only.
    pub read_only: bool,
    /// The maker's name of it, if it has one.
    pub model: Option<String>,
    /// The device itself; of a file the device that its file system reports.
    pub dev: DevNo,
    /// A file's inode number.
    pub inode: Option<u64>,
    /// A number that no two attachments of disks in one boot share: another one under the same name has another.
    pub diskseq: Option<u64>,
    /// What tells it apart from another disk under the same name.
    pub medium: Medium,
    /// Who uses it now.
    pub uses: Vec<Use>,
}

impl DeviceFacts {
    /// Asks the kernel about a block device or a regular file. Opens it for reading.
    pub fn of(path: impl AsRef<Path>) -> IoResult<Self> {
        let path = path.as_ref();
        let failed = |source| IoError::new(IoOp::Query, &path.to_string_lossy().into(), 0, 0, source);
        let resolved = fs::canonicalize(path).map_err(failed)?;
        // Opening tells apart what a `stat` doesn't: no medium, no permission, neither device nor file.
        let files = Files::open(&resolved, false, false, false, true).map_err(failed)?;
        let alignment = files.is_direct.then_some(files.align);
        let facts = if files.is_block { Self::of_device(&resolved, &files) } else { Self::of_file(&resolved, &files) };
        facts.map(|facts| Self { alignment, ..facts }).map_err(failed)
    }

    fn of_device(path: &Path, files: &Files) -> io::Result<Self> {
        let file = files.main();
        let dev = DevNo::from_raw(file.metadata()?.rdev());
        let partition = sysfs::is_partition(dev);
        let disk = sysfs::disk_of(dev);
        Ok(Self {
            path: path.to_path_buf(),
            name: sysfs::name(dev).unwrap_or_else(|| file_name(path)),
            kind: if partition { DeviceKind::Partition } else { DeviceKind::Disk },
            size: ByteCount(files.size()?),
            logical_sector: ioctl::logical_sector(file)?,
            physical_sector: ioctl::physical_sector(file)?,
            alignment: None,
            read_only: ioctl::read_only(file)?,
            model: sysfs::text(disk, "device/model").or_else(|| sysfs::text(disk, "dm/name")),
            dev,
            inode: None,
            diskseq: sysfs::text(disk, "diskseq").and_then(|text| text.parse().ok()),
            medium: Medium::of(dev),
            uses: uses::of_device(dev),
        })
    }

    fn of_file(path: &Path, files: &Files) -> io::Result<Self> {
        let file = files.main();
        let metadata = file.metadata()?;
        let on_read_only = nix::sys::statvfs::fstatvfs(file)
            .is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
        Ok(Self {
            path: path.to_path_buf(),
            name: file_name(path),
            kind: DeviceKind::File,
            size: ByteCount(metadata.len()),
            logical_sector: 512,
            physical_sector: 512,
            alignment: None,
            read_only: on_read_only,
            model: None,
            dev: DevNo::from_raw(metadata.dev()),
            inode: Some(metadata.ino()),
            diskseq: None,
            medium: Medium::default(),
            uses: uses::of_file(path),
        })
    }

    /// True where the open file is the very disk that these are the facts of, not one that has its path or number by now.
    pub fn are_of(&self, file: &File) -> bool {
        let Ok(metadata) = file.metadata() else { return false };
        if !metadata.file_type().is_block_device() {
            return (Some(metadata.ino()), DevNo::from_raw(metadata.dev())) == (self.inode, self.dev);
        }
        let same_number = self.inode.is_none() && DevNo::from_raw(metadata.rdev()) == self.dev;
        same_number && self.diskseq.is_none_or(|known| ioctl::diskseq(file).is_ok_and(|found| found == known))
    }

    /// True where a file system on it is mounted in such a way that it can write. Then a scan sees a moving disk.
    pub fn is_mounted_rw(&self) -> bool {
        self.uses.iter().any(|user| matches!(user, Use::Mounted(mount) if mount.writable))
    }

    /// True where anybody at all uses it: writing to it as a target would destroy something in use.
    pub fn is_in_use(&self) -> bool {
        !self.uses.is_empty()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// True where nobody can write to an open block device at this moment, which is asked anew each time.
///
/// That it refuses writes is not enough: a file system that is mounted on it, or a device that is built upon it, goes on
/// writing when that is set under it; and who may write to the disk may write to its partitions. What lies below it (a loop
/// device's file, the device under a mapped one) is not looked at.
pub fn refuses_all_writes(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    if !metadata.file_type().is_block_device() || !ioctl::read_only(file).unwrap_or(false) {
        return false;
    }
    let dev = DevNo::from_raw(metadata.rdev());
    let disk_too = !sysfs::is_partition(dev) || sysfs::text(sysfs::disk_of(dev), "ro").is_some_and(|text| text == "1");
    disk_too && uses::of_device(dev).iter().all(|user| matches!(user, Use::Mounted(mount) if !mount.writable))
}

/// True where the path is a block device, its links followed.
pub fn is_block_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// True where the open file is still what this path names: nobody has put something else in its place.
pub fn is_same_file(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    let same_device = open.file_type().is_block_device() && named.file_type().is_block_device();
    if same_device {
        return open.rdev() == named.rdev();
    }
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests;
