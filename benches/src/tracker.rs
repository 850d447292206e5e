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
use alone::Awake;
use anyhow::{Context, Result};
use sluice_agent::tracker::ebpf::EbpfTracker;
use sluice_platform::system::OsEntropy;
use sluice_test_support::devices::{Zram, text};
use std::path::{Path, PathBuf};

/// The most that is written to; what lies in memory must fit in it.
const BYTES_MAX: u64 = 1 << 30;
/// Rounds, each with and without tracking.
const ROUNDS: u32 = 21;
/// Pairs of turns with one write at a time in each round.
const PAIRS: u32 = 8;
/// What tracking may add to a write, in nanoseconds.
const ADDED_MAX: f64 = 500.0;
/// What part of the IOPS must be left.
pub const LEFT_MIN: f64 = 0.98;

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let bytes = plan.disk_bytes.min(BYTES_MAX);
    match Zram::new(bytes) {
        Some(zram) => {
            let path = zram.path().to_owned();
            note_zram(&path, true);
            let result = device("zram", &path, bytes, plan, measured);
            drop(zram);
            note_zram(&path, false);
            result?;
        }
        None => measured.note("this kernel has no zram"),
    }
    // In memory: what is written to a file on a disk goes on to it in the background, and shows in every second of it.
    let disk = Disk::in_memory(bytes)?;
    device("loop", disk.path(), bytes, plan, measured)?;
    let rows = ["zram: IOPS with tracking over without", "loop: IOPS with tracking over without"];
    measured.bars("tracker", "Random writes of 4 KiB at depth 32, with tracking over without", &rows);
    Ok(())
}

fn device(name: &str, path: &Path, bytes: u64, plan: &Plan, measured: &mut Measured) -> Result<()> {
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
        let (plain, adds) = alone::pairs(path, bytes, PAIRS)?;
        let awake = Awake::begin()?;
        let (awake_plain, awake_adds) = alone::pairs(path, bytes, PAIRS)?;
        awake.end()?;
        measured.add(&format!("{name}: IOPS at depth 32, without tracking"), "k/s", iops[0] / 1000.0);
        measured.add(&format!("{name}: IOPS at depth 32, with tracking"), "k/s", iops[1] / 1000.0);
        measured.add(&format!("{name}: IOPS with tracking over without"), "x", iops[1] / iops[0]);
        // Where all processors are busy, the time between two writes grows by what each of them costs.
        measured.add(&format!("{name}: time between writes grows by"), "ns", 1e9 / iops[1] - 1e9 / iops[0]);
        measured.add(&format!("{name}: time of a write at depth 1, without"), "ns", median(&plain));
        measured.add(&format!("{name}: tracking adds to a write at depth 1"), "ns", median(&adds));
        let awake = "where processors never halt";
        measured.add(&format!("{name}: time of a write at depth 1, without, {awake}"), "ns", median(&awake_plain));
        measured.add(&format!("{name}: tracking adds to a write at depth 1, {awake}"), "ns", median(&awake_adds));
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
        let pins = pins_of_run();
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
