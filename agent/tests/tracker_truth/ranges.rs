//! What is marked is what was written: no less, and where there is room no more.

use crate::devices::{self, Loop, Pins, Zram, run};
use crate::pinned::{attach, disk, interval, sectors, write};
use crate::{can_track, raw};
use sluice_agent::tracker::Tracker;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::SectorCount;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn open(path: &Path) -> std::fs::File {
    OpenOptions::new().read(true).write(true).open(path).expect("the device")
}

#[test]
fn marks_are_exact() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("exact");
    let (mut tracker, _) = attach(&disk.path, &pins, None);
    interval(&mut tracker);
    // Within a word, over a word's end, a word, a grain, over a grain's end, whole grains with ends, the last sector.
    let writes = [(3, 1), (60, 9), (192, 64), (256, 128), (1000, 100), (5000, 777), ((64 << 11) - 1, 1)];
    for (start, length) in writes {
        write(&disk.path, start, length);
        let peeked = tracker.peek().expect("peek");
        assert_eq!((peeked.dirty, peeked.doubt), (sectors(&[(start, length)]), None));
        assert_eq!(interval(&mut tracker), sectors(&[(start, length)]));
    }
    for (start, length) in writes {
        write(&disk.path, start, length);
    }
    assert_eq!(interval(&mut tracker), sectors(&writes));
    assert_eq!(interval(&mut tracker), SectorBitmap::new());
}

#[test]
fn discards_and_zeroes_are_marked() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("discard");
    let zram = Zram::new(64 << 20);
    let zram_pins = Pins::new("discard-zram");
    for (path, pins) in [(&disk.path, &pins), (&zram.path, &zram_pins)] {
        let (mut tracker, _) = attach(path, pins, None);
        interval(&mut tracker);
        write(path, 0, 2048);
        interval(&mut tracker);
        raw::discard(&open(path), 4096, 3 * 65536 + 4096).expect("a discard");
        assert_eq!(interval(&mut tracker), sectors(&[(8, 3 * 128 + 8)]), "{}", path.display());
        raw::zero_out(&open(path), 8192, 65536 * 5).expect("zeroes");
        assert_eq!(interval(&mut tracker), sectors(&[(16, 5 * 128)]), "{}", path.display());
        raw::discard(&open(path), 0, 64 << 20).expect("a discard of all");
        assert_eq!(interval(&mut tracker), SectorBitmap::full(SectorCount(64 << 11)), "{}", path.display());
    }
}

/// A request may be of almost 4 GiB: more than a thousand words of coarse marks.
#[test]
fn wide_discards_are_marked_exactly() {
    if !can_track() {
        return;
    }
    let folder = devices::folder();
    let disk = Loop::sparse(folder.path(), 16 << 30, &[]);
    let pins = Pins::new("wide");
    let (mut tracker, _) = attach(&disk.path, &pins, None);
    interval(&mut tracker);
    for (start, length) in [(8, 9 << 21), (8, (9 << 21) + 3), (1 << 21, 132 << 11), ((1 << 21) + 1, 133 << 11)] {
        raw::discard(&open(&disk.path), start * 512, length * 512).expect("a discard");
        assert_eq!(interval(&mut tracker), sectors(&[(start, length)]));
    }
}

/// The kernel cuts a discard at the granularity of what lies below, and merges the two bios into one request.
#[test]
fn a_request_of_several_bios_is_marked_whole() {
    if !can_track() {
        return;
    }
    let folder = devices::folder();
    let disk = Loop::sparse(folder.path(), 64 << 20, &["--direct-io=on"]);
    let pins = Pins::new("chain");
    let (mut tracker, _) = attach(&disk.path, &pins, None);
    interval(&mut tracker);
    raw::discard(&open(&disk.path), 512, 400 * 512).expect("a discard");
    assert_eq!(interval(&mut tracker), sectors(&[(1, 400)]));
    let name = disk.path.file_name().and_then(|name| name.to_str()).expect("a plain name");
    let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("the disk's counters");
    let merges: u64 = stat.split_whitespace().nth(12).and_then(|word| word.parse().ok()).expect("discards merged");
    assert!(merges > 0, "the discard was not one request of several bios: {stat}");
}

