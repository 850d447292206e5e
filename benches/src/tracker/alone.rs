//! What tracking adds to a write that is the only one under way.
//!
//! That is a few hundred nanoseconds, while what a write takes changes by many times as much within a second. So turns
//! with and without tracking are short and many, the median write of each counts, which the few that meet something slow
//! don't move, and what is told is by how much two neighbouring turns differ. Where a write wakes other threads, as the
//! loop device's, processors halt while it is under way, and what it takes to wake them is more than the write: so it is
//! measured a second time with processors that never halt.

use super::Tracking;
use crate::disk::{Noise, PIECE};
use crate::machine::processors;
use crate::stats::median;
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use sluice_agent::tracker::ebpf::run_statistics;
use sluice_platform::buf::AlignedBuf;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long one kind has its turn.
const TURN: Duration = Duration::from_millis(200);
/// What is not counted of it: attaching leaves work behind.
const SETTLING: Duration = Duration::from_millis(20);

/// Keeps all processors from halting until it is dropped, by tasks that are run where nothing else is.
pub struct Awake(Vec<Child>);

impl Awake {
    /// From now on.
    pub fn begin() -> Result<Self> {
        let mut spinning = Self(Vec::new());
        for _ in 0..processors() {
            // They go with us, however we end.
            let spins = ["--pdeathsig", "KILL", "chrt", "--idle", "0", "sh", "-c", "while :; do :; done"];
            spinning.0.push(Command::new("setpriv").args(spins).spawn().context("setpriv")?);
        }
        Ok(spinning)
    }

    /// Until now.
    pub fn end(mut self) -> Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                bail!("processors were not kept from halting: setpriv or chrt ended: {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // What is gone already needs no end.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// So many pairs of turns of `what` on a device of `bytes` bytes, without tracking `disks` and with it, one behind the
/// other; who comes first changes. Gives the median access of each turn without, and by how much that of the turn with
/// tracking is longer, both in nanoseconds.
pub fn pairs((device, bytes): (&Path, u64), what: What, disks: &[&Path], count: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut user = User::open(device, bytes, what)?;
    let mut turn = |tracked: bool| -> Result<f64> {
        // Both kinds begin with the same work, so that the processors are as warm and as busy.
        let tracking = Tracking::on_all(disks)?;
        let _tracking = tracked.then_some(tracking);
        Ok(median(&user.turn()?))
    };
    let (mut plain, mut added) = (Vec::new(), Vec::new());
    for number in 0..count {
        let first = turn(number % 2 == 1)?;
        let second = turn(number % 2 == 0)?;
        let (without, with) = if number % 2 == 0 { (first, second) } else { (second, first) };
        plain.push(without);
        added.push(with - without);
    }
    Ok((plain, added))
}

/// What the programs themselves take of a write, in nanoseconds, by the kernel's account of them; what they take of other
/// writes meanwhile is in it.
pub fn own_time(device: &Path, bytes: u64) -> Result<f64> {
    let mut writer = User::open(device, bytes, What::Write)?;
    let tracking = Tracking::on(device)?;
    let _account = Account::open()?;
    let spent = || -> Result<u64> {
        let each = tracking.tracker.programs().map(|(_, program)| run_statistics(program));
        Ok(each.collect::<std::io::Result<Vec<_>>>()?.iter().map(|(_, nanoseconds)| nanoseconds).sum())
    };
    let before = spent()?;
    writer.turn()?;
    Ok((spent()? - before) as f64 / writer.done as f64)
}

/// What is done to a device.
#[derive(Clone, Copy, PartialEq)]
pub enum What {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// Reads or writes a device at random, each time when the access before has ended.
struct User {
    disk: File,
    path: PathBuf,
    what: What,
    pieces: u64,
    noise: Noise,
    data: AlignedBuf,
    done: u64,
}

impl User {
    fn open(device: &Path, bytes: u64, what: What) -> Result<Self> {
        let disk = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_DIRECT.bits()).open(device)?;
        let (mut noise, mut data) = (Noise::new(bytes), AlignedBuf::zeroed(PIECE));
        noise.fill(&mut data);
        Ok(Self { disk, path: device.to_owned(), what, pieces: bytes / PIECE as u64, noise, data, done: 0 })
    }

    /// What the accesses of a turn take, in nanoseconds.
    fn turn(&mut self) -> Result<Vec<f64>> {
        let start = Instant::now();
        let mut took = Vec::new();
        loop {
            let at = self.noise.below(self.pieces) * PIECE as u64;
            let before = start.elapsed();
            let done = match self.what {
                What::Read => self.disk.read_exact_at(&mut self.data, at),
                What::Write => self.disk.write_all_at(&self.data, at),
            };
            done.with_context(|| format!("an access to {}", self.path.display()))?;
            let after = start.elapsed();
            self.done += 1;
            if before >= SETTLING {
                took.push((after - before).as_nanos() as f64);
            }
            if after >= TURN && !took.is_empty() {
                return Ok(took);
            }
        }
    }
}

/// The kernel keeps an account of what programs take until this is dropped, which costs each of them some time itself.
struct Account {
    before: String,
}

impl Account {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn open() -> Result<Self> {
        let before = std::fs::read_to_string(Self::SWITCH).context(Self::SWITCH)?;
        std::fs::write(Self::SWITCH, "1").context(Self::SWITCH)?;
        Ok(Self { before })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // In a drop there is nobody to tell.
        drop(std::fs::write(Self::SWITCH, &self.before));
    }
}
