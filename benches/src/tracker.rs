//! What tracking costs those who write: random writes of 4 KiB with tracking on and off in turn.

use crate::bench::Plan;
use crate::disk::Disk;
use crate::measure::{command, run as run_command};
use crate::report::{Measured, median};
use anyhow::{Context, Result};
use sluice_agent::tracker::ebpf::EbpfTracker;
use sluice_platform::system::OsEntropy;
use sluice_test_support::devices::{Zram, text};
use std::path::{Path, PathBuf};

/// At least so long, for fio to come to rest.
const SECONDS_MIN: u64 = 1;
/// The most that is written to; what lies in memory must fit in it.
const BYTES_MAX: u64 = 1 << 30;

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let bytes = plan.disk_bytes.min(BYTES_MAX);
    let disk = Disk::empty(plan, bytes)?;
    device("loop", disk.path(), plan, measured)?;
    match Zram::new(bytes) {
        Some(zram) => device("zram", zram.path(), plan, measured)?,
        None => measured.note("this kernel has no zram"),
    }
    Ok(())
}

fn device(name: &str, path: &Path, plan: &Plan, measured: &mut Measured) -> Result<()> {
    let seconds = (plan.seconds / 10).max(SECONDS_MIN);
    // Once for nothing: every piece of the disk has been written before the first run that counts.
    fio(path, 32, seconds, "write", "1M")?;
    let mut added = Vec::new();
    for _ in 0..plan.rounds {
        let mut iops = [0.0; 2];
        let mut latency = [0.0; 2];
        for on in [0, 1] {
            let tracking = if on == 1 { Some(Tracking::on(path)?) } else { None };
            iops[on] = fio(path, 32, seconds, "randwrite", "4k")?.iops;
            latency[on] = fio(path, 1, seconds, "randwrite", "4k")?.latency_ns;
            drop(tracking);
        }
        measured.add(&format!("{name}: IOPS at depth 32, tracking off"), "k/s", iops[0] / 1000.0);
        measured.add(&format!("{name}: IOPS at depth 32, tracking on"), "k/s", iops[1] / 1000.0);
        measured.add(&format!("{name}: IOPS with tracking over without"), "x", iops[1] / iops[0]);
        measured.add(&format!("{name}: time of a write at depth 1, off"), "ns", latency[0]);
        added.push(latency[1] - latency[0]);
        measured.add(&format!("{name}: tracking adds to a write at depth 1"), "ns", latency[1] - latency[0]);
        // Where all processors are busy, the time between two writes grows by what each of them costs.
        measured.add(&format!("{name}: time between writes grows by"), "ns", 1e9 / iops[1] - 1e9 / iops[0]);
    }
    let spread = added.iter().map(|value| (value - median(&added)).abs()).fold(0.0, f64::max);
    measured.note(format!("{name}: what is added lies within {spread:.0} ns around its median; runs of {seconds} s"));
    Ok(())
}

struct Fio {
    iops: f64,
    latency_ns: f64,
}

fn fio(device: &Path, depth: u32, seconds: u64, pattern: &str, block: &str) -> Result<Fio> {
    let arguments = [
        "--name=bench".to_owned(),
        format!("--filename={}", text(device)),
        format!("--rw={pattern}"),
        format!("--bs={block}"),
        format!("--iodepth={depth}"),
        format!("--runtime={seconds}"),
        "--time_based".to_owned(),
        "--ioengine=libaio".to_owned(),
        "--direct=1".to_owned(),
        "--randrepeat=1".to_owned(),
        "--norandommap".to_owned(),
        "--refill_buffers=0".to_owned(),
        "--output-format=json".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (_, printed) = run_command(command("fio", &arguments))?;
    let json: serde_json::Value = serde_json::from_str(&printed).context("what fio printed")?;
    let write = &json["jobs"][0]["write"];
    let number = |value: &serde_json::Value| value.as_f64().context("fio told no result");
    Ok(Fio { iops: number(&write["iops"])?, latency_ns: number(&write["lat_ns"]["mean"])? })
}

/// Tracking by the product's own programs, which nobody reads; it ends when this is dropped.
struct Tracking {
    pins: PathBuf,
}

impl Tracking {
    fn on(device: &Path) -> Result<Self> {
        let pins = Path::new("/sys/fs/bpf/sluice").join(format!("bench-{}", std::process::id()));
        let tracking = Self { pins };
        let attached = EbpfTracker::attach(device, &tracking.pins, None, &OsEntropy::new())?;
        // It goes on in the kernel.
        drop(attached);
        Ok(tracking)
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        // In a drop there is nobody to tell.
        drop(EbpfTracker::detach(&self.pins));
    }
}
