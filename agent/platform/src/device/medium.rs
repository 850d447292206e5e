//! What tells a medium apart from another, under whatever name the kernel has it.

use super::sysfs::{self, DevNo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The names that a disk or partition brings with it: what its maker, its hypervisor or its own tables call it. Empty where
/// the kernel knows none: files, loop devices, disks in memory, some virtual disks.
///
/// A copy of a disk within its hypervisor may have the names of the original: equal names are no proof, different ones of one
/// scheme are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Medium(BTreeMap<String, String>);

/// The kind of a name, and the files in the disk's folder of sysfs that have it.
const NAMES: [(&str, &[&str]); 4] = [
    ("wwid", &["wwid", "device/wwid"]),
    ("serial", &["serial", "device/serial"]),
    ("dm-uuid", &["dm/uuid"]),
    ("md-uuid", &["md/uuid"]),
];
/// A partition's own name, from the disk's table.
const PARTITION_UUID: &str = "partuuid";
/// Its number, which counts where its own name is not known.
const PARTITION: &str = "partition";

impl Medium {
    /// That of the block device under a path; one without names for anything else.
    ///
    /// # Errors
    /// There is nothing under this name, or it can't be asked about.
    pub fn at(path: &Path) -> io::Result<Self> {
        let facts = fs::metadata(path)?;
        let is_block = facts.file_type().is_block_device();
        Ok(if is_block { Self::of(DevNo::from_raw(facts.rdev())) } else { Self::default() })
    }

    pub(super) fn of(dev: DevNo) -> Self {
        let (own, disk) = (sysfs::folder(dev), sysfs::folder(sysfs::disk_of(dev)));
        Self::in_folders(&own, &disk, &PathBuf::from(format!("/run/udev/data/b{dev}")))
    }

    /// From the device's and its disk's folders in sysfs, and what udev noted of the device.
    fn in_folders(own: &Path, disk: &Path, udev: &Path) -> Self {
        let known = NAMES.iter().filter_map(|(kind, files)| {
            let name = files.iter().find_map(|file| sysfs::text_of(&disk.join(file)))?;
            (!is_slot(&name)).then(|| ((*kind).to_owned(), name))
        });
        let mut names: BTreeMap<String, String> = known.collect();
        let Some(number) = sysfs::text_of(&own.join("partition")) else { return Self(names) };
        // Newer kernels tell it; udev does on all.
        let uuid = value(&own.join("uevent"), "PARTUUID=").or_else(|| value(udev, "E:ID_PART_ENTRY_UUID="));
        if !names.is_empty() {
            names.insert(PARTITION.to_owned(), number);
        }
        names.extend(uuid.map(|uuid| (PARTITION_UUID.to_owned(), uuid.to_ascii_lowercase())));
        Self(names)
    }

    /// True where the kernel has any name for it.
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// True where the kernel has none.
    pub fn is_unknown(&self) -> bool {
        !self.is_known()
    }

    /// True where the two are surely not the same medium, or not the same part of it.
    pub fn differs(&self, other: &Self) -> bool {
        let (common, different) = self.compare(other);
        let parts = [self, other].map(|medium| medium.is_partition());
        (self.is_known() && other.is_known() && parts[0] != parts[1]) || (common && different)
    }

    /// True where both have names for the same thing, and they are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let (common, _) = self.compare(other);
        common && !self.differs(other)
    }

    /// Whether there is a kind of name that both have, and whether such a one differs. Of the disk the first kind decides that
    /// can be compared, of a partition its own name and its disk's.
    fn compare(&self, other: &Self) -> (bool, bool) {
        let same = |kind: &str| same_name(kind, self.0.get(kind)?, other.0.get(kind)?);
        let disk = NAMES.iter().find_map(|(kind, _)| same(kind));
        let (by_uuid, by_number) = (same(PARTITION_UUID), same(PARTITION));
        let part = by_uuid.or(by_number);
        (disk.is_some() || by_uuid.is_some(), disk == Some(false) || part == Some(false))
    }

    fn is_partition(&self) -> bool {
        self.0.contains_key(PARTITION) || self.0.contains_key(PARTITION_UUID)
    }

    /// Takes over the names that `found`, which must not differ, has and this has not.
    pub fn learn(&mut self, found: &Self) {
        for (kind, name) in &found.0 {
            self.0.entry(kind.clone()).or_insert_with(|| name.clone());
        }
    }

    /// Where it is attached now: a lasting name where udev made one, else the kernel's. `None` where it is not.
    pub fn find(&self) -> Option<PathBuf> {
        let folders = sysfs::entries(Path::new("/sys/class/block"));
        let mut found =
            folders.iter().filter(|folder| self.is_same(&sysfs::dev_of(folder).map_or_else(Self::default, Self::of)));
        let folder = found.next()?;
        let dev = sysfs::dev_of(folder)?;
        let links = ["by-id", "by-partuuid", "by-path"].map(|kind| sysfs::entries(&Path::new("/dev/disk").join(kind)));
        let lasting =
            links.into_iter().flatten().find(|link| fs::metadata(link).is_ok_and(|m| DevNo::from_raw(m.rdev()) == dev));
        lasting.or_else(|| Some(Path::new("/dev").join(folder.file_name()?)))
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("one without a name of its own");
        }
        for (i, (kind, name)) in self.0.iter().enumerate() {
            write!(f, "{}{kind} {name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Whether two names of a kind are the same; `None` where they are of different schemes, as a kernel or a firmware may
/// change from one to another.
fn same_name(kind: &str, one: &str, other: &str) -> Option<bool> {
    match kind {
        // `naa.`, `eui.`, `nvme.`, `uuid.`, `t10.`
        "wwid" => {
            let scheme = |name: &str| name.split_once('.').map(|(scheme, _)| scheme.to_owned());
            (scheme(one) == scheme(other)).then_some(one == other)
        }
        // `CRYPT-LUKS2-UUID-NAME`: the mapping's name is whatever it was opened as, and the format can be converted.
        "dm-uuid" => {
            let volume = |name: &str| match name.strip_prefix("CRYPT-") {
                Some(rest) => rest.split('-').nth(1).unwrap_or(rest).to_owned(),
                None => name.to_owned(),
            };
            Some(volume(one) == volume(other))
        }
        _ => Some(one == other),
    }
}

/// True for serial numbers by which some hypervisors name the slot and not the disk: `QM00001`, `00000000000000000001`.
fn is_slot(name: &str) -> bool {
    let digits = name.strip_prefix("QM").unwrap_or(name);
    digits.len() >= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.trim_start_matches('0').len() <= 3
}

/// What stands behind `key` in a file of lines.
fn value(path: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in a made-up sysfs; the device's own are those that begin with `part/`.
    fn medium(files: &[(&str, &str)]) -> Medium {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let own = folder.path().join("part");
        let own = if own.exists() { own } else { folder.path().to_owned() };
        Medium::in_folders(&own, folder.path(), &folder.path().join("udev"))
    }

    #[test]
    fn names_come_from_wherever_the_kernel_has_them() {
        for (files, expected) in [
            (&[("device/wwid", "naa.5000c500a1b2c3d4\n")][..], "wwid naa.5000c500a1b2c3d4"),
            (
                &[("wwid", "eui.0025385b71b0a1f2\n"), ("device/serial", "S4EV  \n")],
                "serial S4EV, wwid eui.0025385b71b0a1f2",
            ),
            (&[("serial", "vol-1\n")], "serial vol-1"),
            (&[("dm/uuid", "LVM-abc\n"), ("serial", "\n")], "dm-uuid LVM-abc"),
            (&[("md/uuid", "1-2\n")], "md-uuid 1-2"),
            (&[("loop/backing_file", "/a\n")], "one without a name of its own"),
        ] {
            let medium = medium(files);
            assert_eq!(medium.to_string(), expected);
            assert_eq!(medium.is_known(), expected != "one without a name of its own");
        }
    }

    #[test]
    fn a_partition_has_its_own_name_and_its_disk_s() {
        let part = |number: &'static str, uuid: &'static str| {
            medium(&[("serial", "a"), ("part/partition", number), ("part/uevent", uuid)])
        };
        let one = part("1\n", "DEVNAME=x\nPARTN=1\nPARTUUID=AB-01\n");
        assert_eq!(one.to_string(), "partition 1, partuuid ab-01, serial a");
        let by_udev =
            medium(&[("serial", "a"), ("part/partition", "1"), ("udev", "S:x\nE:ID_PART_ENTRY_UUID=ab-01\n")]);
        assert_eq!(by_udev, one);
        assert!(one.is_same(&part("2", "PARTUUID=ab-01")), "it was numbered anew");
        assert!(one.differs(&part("1", "PARTUUID=ab-02")));
        let nameless = part("1", "");
        assert!(nameless.is_same(&one) && nameless.differs(&part("2", "")));
        assert!(one.differs(&medium(&[("serial", "a")])), "the whole disk is not its partition");
        assert!(!medium(&[("part/partition", "1")]).is_known(), "a number alone says nothing");
    }

    #[test]
    fn only_names_of_one_kind_are_compared() {
        let (serial, wwid) = (medium(&[("serial", "a")]), medium(&[("wwid", "b")]));
        let both = medium(&[("serial", "a"), ("wwid", "c")]);
        assert!(!serial.differs(&wwid) && !serial.is_same(&wwid));
        assert!(serial.is_same(&both) && both.differs(&wwid));
        let nothing = Medium::default();
        assert!(!nothing.differs(&both) && !both.differs(&nothing) && !nothing.is_same(&nothing));
        let mut learnt = serial;
        learnt.learn(&both);
        assert_eq!(learnt, both);
        assert_eq!(both.find(), None, "no such disk is attached");
    }

    #[test]
    fn a_name_of_another_scheme_says_nothing() {
        let of = |wwid| medium(&[("wwid", wwid), ("serial", "a")]);
        let (eui, nvme) = (of("eui.0025"), of("nvme.144d-a-1"));
        assert!(eui.is_same(&nvme), "a kernel that mistrusts the disk's own number");
        assert!(eui.differs(&of("eui.0026")), "the first kind that both have decides");
        let crypt = |uuid| medium(&[("dm/uuid", uuid)]);
        assert!(crypt("CRYPT-LUKS1-ab01-old").is_same(&crypt("CRYPT-LUKS2-ab01-new")));
        assert!(crypt("CRYPT-LUKS2-ab01-x").differs(&crypt("CRYPT-LUKS2-ab02-x")));
        for slot in ["QM00003", "00000000000000000001"] {
            assert!(!medium(&[("device/serial", slot)]).is_known(), "{slot} names no disk");
        }
        assert!(medium(&[("serial", "QM-17")]).is_known() && medium(&[("serial", "12345678")]).is_known());
    }
}
