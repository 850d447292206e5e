//! Who uses a disk: mounts, swap, devices built upon it.

use super::mounts::{self, Mount};
use super::sysfs::{self, DevNo};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One use of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// A file system on it, on a partition of it or on something built upon it is mounted.
    Mounted(Mount),
    /// It, or a partition of it, is swap.
    Swap(PathBuf),
    /// Another device is built upon it (device mapper, md, bcache): the kernel's name of that device.
    Holder(String),
    /// A loop device stands on this file: the kernel's name of that device.
    Loop(String),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(mount) => {
                let how = if mount.writable { "read-write" } else { "read-only" };
                write!(f, "mounted at {} ({}, {how})", mount.at.display(), mount.fs)
            }
            Self::Swap(path) => write!(f, "swap on {}", path.display()),
            Self::Holder(name) => write!(f, "part of {name}"),
            Self::Loop(name) => write!(f, "attached as {name}"),
        }
    }
}

/// The uses of a block device. Also of what is built upon it; not of the disk that a partition lies on.
pub(super) fn of_device(dev: DevNo) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut above = BTreeSet::new();
    climb(dev, &mut above, &mut uses);
    for mount in mounts::all() {
        if mount.devices().iter().any(|dev| above.contains(dev)) {
            uses.push(Use::Mounted(mount));
        }
    }
    uses.extend(
        swaps().into_iter().filter(|(dev, _)| dev.is_some_and(|dev| above.contains(&dev))).map(|s| Use::Swap(s.1)),
    );
    uses
}

/// The uses of a regular file: as swap, and as the ground of loop devices with all their uses.
pub(super) fn of_file(path: &Path) -> Vec<Use> {
    let mut uses: Vec<_> = swaps().into_iter().filter(|(_, swap)| swap == path).map(|s| Use::Swap(s.1)).collect();
    for (dev, _) in sysfs::loops().into_iter().filter(|(_, file)| file == path) {
        uses.push(Use::Loop(sysfs::name(dev).unwrap_or_else(|| dev.to_string())));
        uses.extend(of_device(dev));
    }
    uses
}

/// Collects the device, its partitions and all that is built upon them.
fn climb(dev: DevNo, above: &mut BTreeSet<DevNo>, uses: &mut Vec<Use>) {
    if !above.insert(dev) {
        return;
    }
    for partition in sysfs::partitions(dev) {
        climb(partition, above, uses);
    }
    for holder in sysfs::linked(dev, "holders") {
        uses.push(Use::Holder(sysfs::name(holder).unwrap_or_else(|| holder.to_string())));
        climb(holder, above, uses);
    }
}

/// What is swap: the device, where it is one, and the path.
fn swaps() -> Vec<(Option<DevNo>, PathBuf)> {
    let Ok(text) = fs::read("/proc/swaps") else { return Vec::new() };
    let lines = text.split(|b| *b == b'\n').skip(1);
    let paths = lines.filter_map(|line| line.split(|b| matches!(b, b' ' | b'\t')).next());
    let paths = paths.filter(|path| !path.is_empty()).map(mounts::unescape);
    paths.map(|path| (device(&path), path)).collect()
}

fn device(path: &Path) -> Option<DevNo> {
    // A swap file that was deleted still stands there, with a note behind its name.
    let exists = !path.as_os_str().as_bytes().ends_with(b"\\040(deleted)");
    let metadata = exists.then(|| fs::metadata(path).ok()).flatten()?;
    super::is_block_device(path).then(|| DevNo::from_raw(metadata.rdev()))
}
