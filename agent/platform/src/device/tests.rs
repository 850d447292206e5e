use super::*;
use crate::testing::{Loop, no_children, root, run};

#[test]
fn facts_of_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    fs::write(&path, [7; 1000]).expect("written");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let facts = DeviceFacts::of(&link).expect("asked");
    assert_eq!((facts.kind, facts.size, facts.logical_sector), (DeviceKind::File, ByteCount(1000), 512));
    assert_eq!((facts.name.as_str(), facts.read_only, facts.is_in_use()), ("image", false, false));
    assert_eq!(facts.path, path.canonicalize().expect("there"));
}

#[test]
fn what_is_no_disk_is_refused_with_its_name() {
    for (path, expected) in [
        ("/proc/self/no-such-disk", "cannot query /proc/self/no-such-disk: No such file or directory"),
        ("/dev/null", "neither a block device nor a regular file"),
        ("/tmp", "cannot query /tmp: neither a block device nor a regular file"),
    ] {
        let error = DeviceFacts::of(path).expect_err("no disk").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn facts_of_loop_devices_with_either_sector_size() {
    if !root("facts of loop devices") {
        return;
    }
    for sector in [512, 4096] {
        let device = Loop::new(8 << 20, sector);
        let facts = DeviceFacts::of(device.path()).expect("asked");
        assert_eq!((facts.kind, facts.size, facts.logical_sector), (DeviceKind::Disk, ByteCount(8 << 20), sector));
        assert!(facts.physical_sector >= sector && !facts.read_only && facts.diskseq.is_some());
        assert_eq!(facts.alignment.map(|a| a.offset), Some(sector as usize));
        assert_eq!(facts.uses, []);
        let backing = DeviceFacts::of(device.backing()).expect("asked");
        assert_eq!(backing.uses, [Use::Loop(facts.name.clone())]);
        assert!(format!("/dev/{}", facts.name) == device.path().to_string_lossy());
    }
}

#[test]
fn facts_are_of_one_disk_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    [&one, &other].into_iter().for_each(|path| fs::write(path, [7; 512]).expect("written"));
    let open = |path: &Path| File::open(path).expect("opens");
    let facts = DeviceFacts::of(&one).expect("asked");
    assert!(facts.are_of(&open(&one)) && !facts.are_of(&open(&other)));
    if !root("facts of one device") {
        return;
    }
    let [a, b] = [512, 4096].map(|sector| Loop::new(1 << 20, sector));
    let facts = DeviceFacts::of(a.path()).expect("asked");
    assert!(facts.are_of(&open(a.path())) && !facts.are_of(&open(b.path())) && !facts.are_of(&open(&one)));
    // Another under the same name and number.
    let later = DeviceFacts { diskseq: facts.diskseq.map(|number| number + 1), ..facts };
    assert!(!later.are_of(&open(a.path())));
}

#[test]
fn a_read_only_device_says_so() {
    if root("a read-only device") {
        let device = Loop::read_only(1 << 20);
        assert!(DeviceFacts::of(device.path()).expect("asked").read_only);
    }
}

/// Makes a loop device writable again when dropped: the flag stays with its number, for whoever has that next.
struct Writable<'a>(&'a str);

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        run(std::process::Command::new("blockdev").args(["--setrw", self.0]));
    }
}

#[test]
fn a_device_refuses_all_writes_only_while_nobody_can_write() {
    if !root("devices that are made read-only") {
        return;
    }
    let device = Loop::new(16 << 20, 512);
    let path = device.path().to_str().expect("a plain path");
    let _writable = Writable(path);
    let blockdev = |what: &str, path: &str| run(std::process::Command::new("blockdev").args([what, path]));
    let refuses = |path: &str| refuses_all_writes(&File::open(path).expect("opens"));
    assert!(!refuses(path));
    blockdev("--setro", path);
    assert!(refuses(path));
    blockdev("--setrw", path);
    assert!(!refuses(path), "it is asked anew");
    {
        let mount = device.mkfs_and_mount("ext4");
        blockdev("--setro", path);
        assert!(!refuses(path), "the file system goes on writing");
        blockdev("--setrw", path);
        mount.remount_read_only();
        blockdev("--setro", path);
        assert!(refuses(path), "it is mounted read-only too");
    }
    blockdev("--setrw", path);
    run(std::process::Command::new("addpart").args([path, "1", "2048", "8192"]));
    let partition = format!("{path}p1");
    blockdev("--setro", &partition);
    let by_the_disk = refuses(&partition);
    blockdev("--setro", path);
    let by_nobody = refuses(&partition);
    run(std::process::Command::new("delpart").args([path, "1"]));
    assert!(!by_the_disk && by_nobody, "who may write to the disk may write to its partition");
    assert!(!refuses("/proc/self/exe"));
}

