//! What tracking costs those who write: random writes of 4 KiB with tracking on and off in turn.
//!
//! The difference is smaller than what the machine's speed changes by from one second to the next. So runs are short
//! and many, who comes first changes from round to round, and what is judged is the median of the rounds' ratios.

mod alone;

use crate::bench::Plan;
use crate::cleanup::{note_zram, pins_of_run};
use crate::disk::Disk;
use crate::measure::{command, run as run_command};
use crate::report::{Measured, Side};
use crate::stats::{median, median_interval};
use alone::{Awake, What};
use anyhow::{Context, Result};
use sluice_agent::tracker::ebpf::{EbpfTracker, KernelTypes};
use sluice_platform::system::OsEntropy;
use sluice_test_support::devices::{Zram, text};
use std::path::{Path, PathBuf};

/// The most that is written to; what lies in memory must fit in it.
const BYTES_MAX: u64 = 1 << 30;
/// Rounds, each with and without tracking.
const ROUNDS: u32 = 21;
/// Pairs of turns with one write at a time in each round.
const PAIRS: u32 = 8;
/// Disks beside it that are tracked, as on a host of many machines, and their size: nothing is done to them.
const OTHERS: usize = 31;
const OTHERS_TINY: usize = 2;
const OTHER_BYTES: u64 = 4 << 20;
/// Pairs of turns with and without their tracking.
const PAIRS_OF_OTHERS: u32 = 2;
/// What tracking may add to a write, in nanoseconds.
const ADDED_MAX: f64 = 500.0;
/// How rows say that processors were kept from halting.
const AWAKE: &str = "where processors never halt";
/// What part of the IOPS must be left.
pub const LEFT_MIN: f64 = 0.98;

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let bytes = plan.disk_bytes.min(BYTES_MAX);
    let count = if plan.tiny { OTHERS_TINY } else { OTHERS };
    match InMemory::zram(bytes) {
        Some(zram) => {
            let others: Vec<_> = (0..count).filter_map(|_| InMemory::zram(OTHER_BYTES)).collect();
            let others: Vec<_> = others.iter().map(|zram| zram.0.path()).collect();
            device("zram", zram.0.path(), bytes, &others, plan, measured)?;
        }
        None => measured.note("this kernel has no zram"),
    }
    // In memory: what is written to a file on a disk goes on to it in the background, and shows in every second of it.
    let disk = Disk::in_memory(bytes)?;
    let others = (0..count).map(|_| Disk::in_memory(OTHER_BYTES)).collect::<Result<Vec<_>>>()?;
    let others: Vec<_> = others.iter().map(Disk::path).collect();
    device("loop", disk.path(), bytes, &others, plan, measured)?;
    let rows = ["zram: IOPS with tracking over without", "loop: IOPS with tracking over without"];
    measured.bars("tracker", "Random writes of 4 KiB at depth 32, with tracking over without", &rows);
    Ok(())
}

/// A disk in compressed memory that goes with this process, however it ends.
struct InMemory(Zram);

impl InMemory {
    fn zram(bytes: u64) -> Option<Self> {
        let zram = Zram::new(bytes)?;
        note_zram(zram.path(), true);
        Some(Self(zram))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        note_zram(self.0.path(), false);
    }
}

