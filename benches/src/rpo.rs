//! How old the newest verified data is while much is written.

use crate::bench::Plan;
use crate::disk::{Disk, Noise};
use crate::measure::{Running, cpu_seconds, peak_mib, sluice_command};
use crate::report::{Measured, percentile};
use anyhow::{Context, Result, ensure};
use sluice_e2e::Cycle;
use sluice_platform::buf::AlignedBuf;
use sluice_platform::direct::DirectFile;
use sluice_test_support::devices::text;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What is written at once.
const PIECE: usize = 256 << 10;
/// Between two looks at the age.
const LOOK: Duration = Duration::from_millis(20);
/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A verified cycle: when it began (all that was written before is in it), and when its verdict was told.
struct Verified {
    began: Instant,
    told: Instant,
    seconds: f64,
}

/// Runs it, once: rounds of minutes each are asked for by running it again.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    let target = disk.beside("ours.vhd");
    let arguments = ["--follow", "--min-interval", "1s", "--max-interval", "1s", "--json"];
    let arguments = [&["replicate", text(disk.path()), text(&target)][..], &arguments].concat();
    let mut command = sluice_command(&arguments);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(File::create(disk.beside("log"))?).spawn()?;
    let stdout = child.stdout.take().context("its output is a pipe")?;
    let running = Running(child);
    let (sender, cycles) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let told = Instant::now();
            let Some(cycle) = Cycle::read(&line) else { continue };
            let began = told.checked_sub(Duration::from_secs_f64(cycle.seconds)).unwrap_or(told);
            // Nobody listens any more at the end.
            drop(sender.send((cycle, began, told)));
        }
    });
    cycles.recv_timeout(PATIENCE).context("the first cycle does not end")?;
    let process = running.0.id();
    let before = cpu_seconds(process).context("sluice runs")?;
    let start = Instant::now();
    let written = churn(disk.path(), plan)?;
    let end = Instant::now();
    let cpu = cpu_seconds(process).context("sluice ended by itself")? - before;
    let peak = peak_mib(process).context("sluice ended by itself")?;
    let verified = until(&cycles, end)?;
    drop(running);
    drop(reader.join());
    let seconds = (end - start).as_secs_f64();
    let ages = ages(&verified, start, end);
    ensure!(!ages.is_empty(), "no cycle was verified while churn ran");
    measured.add("written", "MB/s", written as f64 / 1e6 / seconds);
    measured.add("age of the newest verified data: p50", "s", percentile(&ages, 0.5));
    measured.add("age of the newest verified data: p99", "s", percentile(&ages, 0.99));
    measured.add("age of the newest verified data: most", "s", percentile(&ages, 1.0));
    let lasted: Vec<f64> = verified.iter().filter(|v| v.told <= end).map(|v| v.seconds).collect();
    measured.add("a cycle lasts: median", "s", percentile(&lasted, 0.5));
    measured.add("a cycle lasts: most", "s", percentile(&lasted, 1.0));
    measured.add("sluice: CPU", "s/s", cpu / seconds);
    measured.add("sluice: peak memory", "MiB", peak);
    measured.note(format!("{} cycles in {seconds:.0} s of churn on {} MiB", lasted.len(), plan.disk_bytes >> 20));
    Ok(())
}

/// Writes at the plan's rate, all over the disk; how many bytes.
fn churn(path: &Path, plan: &Plan) -> Result<u64> {
    let disk = DirectFile::open_rw(path)?;
    let mut noise = Noise::new(7);
    let mut buffer = AlignedBuf::zeroed(PIECE);
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed().as_secs() < plan.seconds {
        noise.fill(&mut buffer);
        let at = noise.below(plan.disk_bytes / PIECE as u64) * PIECE as u64;
        let (back, result) = disk.write_at_blocking(at, buffer, 0..PIECE);
        result?;
        buffer = back;
        written += PIECE as u64;
        let due = Duration::from_secs_f64(written as f64 / plan.churn_bytes as f64);
        // sleep: writes keep to their rate.
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(written)
}

/// All verified cycles up to the first that began after `end`.
fn until(cycles: &Receiver<(Cycle, Instant, Instant)>, end: Instant) -> Result<Vec<Verified>> {
    let mut verified = Vec::new();
    loop {
        let (cycle, began, told) = match cycles.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                anyhow::bail!("cycles come no more: {} were verified", verified.len())
            }
        };
        if cycle.verified {
            verified.push(Verified { began, told, seconds: cycle.seconds });
        }
        if began > end {
            return Ok(verified);
        }
    }
}

/// The age at many instants between the first verdict under churn and the end of churn.
fn ages(verified: &[Verified], start: Instant, end: Instant) -> Vec<f64> {
    let Some(first) = verified.iter().find(|v| v.began >= start) else { return Vec::new() };
    let mut ages = Vec::new();
    let mut now = first.told;
    while now <= end {
        let newest = verified.iter().filter(|v| v.told <= now).map(|v| v.began).max();
        ages.extend(newest.map(|began| (now - began).as_secs_f64()));
        now += LOOK;
    }
    ages
}
