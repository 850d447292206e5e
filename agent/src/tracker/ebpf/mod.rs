//! Tracking by eBPF programs on the block layer's tracepoints.
//!
//! # What is marked, and when
//!
//! A disk with requests (virtio, NVMe, SCSI, loop) is marked at `block_rq_issue`, before its driver sees the request, and
//! at `block_rq_complete`, before anyone is told that it is done. A disk that takes bios (device mapper, md, zram) is
//! marked at `block_bio_queue` and `block_bio_complete`.
//!
//! The mark at the **end** is what loses nothing. Let a swap happen at T, and let the disk be read after it:
//! - a write that ended before T was marked by then, so this interval has it, and the read sees it;
//! - a write that ends after T is marked in the next interval, whatever the read saw of it.
//!
//! A write that never ends leaves the machine in need of a reboot, and tracking does not outlive that.
//!
//! The mark at the **start** is what proves that reads saw one instant. If after the last read nothing that was read is
//! marked in the new interval, then every write that could have changed it started before T and has not ended: it was in
//! flight at T, told to nobody as done, and nothing that depends on it was started. A crash at T could have left it in
//! any state, so what was read is what a crash at T could have left.
//!
//! # Swapping
//!
//! Intervals are numbered, and the lowest bit of the number says which of two buffers takes the marks. Each program reads
//! the number once, at its start. [`Tracker::swap`] raises it and then waits until all programs that were running have
//! ended (`kernel::Barrier`): a program that read the old number has then done all its marks, so none comes late. Only
//! then is the old buffer read, and only [`Tracker::release`] clears it, while no program can be using it. An agent that
//! dies in between finds both buffers again: the first swap of a new process, like any swap that follows an unreleased
//! one, reads both.
//!
//! # Skipped events
//!
//! The kernel skips a program on a CPU that is running it already, and counts that (`recursion_misses`): an interrupt
//! that ends a request, of any disk, while the program runs for another event. Attaching each program three times, one
//! for each context (task, softirq, hardirq), would leave no event to all three; measured on zram, where a write takes
//! 650 ns, each further copy costs 35 ns a write by its mere call. So skips are made up for instead:
//! - What starts is kept in a table (`flight`) with its range and interval, until its end. An end that is skipped leaves
//!   it there. So at a swap all that started in an *earlier* interval and is still in the table counts as marked; what
//!   started in this one is marked in it. A skipped end thus loses nothing. When the address is used again, its old
//!   range is marked once more and replaced.
//! - A start that is skipped, or finds no room in the table, or came before us, loses nothing either: a request knows at
//!   its end where it is; a bio that the table does not know is settled by its pages (track.bpf.c, `settle_unknown`), or
//!   flagged, which is [`Doubt::UnknownWrite`].
//!
//! Lost is only what is skipped at both: so [`Doubt::MissedEvents`] is said when starts are unknown *and* ends were
//! skipped, and either count rose since the last release. Starts are hardly ever skipped, as drivers do not submit from
//! interrupts. [`Tracker::peek`] says [`Doubt::MissedStart`] when they are, as the reads are then not proved to be of one
//! instant.
//!
//! One kernel, a microVM's, was seen to run no tracing program while a thread of PID 1 is current, and not to count that.
//! Ends that fall on such a thread are made up for like others; until their address is used again they are marked with every
//! swap. What PID 1 itself writes is not seen there.
//!
//! # Who takes it away
//!
//! The agent holds the programs' links open, so that tracking outlives the removal of its pins as long as the agent lives;
//! the next agent finds none and says [`Doubt::OtherEpoch`]. Kernels to date can't take a program off a tracepoint whose
//! link is open. Each swap asks for the links all the same: where one is gone it says [`Doubt::Detached`] and begins anew.
//!
//! # What it cannot see
//!
//! Writes past the block layer: DAX (refused), a loop device's file written directly, a disk's other paths (multipath's
//! other legs, another machine). SG_IO and NVMe passthrough commands that carry data to the disk are seen and doubted where
//! the disk that is tracked takes requests itself. On a disk that hands its work to others below it they are neither marked
//! nor doubted, as they go to one of those past it: device mapper's multipath, the head of a native NVMe multipath disk,
//! and what else is stacked. NVMe passthrough commands without data to the disk (a hand-made Write Zeroes) are not told from
//! reads.

mod available;
mod device;
mod drain;
mod flight;
mod geometry;
mod header;
mod kernel;
mod pins;
#[cfg(test)]
mod tests;
mod types;