fn device(name: &str, path: &Path, bytes: u64, others: &[&Path], plan: &Plan, measured: &mut Measured) -> Result<()> {
    let seconds = plan.seconds(3);
    // Once for nothing: every piece of the disk has been written before the first run that counts.
    fio(path, 32, seconds, "write", "1M")?;
    let mut added = Vec::new();
    let mut ratios = Vec::new();
    for round in 0..plan.rounds(ROUNDS) {
        let mut iops = [0.0; 2];
        for turn in [0, 1] {
            let on = ((turn + round) % 2) as usize;
            let tracking = if on == 1 { Some(Tracking::on(path)?) } else { None };
            iops[on] = fio(path, 32, seconds, "randwrite", "4k")?;
            drop(tracking);
        }
        let (plain, adds) = alone::pairs((path, bytes), What::Write, &[path], PAIRS)?;
        let awake = Awake::begin()?;
        let (awake_plain, awake_adds) = alone::pairs((path, bytes), What::Write, &[path], PAIRS)?;
        let (_, adds_to_reads) = alone::pairs((path, bytes), What::Read, &[path], PAIRS)?;
        for (what, access) in [(What::Write, "a write"), (What::Read, "a read")] {
            let (_, adds) = alone::pairs((path, bytes), what, others, PAIRS_OF_OTHERS)?;
            let row = format!("{name}: tracking {} other disks adds to {access} at depth 1, {}", others.len(), AWAKE);
            measured.add(&row, "ns", median(&adds));
        }
        awake.end()?;
        measured.add(&format!("{name}: IOPS at depth 32, without tracking"), "k/s", iops[0] / 1000.0);
        measured.add(&format!("{name}: IOPS at depth 32, with tracking"), "k/s", iops[1] / 1000.0);
        measured.add(&format!("{name}: IOPS with tracking over without"), "x", iops[1] / iops[0]);
        // Where all processors are busy, the time between two writes grows by what each of them costs.
        measured.add(&format!("{name}: time between writes grows by"), "ns", 1e9 / iops[1] - 1e9 / iops[0]);
        measured.add(&format!("{name}: time of a write at depth 1, without"), "ns", median(&plain));
        measured.add(&format!("{name}: tracking adds to a write at depth 1"), "ns", median(&adds));
        measured.add(&format!("{name}: time of a write at depth 1, without, {AWAKE}"), "ns", median(&awake_plain));
        measured.add(&format!("{name}: tracking adds to a write at depth 1, {AWAKE}"), "ns", median(&awake_adds));
        measured.add(&format!("{name}: tracking adds to a read at depth 1, {AWAKE}"), "ns", median(&adds_to_reads));
        measured.add(&format!("{name}: the programs' own time of it"), "ns", alone::own_time(path, bytes)?);
        ratios.push(iops[1] / iops[0]);
        added.extend(adds);
    }
    measured.promise("3", &format!("{name}: IOPS with tracking over without"), Side::AtLeast, LEFT_MIN);
    measured.promise("3", &format!("{name}: the programs' own time of it"), Side::AtMost, ADDED_MAX);
    let (ratio, (low, high)) = (median(&ratios), median_interval(&ratios));
    let (adds, (least, most)) = (median(&added), median_interval(&added));
    measured.promise("3", &format!("{name}: tracking adds to a write at depth 1"), Side::AtMost, ADDED_MAX);
    measured.note(format!(
        "{name}: the median ratio is {ratio:.4} and lies within {low:.4} and {high:.4}, what is added is {adds:.0} ns and \
         lies within {least:.0} and {most:.0}, each with 95 % confidence ({} rounds of {seconds} s, {} pairs of turns)",
        ratios.len(),
        added.len()
    ));
    Ok(())
}

/// Writes a second.
fn fio(device: &Path, depth: u32, seconds: u64, pattern: &str, block: &str) -> Result<f64> {
    let arguments = fio_arguments(device, depth, seconds, pattern, block);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    parse_fio(&run_command(command("fio", &arguments))?.1)
}

/// What fio is called with, for writes at a depth past the page cache.
pub fn fio_arguments(device: &Path, depth: u32, seconds: u64, pattern: &str, block: &str) -> Vec<String> {
    let told = [
        format!("--filename={}", text(device)),
        format!("--rw={pattern}"),
        format!("--bs={block}"),
        format!("--iodepth={depth}"),
        format!("--runtime={seconds}"),
    ];
    let common = "--name=bench --time_based --ioengine=libaio --direct=1 --norandommap --refill_buffers=0";
    let common = common.split(' ').chain(["--output-format=json"]).map(str::to_owned);
    common.chain(told).collect()
}

/// Writes a second, from what fio printed as JSON.
pub fn parse_fio(printed: &str) -> Result<f64> {
    let json: serde_json::Value = serde_json::from_str(printed).context("what fio printed")?;
    json["jobs"][0]["write"]["iops"].as_f64().context("fio told no result")
}

/// Tracking by the product's own programs, which nobody reads; it ends when this is dropped.
struct Tracking {
    tracker: EbpfTracker,
    pins: PathBuf,
}

impl Tracking {
    fn on(device: &Path) -> Result<Self> {
        Self::pinned(device, 0)
    }

    fn on_all(devices: &[&Path]) -> Result<Vec<Self>> {
        let _types = KernelTypes::keep();
        devices.iter().enumerate().map(|(number, device)| Self::pinned(device, number)).collect()
    }

    fn pinned(device: &Path, number: usize) -> Result<Self> {
        let pins = pins_of_run().join(number.to_string());
        let tracker = EbpfTracker::attach(device, &pins, None, &OsEntropy::new())?.tracker;
        Ok(Self { tracker, pins })
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        // In a drop there is nobody to tell.
        drop(EbpfTracker::detach(&self.pins));
    }
}
