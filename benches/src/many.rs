//! Many disks at once, and a small one beside a large one.

use crate::bench::Plan;
use crate::disk::{Disk, PIECE, Slice};
use crate::report::{Measured, Side};
use crate::stats::median;
use crate::three::{NEVER_MS, Three, end_ms};
use anyhow::{Result, ensure};
use sluice_proto::DiskId;
use std::path::Path;

/// How many disks at once, and how many where it only is to be seen that they are.
const DISKS: u64 = 32;
const DISKS_TINY: u64 = 3;
/// The small disk is this part of the large one.
const SMALL_PART: u64 = 6;

const RATIO: &str = "many disks' time over one disk's";
const BESIDE: &str = "a small delta's time beside a large initial over that without";

/// Runs both.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    at_once(plan, measured)?;
    beside(plan, measured)?;
    measured.promise("7", RATIO, Side::AtMost, 1.15);
    let bars = ["many disks: wall", "one disk: wall"];
    measured.bars("many", "The same bytes on many disks at once and on one, seconds", &bars);
    let bars = ["a small delta, nothing else to do", "a small delta beside a large initial"];
    measured.bars("beside", "A small delta, from its order to its verdict, seconds", &bars);
    Ok(())
}

fn at_once(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    let count = if plan.tiny { DISKS_TINY } else { DISKS };
    let each = (plan.disk_bytes / count) >> 20;
    measured.note(format!("{}; many disks: {count}, which are its parts, of {each} MiB each", disk.holds));
    for round in 0..plan.rounds(5) {
        let mut walls = [0.0; 2];
        for turn in [0, 1] {
            let many = (turn + round) % 2 == 0;
            disk.warm()?;
            walls[usize::from(many)] = match many {
                true => {
                    let slices = Slice::all(&disk, plan.disk_bytes, count)?;
                    let paths: Vec<&Path> = slices.iter().map(Slice::path).collect();
                    initial(plan, &paths, "many disks", measured)?
                }
                false => initial(plan, &[disk.path()], "one disk", measured)?,
            };
        }
        measured.add(RATIO, "x", walls[1] / walls[0]);
    }
    Ok(())
}

/// From the agent's start to the last disk's verdict.
fn initial(plan: &Plan, sources: &[&Path], who: &str, measured: &mut Measured) -> Result<f64> {
    let mut three = Three::prepare(plan, sources, "vhd", NEVER_MS)?;
    let before = three.usage();
    let start = three.start_agent();
    let ended = three.wait_verified(sources.len(), 0)?;
    let ends = ended.iter().map(|(_, cycle)| end_ms(cycle)).collect::<Result<Vec<_>>>()?;
    let wall = (ends.into_iter().max().unwrap_or(start) - start) as f64 / 1000.0;
    measured.add(&format!("{who}: wall"), "s", wall);
    three.add_usage(measured, who, wall, before);
    Ok(wall)
}

/// One small disk is in step and gets deltas; then a large one is added, and while its first copy runs the small one
/// gets more of them; then again without, in case the machine's speed has changed meanwhile.
fn beside(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let small_bytes = (plan.disk_bytes / SMALL_PART).max(32 << 20) & !0xf_ffff;
    let pieces = small_bytes / 100 / PIECE as u64;
    let small = Disk::with_noise(plan, small_bytes)?;
    let large = Disk::with_debian(plan)?;
    large.warm()?;
    let mut three = Three::prepare(plan, &[small.path()], "vhd", NEVER_MS)?;
    three.start_agent();
    let id = three.wait_in_step(1)?.remove(0);
    let mut seed = 100;
    let mut delta = |three: &mut Three| -> Result<f64> {
        seed += 1;
        small.dirty(seed, small_bytes, pieces)?;
        Ok(three.cycle_on_order(id)?.0)
    };
    let rounds = plan.rounds(5);
    let mut alone = Vec::new();
    // The first is not counted: all is cold.
    delta(&mut three)?;
    for _ in 0..rounds {
        alone.push(delta(&mut three)?);
    }
    three.stop_agent()?;
    three.add_source(large.path())?;
    three.start_agent();
    let other = wait_other(&mut three, id)?;
    let mut busy = Vec::new();
    while busy.len() < rounds as usize {
        let seconds = delta(&mut three)?;
        if !three.initial_runs(other) {
            break;
        }
        busy.push(seconds);
    }
    ensure!(
        !busy.is_empty(),
        "the large disk's first copy ended before one delta of the small one: take a larger --disk"
    );
    three.wait_verified(2, 1)?;
    for _ in 0..rounds {
        alone.push(delta(&mut three)?);
    }
    alone.iter().for_each(|seconds| measured.add("a small delta, nothing else to do", "s", *seconds));
    for seconds in &busy {
        measured.add("a small delta beside a large initial", "s", *seconds);
        measured.add(BESIDE, "x", seconds / median(&alone));
    }
    if !busy.is_empty() {
        measured.promise("7", BESIDE, Side::AtMost, 2.0);
    }
    measured.note(format!(
        "small: a disk of {} MiB with {pieces} pieces of 4 KiB written; large: {}; {} of its deltas fell within the large \
         disk's first copy",
        small_bytes >> 20,
        large.holds,
        busy.len()
    ));
    Ok(())
}

/// Waits until another disk than the one that is known has begun its first cycle.
fn wait_other(three: &mut Three, known: DiskId) -> Result<DiskId> {
    let views = three.cluster().operator().wait_disks(2);
    let other = views.iter().map(|view| view.disk).find(|disk| *disk != known);
    let other = other.ok_or_else(|| anyhow::anyhow!("two disks are registered, and both are the same"))?;
    loop {
        three.all_run()?;
        let newest = three.cluster().operator().cycles(other).into_iter().next();
        if newest.is_some_and(|cycle| cycle.bytes_sent.0 > 0) {
            return Ok(other);
        }
        // sleep: waits for what other processes do.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
