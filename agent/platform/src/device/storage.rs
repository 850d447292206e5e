//! Whether writing to one path would change another: the check that keeps a target off its own source.

use super::mounts;
use super::sysfs::{self, DevNo};
use crate::direct::{IoError, IoOp, IoResult};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How a source and a target share storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameStorage {
    /// They are one and the same.
    Identical,
    /// The target lies on the source (a file on its file system, a partition of it, something built upon it): what is
    /// written to the target changes the source, for ever.
    TargetOnSource,
    /// The source lies on the target: writing the target destroys the source.
    SourceOnTarget,
}

impl fmt::Display for SameStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identical => "target and source are the same disk; give another target",
            Self::TargetOnSource => {
                "the target lies on the source, so that writing it would change the source; put the target on another disk"
            }
            Self::SourceOnTarget => {
                "the source lies on the target, so that writing the target would destroy it; give another target"
            }
        })
    }
}

/// A thing that holds bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ground {
    Device(DevNo),
    File { dev: DevNo, inode: u64 },
}

/// Whether two disks share storage; `None` where they don't. The target needn't exist yet: its folder counts then.
///
/// Follows partitions, device mapper and md, loop devices and the file systems that files lie on, several devices of a
/// btrfs included. It can't see through network storage.
pub fn same_storage(source: impl AsRef<Path>, target: impl AsRef<Path>) -> IoResult<Option<SameStorage>> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let failed = |path: &Path| {
        let path = path.to_string_lossy().into();
        move |error| IoError::new(IoOp::Query, &path, 0, 0, error)
    };
    let source_ground = ground(source).map_err(failed(source))?;
    let target_ground = match ground(target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        result => Some(result.map_err(failed(target))?),
    };
    if Some(source_ground) == target_ground {
        return Ok(Some(SameStorage::Identical));
    }
    let target_below = match target_ground {
        Some(ground) => below(ground, target),
        None => {
            let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            below(ground(folder).map_err(failed(folder))?, folder)
        }
    };
    if target_below.contains(&source_ground) {
        return Ok(Some(SameStorage::TargetOnSource));
    }
    let on_target = target_ground.is_some_and(|target| below(source_ground, source).contains(&target));
    Ok(on_target.then_some(SameStorage::SourceOnTarget))
}

fn ground(path: &Path) -> std::io::Result<Ground> {
    let metadata = fs::metadata(path)?;
    if metadata.file_type().is_block_device() {
        return Ok(Ground::Device(DevNo::from_raw(metadata.rdev())));
    }
    Ok(Ground::File { dev: DevNo::from_raw(metadata.dev()), inode: metadata.ino() })
}

/// Everything that this lies upon, itself included.
fn below(ground: Ground, path: &Path) -> BTreeSet<Ground> {
    let mut found = BTreeSet::new();
    let mut next = vec![(ground, path.to_path_buf())];
    while let Some((ground, path)) = next.pop() {
        if !found.insert(ground) {
            continue;
        }
        let mut devices = Vec::new();
        match ground {
            Ground::File { dev, .. } => {
                devices.extend((dev.major != 0).then_some(dev));
                devices.extend(mounts::of_path(&path).iter().flat_map(mounts::Mount::devices));
            }
            Ground::Device(dev) => {
                let disk = sysfs::disk_of(dev);
                devices.push(disk);
                devices.extend([dev, disk].iter().flat_map(|dev| sysfs::linked(*dev, "slaves")));
                let backing = sysfs::loop_backing(disk);
                next.extend(backing.and_then(|path| Some((self::ground(&path).ok()?, path))));
            }
        }
        // A device's path is never asked for.
        next.extend(devices.into_iter().map(|dev| (Ground::Device(dev), PathBuf::new())));
    }
    found
}
