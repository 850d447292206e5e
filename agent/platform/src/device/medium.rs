//! Which medium a block device is, whatever its name: `/dev/sdb` may be another disk after the next start.

use super::sysfs::{self, DevNo};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Where the kernel tells what a disk is, below its folder in `/sys`, and what we call it. The first two stay the same for a
/// volume wherever it is put together; the others were given to the disk by its maker, or by the host of a virtual machine.
const FACTS: [(&str, &str); 7] = [
    ("dm", "dm/uuid"),
    ("md", "md/uuid"),
    ("wwid", "wwid"),
    ("wwid", "device/wwid"),
    ("serial", "serial"),
    ("serial", "device/serial"),
    ("cid", "device/cid"),
];

/// What tells the medium of a block device apart from others: facts of the form `name=value`, one space between them. None
/// where the kernel knows none that outlives the next start: of loop devices, of virtual disks without a serial number, and
/// of what is no block device. Not every maker's numbers differ, so the same text may stand for another medium: two texts are
/// compared by [`same_medium`].
///
/// # Errors
/// There is nothing under this name, or it can't be asked about.
pub fn medium_of(path: &Path) -> io::Result<Option<String>> {
    let facts = fs::metadata(path)?;
    if !facts.file_type().is_block_device() {
        return Ok(None);
    }
    let dev = DevNo::from_raw(facts.rdev());
    let disk = sysfs::disk_of(dev);
    let folders = (sysfs::folder(dev), sysfs::folder(disk));
    Ok(described(&folders.0, &folders.1, dev != disk))
}

/// Whether two texts of [`medium_of`] are of one medium: not where they tell one fact differently; `None` where they have no
/// fact in common. A newer kernel may know facts that an older one did not.
pub fn same_medium(then: &str, now: &str) -> Option<bool> {
    let equal = |(name, value): (&str, &str)| fact(now, name).map(|other| other == value);
    facts(then).filter_map(equal).reduce(|all, one| all && one)
}

fn facts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(' ').filter_map(|fact| fact.split_once('='))
}

fn fact<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    facts(text).find(|fact| fact.0 == name).map(|fact| fact.1)
}

/// By the folders of `/sys` of a device and of the disk that it lies on, which is itself if it is no partition.
fn described(device: &Path, disk: &Path, is_partition: bool) -> Option<String> {
    if disk.join("loop").exists() || is_loop(disk) {
        return None;
    }
    let mut found: Vec<(&str, String)> = Vec::new();
    for (name, file) in FACTS {
        if let Some(value) = sysfs::text_of(&disk.join(file)).filter(|_| found.iter().all(|(known, _)| *known != name))
        {
            found.push((name, value));
        }
    }
    if is_partition {
        // Its number alone is no proof of another one: tables are rewritten.
        let uevent = sysfs::text_of(&device.join("uevent")).unwrap_or_default();
        let id = uevent.lines().find_map(|line| line.strip_prefix("PARTUUID="));
        found.extend(id.filter(|id| !id.is_empty()).map(|id| ("partuuid", id.to_owned())));
    }
    let text = found.iter().map(|(name, value)| format!("{name}={}", one_word(value))).collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

/// One that has no file at the moment has no folder `loop` either.
fn is_loop(disk: &Path) -> bool {
    let name = fs::canonicalize(disk).ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.is_some_and(|name| name.strip_prefix("loop").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
}

/// Makers fill up with blanks, which would end a fact.
fn one_word(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join("_").replace('=', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Loop, root};

    /// A folder as `/sys` has it.
    fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        folder
    }

    fn disk(files: &[(&str, &str)]) -> Option<String> {
        let folder = sys(files);
        described(folder.path(), folder.path(), false)
    }

    #[test]
    fn each_kind_of_disk_says_what_it_is() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(disk(&[("device/wwid", "naa.5000c500a1b2c3d4\n")]), text("wwid=naa.5000c500a1b2c3d4"));
        assert_eq!(disk(&[("wwid", "nvme.1234\n"), ("device/serial", "S1  2 \n")]), text("wwid=nvme.1234 serial=S1_2"));
        assert_eq!(disk(&[("serial", "vol-0a=1\n")]), text("serial=vol-0a-1"));
        assert_eq!(disk(&[("dm/uuid", "LVM-abc\n"), ("dm/name", "vg-lv\n")]), text("dm=LVM-abc"));
        assert_eq!(disk(&[("md/uuid", "1:2:3:4\n")]), text("md=1:2:3:4"));
        assert_eq!(disk(&[("serial", "\n"), ("size", "1\n")]), None);
        assert_eq!(disk(&[("loop/backing_file", "/a\n"), ("serial", "1\n")]), None);
    }

    #[test]
    fn a_partition_is_told_by_its_own_id_and_its_disk() {
        let of = |uevent: &str, serial: &str| {
            let (part, disk) = (sys(&[("uevent", uevent)]), sys(&[("serial", serial)]));
            described(part.path(), disk.path(), true).unwrap_or_default()
        };
        let (first, second) = (of("PARTN=1\nPARTUUID=aa-1\n", "one"), of("PARTN=2\nPARTUUID=aa-2\n", "one"));
        assert_eq!(first, "serial=one partuuid=aa-1");
        assert_eq!((same_medium(&first, &second), same_medium(&second, &first)), (Some(false), Some(false)));
        assert_eq!(same_medium(&first, &of("PARTUUID=aa-1\n", "two")), Some(false), "a disk that was copied");
        // Kernels before 6.9 don't tell it.
        let older = of("PARTN=2\n", "one");
        assert_eq!((same_medium(&older, &second), same_medium(&second, &older)), (Some(true), Some(true)));
        assert_eq!((same_medium(&first, &first), same_medium("wwid=1", &first)), (Some(true), None));
    }

    #[test]
    fn a_loop_device_and_a_file_have_nothing_that_lasts() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(medium_of(file.path()).expect("asked"), None);
        assert!(medium_of(Path::new("/dev/there-is-none")).is_err());
        if root("the medium of a loop device") {
            let device = Loop::new(1 << 20, 512);
            assert_eq!(medium_of(device.path()).expect("asked"), None);
        }
    }
}