pub use available::{Why, available};
pub use device::Facts;
pub use header::Identity;
pub use kernel::{Area, run_statistics};
pub use pins::default_folder;
pub use types::KernelTypes;

use super::{Doubt, Swap, Tracker, TrackerError, TrackerKind, TrackingEpoch};
use header::Skips;
use kernel::Barrier;
use pins::{Attachment, Held, Unusable};
use sluice_platform::system::boot_id;
use sluice_proto::Digest;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::env::Entropy;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// What is done where a run of tracking begins.
const CREATING: &str = "loading and pinning the programs";

/// How to set tracking up; the default is what the product uses.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// log2 of the number of leaves: 64 KiB places that can be precise at a time. Tests make it small.
    pub leaf_bits: u32,
    /// Swaps don't ask whether the programs are still attached. Tests take one off so that its events are skipped.
    pub blind: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { leaf_bits: geometry::LEAF_BITS_MAX, blind: false }
    }
}

/// A tracker and what is to be known of the time before it.
#[derive(Debug)]
pub struct Attached {
    /// The tracker.
    pub tracker: EbpfTracker,
    /// Why the disk must be compared as a whole; `None` where tracking was never interrupted.
    pub doubt: Option<Doubt>,
}

/// Tracks one disk or partition. Dropping it leaves the tracking running in the kernel.
#[derive(Debug)]
pub struct EbpfTracker {
    device: PathBuf,
    held: Held,
    barrier: Barrier,
    /// The inactive buffer is known to hold nothing.
    clean: bool,
    /// Skips at the last swap, which a release answers for; `None` where there is no swap to release.
    swapped: Option<Skips>,
    /// Skips when the running interval began.
    interval_began: Skips,
    /// Swaps since this process attached, or tracking began anew under it.
    swaps: u64,
    /// Where it is pinned.
    pins: PathBuf,
    /// What the next run of tracking is called, should this one be interrupted.
    next_run: [u8; 16],
    /// As [`Options::blind`].
    blind: bool,
}

impl EbpfTracker {
    /// Goes on with the tracking that is pinned in `pin_folder` if it is the run `expect`, of this very disk; else begins
    /// a new one there and says why. `pin_folder` belongs to this disk alone, on a BPF file system.
    pub fn attach(
        device: &Path,
        pin_folder: &Path,
        expect: Option<TrackingEpoch>,
        entropy: &dyn Entropy,
    ) -> Result<Attached, TrackerError> {
        Self::attach_with(Options::default(), device, pin_folder, expect, entropy)
    }

    /// As [`EbpfTracker::attach`], with options for a run that begins now.
    pub fn attach_with(
        options: Options,
        device: &Path,
        pin_folder: &Path,
        expect: Option<TrackingEpoch>,
        entropy: &dyn Entropy,
    ) -> Result<Attached, TrackerError> {
        let unavailable = |why: String| TrackerError::Unavailable { device: device.to_owned(), why };
        let kernel = |step: &str, source| TrackerError::Kernel { device: device.to_owned(), step: step.into(), source };
        available().map_err(|why| unavailable(why.0))?;
        let facts = Facts::of(device)?;
        let boot = boot_id().map_err(|e| unavailable(e.to_string()))?;
        let barrier = Barrier::new().map_err(|e| kernel("making the barrier", e.into()))?;

        pins::sweep(pin_folder).map_err(|e| kernel("removing unfinished pins", e.into()))?;
        let (held, doubt) = match pins::open(pin_folder) {
            Ok(held) => match mismatch(&held.identity, &facts, boot, expect) {
                Some(doubt) => (None, Some(doubt)),
                None => (Some(held), expect.is_none().then_some(Doubt::NoRecord)),
            },
            Err(Unusable::Absent) if expect.is_some() => (None, Some(Doubt::OtherEpoch)),
            Err(Unusable::Absent) => (None, Some(Doubt::Begun)),
            Err(Unusable::Foreign(what)) => (None, Some(Doubt::ForeignPins(what))),
        };
        let mut runs = [[0; 16]; 2];
        runs.iter_mut().for_each(|run| entropy.fill(run));
        let [run, next_run] = runs;
        let held = match held {
            Some(held) => held,
            None => {
                let epoch = TrackingEpoch { run, boot };
                let identity = Identity { epoch, facts, leaf_bits: options.leaf_bits };
                pins::create(pin_folder, identity).map_err(|e| kernel(CREATING, e))?
            }
        };
        let mut tracker = Self {
            device: device.to_owned(),
            held,
            barrier,
            clean: false,
            swapped: None,
            interval_began: Skips::default(),
            swaps: 0,
            pins: pin_folder.to_owned(),
            next_run,
            blind: options.blind,
        };
        // A process that died in the middle of a swap may have left programs running on the inactive buffer.
        tracker.wait()?;
        let inactive = header::interval(&tracker.held.area) + 1;
        let is_empty = drain::is_empty(&tracker.held.area, &tracker.held.geometry, inactive);
        tracker.clean = is_empty.map_err(|e| tracker.kernel_error("reading the tables", e))?;
        tracker.interval_began = tracker.skips()?;
        Ok(Attached { tracker, doubt })
    }

