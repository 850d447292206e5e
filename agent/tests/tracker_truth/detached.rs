//! Programs that somebody takes off their tracepoints under a running agent.

use crate::devices::Pins;
use crate::pinned::{attach, disk, interval, sectors, write};
use crate::{Urandom, can_track, raw};
use aya::programs::links::{FdLink, PinnedLink};
use sluice_agent::tracker::ebpf::{EbpfTracker, Options};
use sluice_agent::tracker::{Doubt, Tracker};
use sluice_proto::bitmap::SectorBitmap;
use std::fs;
use std::path::Path;

/// Takes a program off its tracepoint, though its tracker holds the link. The kernel does that some time after the last
/// pin and the last descriptor are gone.
fn detach_program(pins: &Pins, name: &str) {
    let pin = pins.0.join(format!("link_{name}"));
    let link = FdLink::from(PinnedLink::from_pin(&pin).expect("the link"));
    let id = link.info().expect("its id").id();
    drop(link);
    fs::remove_file(pin).expect("the pin");
    raw::let_go_of_link(id).expect("no descriptor leads to it");
    while aya::programs::loaded_links().filter_map(Result::ok).any(|link| link.id() == id) {
        std::thread::yield_now();
    }
}

/// As `rm -r /sys/fs/bpf/*` does, or unmounting it.
#[test]
fn who_removes_the_pins_takes_nothing_off_a_living_agent() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("unpinned");
    let (tracker, _) = attach(&disk.path, &pins, None);
    let epoch = Some(tracker.epoch());
    drop(tracker);
    for (begun_by, expected) in [("an earlier agent", None), ("this one", Some(Doubt::OtherEpoch))] {
        let (mut tracker, doubt) = attach(&disk.path, &pins, epoch);
        assert_eq!(doubt, expected, "{begun_by}");
        interval(&mut tracker);
        fs::remove_dir_all(&pins.0).expect("the pins");
        // The kernel takes its time to detach what nobody holds.
        for round in 0..100 {
            write(&disk.path, round * 8, 1);
            assert_eq!(interval(&mut tracker), sectors(&[(round * 8, 1)]), "begun by {begun_by}, round {round}");
        }
    }
}

#[test]
fn a_program_that_is_taken_off_is_doubted_and_tracking_begins_anew() {
    if !can_track() {
        return;
    }
    for name in ["rq_complete", "rq_issue"] {
        let (_folder, disk, pins) = disk(&format!("off-{name}"));
        let (mut tracker, _) = attach(&disk.path, &pins, None);
        interval(&mut tracker);
        let epoch = tracker.epoch();
        detach_program(&pins, name);
        assert_eq!(tracker.peek().expect("peek").doubt, Some(Doubt::Detached), "{name}");
        write(&disk.path, 5, 1);
        let swap = tracker.swap().expect("swap");
        assert_eq!((swap.dirty, swap.doubt), (sectors(&[(5, 1)]), Some(Doubt::Detached)), "{name}");
        assert_ne!(tracker.epoch(), epoch, "another run");
        tracker.release(9).expect("release");
        assert_eq!(tracker.released(), 9);

        write(&disk.path, 7, 2);
        assert_eq!(interval(&mut tracker), sectors(&[(7, 2)]), "{name}");
        let began = tracker.epoch();
        drop(tracker);
        let (_, doubt) = attach(&disk.path, &pins, Some(began));
        assert_eq!(doubt, None, "{name}: pinned as ever");
    }
}

/// A tracker that does not see that a program is gone.
fn blind(disk: &Path, pins: &Pins) -> EbpfTracker {
    let options = Options { blind: true, ..Options::default() };
    EbpfTracker::attach_with(options, disk, &pins.0, None, &Urandom).expect("attached").tracker
}

/// The kernel skips a program on a CPU that is running it; here it is skipped as it is not attached.
#[test]
fn skipped_ends_and_skipped_starts_lose_nothing() {
    if !can_track() {
        return;
    }
    let (_folder, disk, pins) = disk("skips");
    let mut tracker = blind(&disk.path, &pins);
    detach_program(&pins, "rq_complete");
    // It loses its number just before it is taken off; a swap waits longer than that.
    interval(&mut tracker);
    write(&disk.path, 5, 1);
    assert_eq!(interval(&mut tracker), sectors(&[(5, 1)]), "marked as it started");
    assert_eq!(interval(&mut tracker), sectors(&[(5, 1)]), "it may have ended in this interval, unseen");

    EbpfTracker::detach(&pins.0).expect("detached");
    let mut tracker = blind(&disk.path, &pins);
    detach_program(&pins, "rq_issue");
    interval(&mut tracker);
    write(&disk.path, 7, 2);
    assert_eq!(interval(&mut tracker), sectors(&[(7, 2)]), "marked as it ended");
    assert_eq!(interval(&mut tracker), SectorBitmap::new());
}