#[test]
fn a_mounted_device_and_its_backing_file_are_in_use() {
    if !root("a mounted device") {
        return;
    }
    let device = Loop::new(16 << 20, 512);
    let mount = device.mkfs_and_mount("ext4");
    for path in [device.path(), device.backing()] {
        let facts = DeviceFacts::of(path).expect("asked");
        assert!(facts.is_mounted_rw(), "{:?}", facts.uses);
        assert!(facts.uses.iter().any(|user| user.to_string().ends_with("(ext4, read-write)")));
    }
    mount.remount_read_only();
    let facts = DeviceFacts::of(device.path()).expect("asked");
    assert!(!facts.is_mounted_rw() && facts.is_in_use(), "{:?}", facts.uses);
}

#[test]
fn same_storage_sees_through_loops_and_file_systems() {
    if !root("shared storage") {
        return;
    }
    let device = Loop::new(16 << 20, 512);
    let mount = device.mkfs_and_mount("ext4");
    let on_it = mount.at().join("target.vhd");
    let check = |a: &Path, b: &Path| same_storage(a, b).expect("asked");
    assert_eq!(check(device.path(), device.path()), Some(SameStorage::Identical));
    assert_eq!(check(device.path(), &on_it), Some(SameStorage::TargetOnSource), "also before it exists");
    fs::write(&on_it, b"x").expect("written");
    assert_eq!(check(device.path(), &on_it), Some(SameStorage::TargetOnSource));
    assert_eq!(check(device.backing(), &on_it), Some(SameStorage::TargetOnSource), "through the loop device");
    assert_eq!(check(&on_it, device.backing()), Some(SameStorage::SourceOnTarget));
    assert_eq!(check(device.path(), device.backing()), Some(SameStorage::SourceOnTarget));
    let other = Loop::new(1 << 20, 512);
    assert_eq!(check(device.path(), other.path()), None);
    assert_eq!(check(other.path(), &on_it), None);
    assert_eq!(check(device.backing(), other.backing()), None, "two files on one file system");
}

#[test]
fn same_storage_sees_through_btrfs() {
    if !root("shared storage on btrfs") {
        return;
    }
    let device = Loop::new(128 << 20, 512);
    let mount = device.mkfs_and_mount("btrfs");
    let subvolume = mount.at().join("subvolume");
    run(std::process::Command::new("btrfs").args(["subvolume", "create"]).arg(&subvolume));
    let found = same_storage(device.path(), subvolume.join("target")).expect("asked");
    assert_eq!(found, Some(SameStorage::TargetOnSource));
    assert!(DeviceFacts::of(device.path()).expect("asked").is_mounted_rw());
}

#[test]
fn an_exclusive_open_refuses_a_mounted_device() {
    if !root("an exclusive open") {
        return;
    }
    let device = Loop::new(16 << 20, 512);
    let options = crate::OpenOptions::new().write(true).exclusive(true);
    {
        let _alone = no_children();
        drop(options.open(device.path()).expect("nobody uses it"));
    }
    let _mount = device.mkfs_and_mount("ext4");
    let error = options.open(device.path()).expect_err("mounted");
    assert_eq!(error.kind(), crate::IoErrorKind::Busy);
    assert!(error.to_string().ends_with("somebody else uses it; unmount it or stop its user first"), "{error}");
}

#[test]
fn mountinfo_is_understood() {
    let text = b"36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
        37 35 0:45 / /btrfs ro - btrfs /dev/sdb1 ro,subvol=/\n\
        38 35 8:1 / /short\n\
        nonsense\n\
        39 35 8:2 / / rw - xfs /dev/sda2 rw\n";
    let mounts = parse_mountinfo(text);
    let seen: Vec<_> = mounts.iter().map(|m| (m.dev.to_string(), m.at.to_str(), m.fs.as_str(), m.writable)).collect();
    let expected = [
        ("98:0".to_owned(), Some("/mnt two"), "ext3", true),
        ("0:45".to_owned(), Some("/btrfs"), "btrfs", false),
        ("8:2".to_owned(), Some("/"), "xfs", true),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn escapes_are_undone_and_nothing_else() {
    for (text, expected) in [("a\\040b", "a b"), ("\\134", "\\"), ("\\09", "\\09"), ("\\", "\\"), ("\\777", "\\777")] {
        assert_eq!(mounts::unescape(text.as_bytes()), Path::new(expected));
    }
}
