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
//! Two buffers; each event reads the number of the active one once, at its start. [`Tracker::swap`] changes the number and
//! then waits until all programs that were running have ended (`kernel::Barrier`): a program that read the old number
//! has then done all its marks, so none comes late. Only then is the old buffer read, and only [`Tracker::release`]
//! clears it, while no program can be using it. An agent that dies in between finds both buffers again: the first swap
//! of a new process, like any swap that follows an unreleased one, reads both.
//!
//! # Copies
//!
//! The kernel skips a program on a CPU that is running it already (`recursion_misses`): an interrupt that ends a request
//! of any disk while the program runs for another event. Measured on a loop device over virtio this happens in practice.
//! So each end is handled by three identical programs, one after the other, marking the same again. An event is lost only
//! if all three were running on that CPU, each in another context below the event's. Up to Linux 6.18 tracepoints run
//! with preemption off, so there are three contexts: task, softirq, hardirq; the event itself needs one, which leaves two
//! for three programs. **No end is lost.** Later kernels may run tracepoints preemptibly; there a loss would count a
//! skipped run on each of the three, so [`Doubt::MissedEvents`] is said when, and only when, all three counts rose.
//!
//! A skipped start loses no change, as ends are marked. A bio whose start was skipped has no entry in the table of bios
//! in flight; its end is settled without (track.bpf.c, `unknown_completion`) or said to be in [`Doubt`].
//! [`Tracker::peek`] says [`Doubt::MissedStart`], so that the reads are not taken for one instant.
//!
//! # What it cannot see
//!
//! Writes past the block layer: DAX (refused), a loop device's file written directly, a disk's other paths (multipath's
//! other legs, another machine). SG_IO and NVMe passthrough commands that carry data to the disk are seen and doubted;
//! NVMe passthrough commands without data to the disk (a hand-made Write Zeroes) are not told from reads.

mod available;
mod device;
mod drain;
mod geometry;
mod header;
mod kernel;
mod pins;
#[cfg(test)]
mod tests;

pub use available::{Why, available};
pub use kernel::run_statistics;
pub use pins::default_folder;

use super::{Doubt, Swap, Tracker, TrackerError, TrackerKind, TrackingEpoch};
use device::Facts;
use header::{Identity, PROGRAMS_MAX};
use kernel::Barrier;
use pins::{Held, Unusable};
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::env::Entropy;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// How to set tracking up; the default is what the product uses.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// log2 of the number of leaves: 64 KiB places that can be precise at a time. Tests make it small.
    pub leaf_bits: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { leaf_bits: geometry::LEAF_BITS_MAX }
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
    /// Skipped runs at the last swap, which a release answers for; `None` where there is no swap to release.
    swapped: Option<[u64; PROGRAMS_MAX]>,
    /// Skipped runs when the running interval began.
    interval_began: [u64; PROGRAMS_MAX],
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
        let boot = device::boot_id().map_err(unavailable)?;
        let barrier = Barrier::new().map_err(|e| kernel("making the barrier", e.into()))?;

        let (held, doubt) = match pins::open(pin_folder) {
            Ok(held) => match mismatch(&held.identity, &facts, boot, expect) {
                Some(doubt) => (None, Some(doubt)),
                None => (Some(held), expect.is_none().then_some(Doubt::NoRecord)),
            },
            Err(Unusable::Absent) if expect.is_some() => (None, Some(Doubt::OtherEpoch)),
            Err(Unusable::Absent) => (None, Some(Doubt::Begun)),
            Err(Unusable::Foreign(what)) => (None, Some(Doubt::ForeignPins(what))),
        };
        let held = match held {
            Some(held) => held,
            None => {
                let mut run = [0; 16];
                entropy.fill(&mut run);
                let epoch = TrackingEpoch { run, boot };
                let identity = Identity { epoch, facts, leaf_bits: options.leaf_bits };
                pins::create(pin_folder, identity).map_err(|e| kernel("loading and pinning the programs", e))?
            }
        };
        let mut tracker = Self {
            device: device.to_owned(),
            held,
            barrier,
            clean: false,
            swapped: None,
            interval_began: [0; PROGRAMS_MAX],
        };
        // A process that died in the middle of a swap may have left programs running on the inactive buffer.
        tracker.wait()?;
        let inactive = header::active(&tracker.held.area) ^ 1;
        tracker.clean = drain::is_empty(&tracker.held.area, &tracker.held.geometry, inactive);
        tracker.interval_began = tracker.misses()?;
        Ok(Attached { tracker, doubt })
    }

    /// Ends the tracking that is pinned in `pin_folder`. Nothing is done where nothing is pinned.
    pub fn detach(pin_folder: &Path) -> Result<(), TrackerError> {
        pins::remove(pin_folder).map_err(|source| TrackerError::Kernel {
            device: pin_folder.to_owned(),
            step: "removing the pins".into(),
            source: source.into(),
        })
    }

    /// The programs, by name, for measuring them.
    pub fn programs(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        let names = pins::programs(&self.held.identity.facts).iter().map(|program| program.name);
        names.zip(self.held.programs.iter().map(AsFd::as_fd))
    }

    /// Skipped runs of each program, by name, since tracking began.
    pub fn skipped_runs(&self) -> Result<Vec<(&'static str, u64)>, TrackerError> {
        let misses = self.misses()?;
        Ok(pins::programs(&self.held.identity.facts).iter().map(|program| program.name).zip(misses).collect())
    }

    fn misses(&self) -> Result<[u64; PROGRAMS_MAX], TrackerError> {
        let mut counts = [0; PROGRAMS_MAX];
        for (count, program) in counts.iter_mut().zip(&self.held.programs) {
            *count = kernel::recursion_misses(program.as_fd())
                .map_err(|e| self.kernel_error("asking for skipped runs", e))?;
        }
        Ok(counts)
    }

    fn wait(&self) -> Result<(), TrackerError> {
        self.barrier.wait().map_err(|e| self.kernel_error("waiting for running programs", e))
    }

    fn kernel_error(&self, step: &str, source: std::io::Error) -> TrackerError {
        TrackerError::Kernel { device: self.device.clone(), step: step.into(), source: source.into() }
    }

    /// Why the marks of the buffers whose flags are given, and of events up to the counts `misses`, may not be all.
    fn doubt(&self, flags: u64, misses: &[u64; PROGRAMS_MAX]) -> Option<Doubt> {
        let facts = &self.held.identity.facts;
        let changed = match Facts::of_number(facts.device) {
            Ok(now) => facts.change_to(&now),
            Err(gone) => Some(gone),
        };
        changed.map(Doubt::DiskChanged).or_else(|| header::doubt_of(flags)).or_else(|| self.missed_ends(misses))
    }

    /// See "Copies" in the module's text.
    fn missed_ends(&self, misses: &[u64; PROGRAMS_MAX]) -> Option<Doubt> {
        if !tracepoints_are_preemptible() {
            return None;
        }
        let answered = header::answered(&self.held.area);
        let ends = pins::programs(&self.held.identity.facts).iter().enumerate().filter(|(_, program)| !program.start);
        let skipped = ends.map(|(i, _)| misses[i].saturating_sub(answered[i])).min().unwrap_or(0);
        (skipped > 0).then_some(Doubt::MissedEvents { skipped })
    }
}

