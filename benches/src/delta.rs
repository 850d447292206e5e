//! A cycle after one part in a hundred of the disk was written at random, and one after nothing was.

use crate::bench::Plan;
use crate::disk::{Disk, PIECE};
use crate::initial::add;
use crate::measure::{Cost, Running, command, cpu_seconds, run as run_command, sluice_command};
use crate::report::Measured;
use anyhow::{Context, Result, ensure};
use sluice_e2e::Cycle;
use sluice_test_support::devices::text;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Idle cycles that are measured.
const IDLE_CYCLES: usize = 10;

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    let pieces = plan.disk_bytes / 100 / PIECE as u64;
    measured.note(format!("disk of {} MiB; {pieces} random pieces of 4 KiB are written", plan.disk_bytes >> 20));
    let (target, copy) = (disk.beside("ours.vhd"), disk.beside("rsync.raw"));
    replicate(&disk, &target)?;
    rsync(&disk, &copy)?;
    let large = match plan.sparse_bytes {
        0 => None,
        bytes => Some(Disk::empty(plan, bytes)?),
    };
    // A raw target stays sparse where nothing was written, so the large disk needs no room.
    let large_target = large.as_ref().map(|disk| disk.beside("ours.raw"));
    if let (Some(large), Some(target)) = (&large, &large_target) {
        let (first, _) = replicate(large, target)?;
        measured.add(&format!("first copy of {} GiB of zeros", plan.sparse_bytes >> 30), "s", first.wall);
    }
    for round in 0..plan.rounds {
        let seed = u64::from(round) + 1;
        disk.dirty(seed, plan.disk_bytes, pieces)?;
        let (ours, cycle) = replicate(&disk, &target)?;
        disk.warm()?;
        let theirs = rsync(&disk, &copy)?;
        add(measured, "sluice replicate", ours);
        measured.add("sluice: the cycle", "s", cycle.seconds);
        add(measured, "rsync --inplace --no-whole-file", theirs);
        measured.add("rsync's wall over the cycle's", "x", theirs.wall / cycle.seconds);
        measured.add("rsync's wall over sluice's", "x", theirs.wall / ours.wall);
        if let (Some(large), Some(target)) = (&large, &large_target) {
            large.dirty(seed, plan.disk_bytes, pieces)?;
            let (cost, on_large) = replicate(large, target)?;
            measured.add(&format!("sluice: the cycle on {} MiB", plan.sparse_bytes >> 20), "s", on_large.seconds);
            measured.add("the large disk's cycle over the small one's", "x", on_large.seconds / cycle.seconds);
            measured.add("sluice on the large disk: peak memory", "MiB", cost.peak_mib);
        }
    }
    idle(&disk, &target, measured)
}

/// One run of `sluice replicate`, and its last cycle.
fn replicate(disk: &Disk, target: &Path) -> Result<(Cost, Cycle)> {
    let (cost, printed) = run_command(sluice_command(&["replicate", text(disk.path()), text(target), "--json"]))?;
    let cycle = printed.lines().filter_map(Cycle::read).next_back().context("sluice replicate told of no cycle")?;
    cycle.assert_verified();
    ensure!(cycle.tracker.as_deref() == Some("ebpf"), "delta is measured with the ebpf tracker: {cycle:?}");
    Ok((cost, cycle))
}

/// The file under the disk, brought up to date at its copy and on its disk.
fn rsync(disk: &Disk, copy: &Path) -> Result<Cost> {
    let options = ["--inplace", "--no-whole-file", "--ignore-times", "--fsync", text(disk.backing()), text(copy)];
    Ok(run_command(command("rsync", &options))?.0)
}

/// What a cycle costs for which there is nothing to do.
fn idle(disk: &Disk, target: &Path, measured: &mut Measured) -> Result<()> {
    let lines = disk.beside("idle.json");
    let arguments = ["--follow", "--min-interval", "1s", "--max-interval", "1s", "--json"];
    let arguments = [&["replicate", text(disk.path()), text(target)][..], &arguments].concat();
    let child = sluice_command(&arguments)
        .stdout(File::create(&lines)?)
        .stderr(File::create(disk.beside("idle.log"))?)
        .spawn()?;
    let running = Running(child);
    let process = running.0.id();
    let first = wait_cycles(&lines, 1)?;
    let before = cpu_seconds(process).context("sluice runs")?;
    let cycles = wait_cycles(&lines, first + IDLE_CYCLES)? - first;
    let cpu = cpu_seconds(process).context("sluice runs")? - before;
    measured.add("an idle cycle: CPU", "ms", cpu * 1000.0 / cycles as f64);
    measured.note(format!("idle: over {cycles} cycles, with the pauses of one second between them"));
    Ok(())
}

/// Waits for so many cycles; how many there are.
fn wait_cycles(lines: &PathBuf, wanted: usize) -> Result<usize> {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let cycles = fs::read_to_string(lines)?.lines().count();
        if cycles >= wanted {
            return Ok(cycles);
        }
        ensure!(Instant::now() < end, "no {wanted} cycles within two minutes, but {cycles}");
        // sleep: waits for what another process does.
        std::thread::sleep(Duration::from_millis(20));
    }
}