    /// Begins another run of tracking in the place of one that was interrupted. Only the disk is the same.
    fn begin_anew(&mut self) -> Result<(), TrackerError> {
        let Identity { epoch, facts, leaf_bits } = self.held.identity.clone();
        let epoch = TrackingEpoch { run: self.next_run, ..epoch };
        let made = pins::create(&self.pins, Identity { epoch, facts, leaf_bits });
        let device = self.device.clone();
        self.held = made.map_err(|source| TrackerError::Kernel { device, step: CREATING.into(), source })?;
        let digest = Digest::of(&self.next_run);
        self.next_run.copy_from_slice(&digest.0[..16]);
        (self.clean, self.swaps) = (true, 0);
        self.interval_began = self.skips()?;
        self.swapped = Some(self.interval_began);
        Ok(())
    }

    /// Ends the tracking that is pinned in `pin_folder`; where an agent is still at it, when that ends. Nothing is done where
    /// nothing is pinned.
    ///
    /// # Errors
    /// Pins that can't be removed.
    pub fn detach(pin_folder: &Path) -> Result<(), TrackerError> {
        pins::sweep(pin_folder).and_then(|()| pins::remove(pin_folder)).map_err(|source| TrackerError::Kernel {
            device: pin_folder.to_owned(),
            step: "removing the pins".into(),
            source: source.into(),
        })
    }

    /// The tracked device's number as stat(2) has it, and its disk's sequence number.
    pub fn device(&self) -> (u64, u64) {
        (self.held.identity.facts.device, self.held.identity.facts.disk_seq)
    }

    /// The programs, by name, for measuring them.
    pub fn programs(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        let names = pins::programs(&self.held.identity.facts).iter().map(|program| program.name);
        names.zip(self.held.programs.iter().map(AsFd::as_fd))
    }

    /// Skipped runs of each program, by name, since tracking began.
    pub fn skipped_runs(&self) -> Result<Vec<(&'static str, u64)>, TrackerError> {
        self.programs().map(|(name, fd)| Ok((name, self.misses(fd)?))).collect()
    }

    /// What started before now and has not ended, or not visibly; also what started and ended unseen. For tests.
    pub fn unended(&self) -> Result<SectorBitmap, TrackerError> {
        let Held { flight, geometry, .. } = &self.held;
        let mut unended = SectorBitmap::new();
        let added = flight::add_unended(flight, u64::MAX, geometry.sectors, &mut unended);
        added.map_err(|e| self.kernel_error("reading the tables", e))?;
        Ok(unended)
    }

    fn misses(&self, program: BorrowedFd<'_>) -> Result<u64, TrackerError> {
        kernel::recursion_misses(program).map_err(|e| self.kernel_error("asking for skipped runs", e))
    }

    fn skips(&self) -> Result<Skips, TrackerError> {
        let Held { area, programs, .. } = &self.held;
        let starts = self.misses(programs[pins::START].as_fd())?;
        let ends = self.misses(programs[pins::END].as_fd())?;
        let unknown = starts + header::forgotten(area) + u64::from(header::unsettled(area));
        Ok(Skips { starts, unknown, ends })
    }

    /// Notes when all that was in flight as tracking began has ended. A disk that is never seen at rest is taken to have
    /// ended it after 64 swaps: the block layer gives a request up after half a minute.
    fn settle(&self) {
        let Held { area, identity, .. } = &self.held;
        if header::unsettled(area) && (self.swaps > 64 || device::is_at_rest(identity.facts.device)) {
            header::set_unsettled(area, false);
        }
    }

    fn wait(&self) -> Result<(), TrackerError> {
        self.barrier.wait().map_err(|e| self.kernel_error("waiting for running programs", e))
    }