impl Tracker for EbpfTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Ebpf
    }

    fn swap(&mut self) -> Result<Swap, TrackerError> {
        let Held { area, geometry, .. } = &self.held;
        let ended = header::active(area);
        let both = !self.clean;
        // Until all has been read, whoever comes next must read both.
        self.clean = false;
        self.swapped = None;
        header::activate(area, ended ^ 1);
        self.wait()?;
        let misses = self.misses()?;
        let mut dirty = SectorBitmap::new();
        let mut flags = header::flags(area, ended);
        drain::drain(area, geometry, ended, &mut dirty);
        if both {
            // An interval that was not released lies under the marks of the one that begins now.
            flags |= header::flags(area, ended ^ 1);
            drain::drain(area, geometry, ended ^ 1, &mut dirty);
        }
        let doubt = self.doubt(flags, &misses);
        self.interval_began = misses;
        self.swapped = Some(misses);
        Ok(Swap { dirty, doubt })
    }

    fn peek(&mut self) -> Result<Swap, TrackerError> {
        let Held { area, geometry, .. } = &self.held;
        let active = header::active(area);
        let mut dirty = SectorBitmap::new();
        drain::drain(area, geometry, active, &mut dirty);
        let misses = self.misses()?;
        let programs = pins::programs(&self.held.identity.facts).iter().enumerate();
        let missed_start = programs.into_iter().any(|(i, p)| p.start && misses[i] != self.interval_began[i]);
        let doubt = self.doubt(header::flags(area, active), &misses);
        Ok(Swap { dirty, doubt: doubt.or(missed_start.then_some(Doubt::MissedStart)) })
    }

    fn release(&mut self) -> Result<(), TrackerError> {
        let Some(misses) = self.swapped.take() else { return Ok(()) };
        let Held { area, geometry, .. } = &self.held;
        drain::clear(area, geometry, header::active(area) ^ 1);
        header::set_answered(area, &misses);
        self.clean = true;
        Ok(())
    }

    fn epoch(&self) -> TrackingEpoch {
        self.held.identity.epoch
    }
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

/// True where a tracepoint's programs may be preempted by another task: Linux after 6.18, as far as is known.
fn tracepoints_are_preemptible() -> bool {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(u32::MAX));
    version > (6, 18)
}