#[test]
fn a_partition_has_its_own_sectors() {
    if !can_track() {
        return;
    }
    let folder = devices::folder();
    let whole = Loop::sparse(folder.path(), 64 << 20, &["--partscan"]);
    let partition = whole.partition(2049, 10_001);
    let (pins, whole_pins) = (Pins::new("part"), Pins::new("whole"));
    let (mut tracker, _) = attach(&partition, &pins, None);
    let (mut whole_tracker, _) = attach(&whole.path, &whole_pins, None);
    interval(&mut tracker);
    interval(&mut whole_tracker);
    write(&partition, 0, 1);
    write(&partition, 10_000, 1);
    // Through the disk: before, over the start, over the end, behind.
    write(&whole.path, 0, 8);
    write(&whole.path, 2047, 3);
    write(&whole.path, 2049 + 9_990, 20);
    write(&whole.path, 20_000, 8);
    assert_eq!(interval(&mut tracker), sectors(&[(0, 1), (9_990, 11)]));
    assert_eq!(interval(&mut whole_tracker), sectors(&[(0, 8), (2047, 3), (12_039, 20), (20_000, 8)]));
}

/// Large and empty disks: hashed leaves, coarse bits of one and of two grains, and nothing that costs by the disk's size.
#[test]
fn large_disks() {
    if !can_track() {
        return;
    }
    for tib in [1u64, 20] {
        let folder = devices::folder();
        let disk = Loop::sparse(folder.path(), tib << 40, &[]);
        let pins = Pins::new(&format!("large{tib}"));
        let (mut tracker, _) = attach(&disk.path, &pins, None);
        interval(&mut tracker);
        let end = tib << 31;
        let writes = [(0, 1), (end / 2 - 3, 8), (end - 1, 1)];
        for (start, length) in writes {
            write(&disk.path, start, length);
        }
        assert_eq!(interval(&mut tracker), sectors(&writes), "{tib} TiB");
        raw::discard(&open(&disk.path), 0, tib << 40).expect("a discard of all");
        assert_eq!(interval(&mut tracker), SectorBitmap::full(SectorCount(end)), "{tib} TiB");
        assert_eq!(interval(&mut tracker), SectorBitmap::new());
    }
}

/// A file system that lies frozen under the loop device holds a write in flight for as long as the test wants.
#[test]
fn a_write_in_flight_over_a_swap_is_in_both_intervals() {
    if !can_track() {
        return;
    }
    let folder = devices::folder();
    let below = Loop::sparse(folder.path(), 64 << 20, &[]);
    run("mkfs.ext4", &["-q", below.path.to_str().expect("a plain path")]);
    let mounted = Mounted::new(&below.path, &folder.path().join("mnt"));
    let file = mounted.path.join("file");
    std::fs::File::create(&file).and_then(|f| f.set_len(16 << 20)).expect("a file");
    let disk = Loop::over(&file, &[]);
    let pins = Pins::new("flight");
    let (mut tracker, _) = attach(&disk.path, &pins, None);
    interval(&mut tracker);

    let frozen = Frozen::new(&mounted);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write(&disk.path, 40, 8);
            done.store(true, Ordering::SeqCst);
        });
        let marked = sectors(&[(40, 8)]);
        let began = std::time::Instant::now();
        while tracker.peek().expect("peek").dirty != marked {
            assert!(!done.load(Ordering::SeqCst), "the frozen file system let the write through");
            assert!(began.elapsed().as_secs() < 20, "its start is not marked");
            std::thread::yield_now();
        }
        assert_eq!(interval(&mut tracker), marked, "marked as it starts");
        assert_eq!(tracker.peek().expect("peek").dirty, SectorBitmap::new());
        // It may end, unseen, while it is in flight over a whole interval: each of them has it.
        assert_eq!(interval(&mut tracker), marked, "still in flight");
        assert!(!done.load(Ordering::SeqCst), "the frozen file system let the write through");
        drop(frozen);
    });
    assert_eq!(interval(&mut tracker), sectors(&[(40, 8)]), "marked as it ends");
    assert_eq!(interval(&mut tracker), SectorBitmap::new());
}

struct Mounted {
    path: std::path::PathBuf,
}

impl Mounted {
    fn new(device: &Path, path: &Path) -> Self {
        std::fs::create_dir(path).expect("a mount point");
        run("mount", &[device.to_str().expect("a plain path"), path.to_str().expect("a plain path")]);
        Self { path: path.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

struct Frozen<'a>(&'a Mounted);

impl<'a> Frozen<'a> {
    fn new(mounted: &'a Mounted) -> Self {
        run("fsfreeze", &["-f", mounted.path.to_str().expect("a plain path")]);
        Self(mounted)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        drop(std::process::Command::new("fsfreeze").arg("-u").arg(&self.0.path).status());
    }
}
