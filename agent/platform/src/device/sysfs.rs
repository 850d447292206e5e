//! What `/sys` tells about block devices: names, partitions, what lies above and below.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNo {
    /// Which driver or class.
    pub major: u32,
    /// Which one of it.
    pub minor: u32,
}

impl DevNo {
    /// From what `stat` reports.
    pub fn from_raw(raw: u64) -> Self {
        Self { major: libc::major(raw), minor: libc::minor(raw) }
    }

    /// As the kernel packs it in its own structures (tracepoints, BPF): 12 bits of major above 20 bits of minor.
    pub fn kernel_packed(self) -> u32 {
        self.major << 20 | self.minor
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The device's folder. A link; its target's name is the device's.
pub(super) fn folder(dev: DevNo) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{dev}"))
}

/// The kernel's name of a device.
pub(super) fn name(dev: DevNo) -> Option<String> {
    let target = fs::canonicalize(folder(dev)).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// A line of text from the device's folder; `None` where there is none or it is empty.
pub(super) fn text(dev: DevNo, file: &str) -> Option<String> {
    text_of(&folder(dev).join(file))
}

pub(super) fn text_of(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn is_partition(dev: DevNo) -> bool {
    folder(dev).join("partition").exists()
}

/// The whole disk of a partition; the device itself where it is no partition.
pub(super) fn disk_of(dev: DevNo) -> DevNo {
    if !is_partition(dev) {
        return dev;
    }
    let disk = fs::canonicalize(folder(dev)).ok().and_then(|path| dev_of(path.parent()?));
    disk.unwrap_or(dev)
}

/// The number of the device that this folder of `/sys` describes.
pub(super) fn dev_of(folder: &Path) -> Option<DevNo> {
    DevNo::parse(&text_of(&folder.join("dev"))?)
}

/// The devices in this subfolder of a device's: `holders` (built upon it) or `slaves` (what it is built upon).
pub(super) fn linked(dev: DevNo, subfolder: &str) -> Vec<DevNo> {
    entries(&folder(dev).join(subfolder)).iter().filter_map(|path| dev_of(path)).collect()
}

/// A disk's partitions.
pub(super) fn partitions(dev: DevNo) -> Vec<DevNo> {
    let folders = entries(&folder(dev));
    folders.iter().filter(|path| path.join("partition").exists()).filter_map(|path| dev_of(path)).collect()
}

/// The file behind a loop device.
pub(super) fn loop_backing(dev: DevNo) -> Option<PathBuf> {
    text(dev, "loop/backing_file").map(PathBuf::from)
}

/// All loop devices with their files.
pub(super) fn loops() -> Vec<(DevNo, PathBuf)> {
    let folders = entries(Path::new("/sys/block"));
    let devs = folders.iter().filter_map(|path| dev_of(path));
    devs.filter_map(|dev| Some((dev, loop_backing(dev)?))).collect()
}

/// The devices of the btrfs file systems of which this device is one; empty where it is in none.
pub(super) fn btrfs_siblings(dev: DevNo) -> Vec<DevNo> {
    let file_systems = entries(Path::new("/sys/fs/btrfs"));
    let members = file_systems
        .iter()
        .map(|fs| entries(&fs.join("devices")).iter().filter_map(|path| dev_of(path)).collect::<Vec<_>>());
    members.filter(|devs| devs.contains(&dev)).flatten().collect()
}

/// What is in a folder, in order of name; nothing where it can't be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = list.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
