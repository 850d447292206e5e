//! Tracking goes on while no agent runs, and is trusted only where it never stopped.

use crate::devices::{self, Loop, Pins, run};
use crate::{Urandom, can_track};
use sluice_agent::tracker::ebpf::EbpfTracker;
use sluice_agent::tracker::{Doubt, Tracker, TrackingEpoch};
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::Extent;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// A loop device of 64 MiB, pins, and the folder of its file.
pub fn disk(name: &str) -> (tempfile::TempDir, Loop, Pins) {
    let folder = devices::folder();
    let disk = Loop::sparse(folder.path(), 64 << 20, &[]);
    (folder, disk, Pins::new(name))
}

pub fn attach(disk: &Path, pins: &Pins, expect: Option<TrackingEpoch>) -> (EbpfTracker, Option<Doubt>) {
    let attached = EbpfTracker::attach(disk, &pins.0, expect, &Urandom).expect("attached");
    (attached.tracker, attached.doubt)
}

/// Writes to sectors, direct.
pub fn write(device: &Path, start: u64, sectors: u64) {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(device).expect("the device");
    let mut buffer = sluice_platform::AlignedBuf::zeroed(sectors as usize * 512);
    buffer.fill(0x5a);
    file.write_all_at(&buffer, start * 512).expect("a write");
}

pub fn sectors(extents: &[(u64, u64)]) -> SectorBitmap {
    SectorBitmap::from_extents(extents.iter().map(|(start, length)| Extent::new(*start, *length)))
}

/// What an interval marked, and what may be in it beside what was written: writes whose ends the kernel skipped come again,
/// with each interval, until their place in the kernel is another write's.
#[derive(Debug)]
pub struct Marks {
    marked: SectorBitmap,
    unended: SectorBitmap,
}

thread_local! {
    /// What had not ended, visibly, when this test last asked, for each run of tracking.
    static UNENDED: RefCell<HashMap<u128, SectorBitmap>> = RefCell::default();
}

impl Marks {
    pub fn of(tracker: &EbpfTracker, marked: SectorBitmap) -> Self {
        let now = tracker.unended().expect("the table");
        let run = u128::from_be_bytes(tracker.epoch().run);
        let mut unended = UNENDED.with_borrow_mut(|known| known.insert(run, now.clone())).unwrap_or_default();
        unended.union_with(&now);
        Self { marked, unended }
    }
}

impl PartialEq<SectorBitmap> for Marks {
    fn eq(&self, expected: &SectorBitmap) -> bool {
        let (mut missing, mut more) = (expected.clone(), self.marked.clone());
        missing.subtract(&self.marked);
        more.subtract(expected);
        more.subtract(&self.unended);
        missing.is_empty() && more.is_empty()
    }
}

/// Swaps, and releases; there must be no doubt.
pub fn interval(tracker: &mut EbpfTracker) -> Marks {
    let swap = tracker.swap().expect("swap");
    assert_eq!(swap.doubt, None);
    tracker.release(tracker.released() + 1).expect("release");
    Marks::of(tracker, swap.dirty)
}

const CHILD: &str = "SLUICE_TRACKER_CHILD";

/// Not a test of its own: what `pins_survive_the_death_of_the_agent` runs as another process.
#[test]
fn child_that_attaches() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (device, pins) = task.split_once('|').expect("device|pins");
    let attached = EbpfTracker::attach(Path::new(device), Path::new(pins), None, &Urandom).expect("attached");
    let mut tracker = attached.tracker;
    tracker.swap().expect("swap");
    tracker.release(tracker.released() + 1).expect("release");
    write(Path::new(device), 100, 3);
    // A swap that is never released, as the process dies.
    assert_eq!(tracker.swap().expect("swap").dirty, sectors(&[(100, 3)]));
    write(Path::new(device), 200, 1);
    let epoch = tracker.epoch();
    println!("\nepoch {} {}", u128::from_be_bytes(epoch.run), u128::from_be_bytes(epoch.boot));
    loop {
        std::thread::park();
    }
}

