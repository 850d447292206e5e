//! How a target that someone else changed is told from one that was left alone.

use serde::{Deserialize, Serialize};
use sluice_platform::device::{Activity, is_same_file};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What of a target changes when somebody writes to it or puts another file in its place. Taken after each flush and
/// kept in the ledger. A block device has no times of its own: there its size tells, and the kernel's count of writes as long
/// as it stays attached and the machine runs. What was written to it elsewhere a scrub finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The file's length, or the device's size, in bytes.
    pub size: u64,
    /// The file's inode; 0 for a device.
    pub inode: u64,
    /// When the contents were last changed, in nanoseconds since 1970; 0 for a device.
    pub modified_ns: i64,
    /// When contents or attributes were last changed, likewise. Unlike the other it cannot be set back.
    pub changed_ns: i64,
    /// Of a device: what the kernel has counted of its writes, where it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
}

impl Fingerprint {
    /// True where nothing shows that the target was written to or exchanged since `before`.
    pub fn is_still(&self, before: &Self) -> bool {
        let written = self.activity.zip(before.activity).is_some_and(|(now, then)| now.shows_writes_since(&then));
        !written && Self { activity: None, ..*self } == Self { activity: None, ..*before }
    }

    /// Of an open file, or of whatever has been put under its name since.
    pub(super) fn of(file: &std::fs::File, path: &Path, size: u64) -> std::io::Result<Self> {
        if !is_same_file(file, path) {
            return Ok(path
                .metadata()
                .map_or_else(|_| Self::default(), |other| Self { inode: other.ino(), ..Self::default() }));
        }
        let facts = file.metadata()?;
        if facts.file_type().is_block_device() {
            return Ok(Self { size, activity: Activity::of(file), ..Self::default() });
        }
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Ok(Self {
            size,
            inode: facts.ino(),
            modified_ns: nanos(facts.mtime(), facts.mtime_nsec()),
            changed_ns: nanos(facts.ctime(), facts.ctime_nsec()),
            activity: None,
        })
    }
}
