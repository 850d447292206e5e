//! What is mounted, from `/proc/self/mountinfo`.

use super::sysfs::DevNo;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of this mount.
    pub id: u64,
    /// The device that its files report; of btrfs and overlayfs a made-up one.
    pub dev: DevNo,
    /// Where.
    pub at: PathBuf,
    /// The file system's kind.
    pub fs: String,
    /// What was mounted: a device's path, or any word.
    pub source: PathBuf,
    /// True where the file system itself is writable. A read-only mount of a writable file system counts as writable,
    /// since it still writes for itself and another mount of it may be writable.
    pub writable: bool,
}

impl Mount {
    /// The block devices it lies on, as far as its own entry tells.
    pub(super) fn devices(&self) -> Vec<DevNo> {
        if self.dev.major != 0 {
            return vec![self.dev];
        }
        // Made-up numbers have major 0; the source may name the device.
        let source = fs::metadata(&self.source).ok().filter(|_| super::is_block_device(&self.source));
        let Some(dev) = source.map(|metadata| DevNo::from_raw(metadata.rdev())) else { return Vec::new() };
        let mut devices = super::sysfs::btrfs_siblings(dev);
        devices.push(dev);
        devices
    }
}

/// The mounts of this process's namespace; empty where `/proc` doesn't tell.
pub(super) fn all() -> Vec<Mount> {
    fs::read("/proc/self/mountinfo").map(|text| parse_mountinfo(&text)).unwrap_or_default()
}

/// The mount that a path leads into. By the kernel's own number: a btrfs subvolume's files report a device that no
/// mount does.
pub(super) fn of_path(path: &Path) -> Option<Mount> {
    let file = File::options().read(true).custom_flags(libc::O_PATH).open(path).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let id: u64 = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    all().into_iter().find(|mount| mount.id == id)
}

/// Reads the lines of a `mountinfo` (proc_pid_mountinfo(5)); skips what isn't one.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mnt/point rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`: the third field is the
/// device, the fifth the place; behind the lone dash come kind, source and the file system's own options.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let options = *fields.get(dash + 3)?;
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    Some(Mount {
        id: number(fields.first()?)?,
        dev: DevNo::parse(std::str::from_utf8(fields.get(2)?).ok()?)?,
        at: unescape(fields.get(4)?),
        fs: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: unescape(fields.get(dash + 2)?),
        writable: options.split(|b| *b == b',').next() == Some(b"rw"),
    })
}

/// Blanks, tabs, line ends and backslashes stand as a backslash and three octal digits.
pub(super) fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = |b: &u8| matches!(b, b'0'..=b'7').then(|| u32::from(b - b'0'));
        let escaped = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            digits.iter().try_fold(0, |n, digit| Some(n * 8 + octal(digit)?)).and_then(|n| u8::try_from(n).ok())
        });
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(out).into()
}