#[test]
fn pins_survive_the_death_of_the_agent() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("death");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", "pinned::child_that_attaches"])
        .env(CHILD, format!("{}|{}", disk.path.display(), pins.0.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let line = output.lines().map_while(Result::ok).find(|line| line.starts_with("epoch ")).expect("its epoch");
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    let mut numbers = line.split(' ').skip(1).map(|text| text.parse::<u128>().expect("a number").to_be_bytes());
    let epoch = TrackingEpoch { run: numbers.next().expect("run"), boot: numbers.next().expect("boot") };

    write(&disk.path, 300, 2);
    let (mut tracker, doubt) = attach(&disk.path, &pins, Some(epoch));
    assert_eq!(doubt, None, "tracking never stopped");
    assert_eq!((tracker.epoch(), tracker.released()), (epoch, 1));
    assert_eq!(interval(&mut tracker), sectors(&[(100, 3), (200, 1), (300, 2)]));
    assert_eq!(tracker.released(), 2);
}

#[test]
fn without_release_marks_come_again() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("release");
    let (mut tracker, doubt) = attach(&disk.path, &pins, None);
    assert_eq!(doubt, Some(Doubt::Begun));
    interval(&mut tracker);
    let mut all = Vec::new();
    for round in 0..4 {
        all.push((round * 1000, 5));
        write(&disk.path, round * 1000, 5);
        let marked = tracker.swap().expect("swap").dirty;
        assert_eq!(Marks::of(&tracker, marked), sectors(&all), "round {round}");
    }
    tracker.release(tracker.released() + 1).expect("release");
    // What lay under the running interval comes once more, then nothing.
    interval(&mut tracker);
    assert_eq!(interval(&mut tracker), SectorBitmap::new());
}

#[test]
fn another_run_is_not_trusted() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("epochs");
    let (tracker, _) = attach(&disk.path, &pins, None);
    let epoch = tracker.epoch();
    drop(tracker);
    let (tracker, doubt) = attach(&disk.path, &pins, None);
    assert_eq!((tracker.epoch(), doubt), (epoch, Some(Doubt::NoRecord)));
    let other = TrackingEpoch { run: [7; 16], ..epoch };
    let (tracker, doubt) = attach(&disk.path, &pins, Some(other));
    assert_eq!(doubt, Some(Doubt::OtherEpoch));
    assert!(![epoch, other].contains(&tracker.epoch()));
    EbpfTracker::detach(&pins.0).expect("detached");
    let (_, doubt) = attach(&disk.path, &pins, Some(tracker.epoch()));
    assert_eq!(doubt, Some(Doubt::OtherEpoch), "the pins are gone");
}

#[test]
fn foreign_and_broken_pins_are_replaced() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("foreign");
    let (tracker, _) = attach(&disk.path, &pins, None);
    let epoch = tracker.epoch();
    for missing in ["link_rq_complete", "prog_rq_issue", "area", "flight"] {
        fs::remove_file(pins.0.join(missing)).expect("a pin");
        let (mut tracker, doubt) = attach(&disk.path, &pins, Some(epoch));
        assert!(matches!(doubt, Some(Doubt::ForeignPins(_))), "without {missing}: {doubt:?}");
        assert_ne!(tracker.epoch(), epoch);
        interval(&mut tracker);
        write(&disk.path, 10, 1);
        assert_eq!(interval(&mut tracker), sectors(&[(10, 1)]), "tracking works again");
    }
    // What a process left that died while it made them.
    let unfinished = pins.0.with_file_name(format!("new-{}", pins.0.file_name().expect("a name").display()));
    fs::create_dir(&unfinished).expect("a folder");
    attach(&disk.path, &pins, Some(epoch));
    assert!(!unfinished.exists(), "swept");
    // A table that is not ours under our name.
    fs::remove_file(pins.0.join("area")).expect("a pin");
    fs::hard_link(pins.0.join("flight"), pins.0.join("area")).expect("another table");
    let (_, doubt) = attach(&disk.path, &pins, Some(epoch));
    assert!(matches!(doubt, Some(Doubt::ForeignPins(_))), "{doubt:?}");
}

#[test]
fn a_disk_that_grew_is_doubted() {
    if !can_track() {
        return;
    }
    let (folder, disk, pins) = disk("grown");
    let (mut tracker, _) = attach(&disk.path, &pins, None);
    interval(&mut tracker);
    let file = OpenOptions::new().write(true).open(folder.path().join("backing")).expect("the file");
    file.set_len(80 << 20).expect("a larger file");
    run("losetup", &["--set-capacity", disk.path.to_str().expect("a plain path")]);
    let swap = tracker.swap().expect("swap");
    assert!(matches!(&swap.doubt, Some(Doubt::DiskChanged(what)) if what.contains("size")), "{:?}", swap.doubt);
    let (mut tracker, doubt) = attach(&disk.path, &pins, Some(tracker.epoch()));
    assert!(matches!(&doubt, Some(Doubt::DiskChanged(_))), "{doubt:?}");
    interval(&mut tracker);
    write(&disk.path, (80 << 11) - 1, 1);
    assert_eq!(interval(&mut tracker), sectors(&[((80 << 11) - 1, 1)]));
}