    fn kernel_error(&self, step: &str, source: std::io::Error) -> TrackerError {
        TrackerError::Kernel { device: self.device.clone(), step: step.into(), source: source.into() }
    }

    /// Why the marks of the buffers whose flags are given, and of events up to these skips, may not be all.
    fn doubt(&self, flags: u64, skips: Skips) -> Option<Doubt> {
        let facts = &self.held.identity.facts;
        let changed = match Facts::of_number(facts.device) {
            Ok(now) => facts.change_to(&now),
            Err(gone) => Some(gone),
        };
        let detached = !self.blind && !self.held.links.iter().all(Attachment::is_there);
        let missed = missed(skips, header::answered(&self.held.area));
        let changed = changed.map(Doubt::DiskChanged).or(detached.then_some(Doubt::Detached));
        changed.or_else(|| header::doubt_of(flags)).or(missed)
    }
}

impl Tracker for EbpfTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Ebpf
    }

    fn swap(&mut self) -> Result<Swap, TrackerError> {
        let Held { area, geometry, flight, .. } = &self.held;
        let ended = header::interval(area);
        let both = !self.clean;
        // Until all has been read, whoever comes next must read both.
        self.clean = false;
        self.swapped = None;
        header::begin_interval(area, ended + 1);
        self.wait()?;
        let skips = self.skips()?;
        let failed = |e| self.kernel_error("reading the tables", e);
        let mut dirty = SectorBitmap::new();
        let mut flags = header::flags(area, ended);
        drain::drain(area, geometry, ended, &mut dirty).map_err(failed)?;
        if both {
            // An interval that was not released lies under the marks of the one that begins now.
            flags |= header::flags(area, ended + 1);
            drain::drain(area, geometry, ended + 1, &mut dirty).map_err(failed)?;
        }
        flight::add_unended(flight, ended, geometry.sectors, &mut dirty).map_err(failed)?;
        if skips.ends > 0 {
            flight::purge(flight, ended).map_err(failed)?;
        }
        let doubt = self.doubt(flags, skips);
        self.interval_began = skips;
        self.swapped = Some(skips);
        self.swaps += 1;
        self.settle();
        if doubt == Some(Doubt::Detached) {
            self.begin_anew()?;
        }
        Ok(Swap { dirty, doubt })
    }

    fn peek(&mut self) -> Result<Swap, TrackerError> {
        let Held { area, geometry, .. } = &self.held;
        let running = header::interval(area);
        let mut dirty = SectorBitmap::new();
        drain::drain(area, geometry, running, &mut dirty).map_err(|e| self.kernel_error("reading the tables", e))?;
        let skips = self.skips()?;
        let missed_start = skips.starts != self.interval_began.starts;
        let doubt = self.doubt(header::flags(area, running), skips);
        self.settle();
        Ok(Swap { dirty, doubt: doubt.or(missed_start.then_some(Doubt::MissedStart)) })
    }

    fn release(&mut self, number: u64) -> Result<(), TrackerError> {
        let Some(skips) = self.swapped.take() else { return Ok(()) };
        let Held { area, geometry, .. } = &self.held;
        header::set_released(area, number);
        let cleared = drain::clear(area, geometry, header::interval(area) + 1);
        cleared.map_err(|e| self.kernel_error("clearing the tables", e))?;
        header::set_answered(area, skips);
        self.clean = true;
        Ok(())
    }

    fn epoch(&self) -> TrackingEpoch {
        self.held.identity.epoch
    }

    fn released(&self) -> u64 {
        header::released(&self.held.area)
    }
}

/// See "Skipped events" in the module's text.
fn missed(now: Skips, answered: Skips) -> Option<Doubt> {
    let possible = now.unknown > 0 && now.ends > 0;
    let news = now.unknown > answered.unknown || now.ends > answered.ends;
    (possible && news).then_some(Doubt::MissedEvents { skipped: now.unknown.min(now.ends) })
}

/// Why pins that are ours are not the run of tracking that is wanted.
fn mismatch(found: &Identity, facts: &Facts, boot: [u8; 16], expect: Option<TrackingEpoch>) -> Option<Doubt> {
    if found.epoch.boot != boot {
        return Some(Doubt::OtherEpoch);
    }
    if let Some(change) = found.facts.change_to(facts) {
        return Some(Doubt::DiskChanged(change));
    }
    expect.is_some_and(|epoch| epoch != found.epoch).then_some(Doubt::OtherEpoch)
}
