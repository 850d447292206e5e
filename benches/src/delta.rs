//! A cycle after one part in a hundred of the disk was written at random, and one after nothing was.

use crate::bench::Plan;
use crate::disk::{Disk, PIECE};
use crate::initial::add;
use crate::measure::{Cost, Running, command, cpu_seconds, run as run_command, sluice_command};
use crate::peers::blocksync_fast;
use crate::report::{Measured, Side};
use crate::three::{NEVER_MS, Three};
use anyhow::{Context, Result, ensure};
use sluice_e2e::Cycle;
use sluice_proto::DiskId;
use sluice_test_support::devices::text;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Idle cycles that are measured, and so many where it only is to be seen that they are.
const IDLE_CYCLES: usize = 20;
const IDLE_CYCLES_TINY: usize = 2;

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    let pieces = plan.disk_bytes / 100 / PIECE as u64;
    measured.note(format!("{}; {pieces} random pieces of 4 KiB are written before each round", disk.holds));
    measured.note("a cycle: from before the tracker's swap to the verdict; rsync and blocksync-fast: with what was written on its disk");
    let mut scene = Scene::start(plan, disk, measured)?;
    let rounds = plan.rounds(5);
    for round in 0..rounds {
        scene.round(u64::from(round) + 1, plan, pieces, measured)?;
    }
    let mut promise = |ours: &str| {
        measured.promise("2", &format!("rsync's wall over {ours}"), Side::AtLeast, 20.0);
        if blocksync_fast().is_some() {
            measured.promise("2", &format!("blocksync-fast's wall over {ours}"), Side::AtLeast, 5.0);
        }
    };
    promise("the cycle's, one process");
    promise("the cycle's, three processes");
    for large in &scene.large {
        measured.promise("2", &format!("the cycle on {} over that on the small disk", large.name), Side::AtMost, 1.2);
    }
    let cycles = if plan.tiny { IDLE_CYCLES_TINY } else { IDLE_CYCLES };
    idle(&scene.disk, &scene.target, cycles, measured)?;
    idle_three(&mut scene.three, scene.id, cycles as u64, measured)?;
    measured.promise("2", IDLE, Side::AtMost, 50.0);
    measured.promise("2", IDLE_THREE, Side::AtMost, 50.0);
    let walls = [
        "sluice, one process: the cycle",
        "sluice, three processes: the cycle",
        "blocksync-fast: wall",
        "rsync --inplace --no-whole-file: wall",
    ];
    measured.bars("delta", "1 % written at random: until the target has it, seconds", &walls);
    Ok(())
}

const IDLE: &str = "an idle cycle, one process: CPU";
const IDLE_THREE: &str = "an idle cycle, three processes: CPU";

/// A large sparse disk that gets the same writes.
struct Large {
    name: String,
    disk: Disk,
    target: PathBuf,
}

/// All disks and all copies, in step.
struct Scene {
    three: Three,
    id: DiskId,
    disk: Disk,
    target: PathBuf,
    large: Vec<Large>,
}

impl Scene {
    fn start(plan: &Plan, disk: Disk, measured: &mut Measured) -> Result<Self> {
        let mut three = Three::prepare(plan, &[disk.path()], "vhd", NEVER_MS)?;
        three.start_agent();
        let id = three.wait_in_step(1)?.remove(0);
        let target = disk.beside("ours.vhd");
        replicate(&disk, &target)?;
        rsync(&disk)?;
        blocksync(&disk)?;
        let mut large = Vec::new();
        for bytes in &plan.sparse_bytes {
            let name = size(*bytes);
            let disk = Disk::empty(plan, *bytes)?;
            disk.past_the_cache();
            // A raw target stays sparse where nothing was written, so the large disk needs no room.
            let target = disk.beside("ours.raw");
            let (first, _) = replicate(&disk, &target)?;
            measured.add(&format!("first copy of {name} of zeros"), "s", first.wall);
            large.push(Large { name, disk, target });
        }
        Ok(Self { three, id, disk, target, large })
    }

    fn round(&mut self, seed: u64, plan: &Plan, pieces: u64, measured: &mut Measured) -> Result<()> {
        self.disk.dirty(seed, plan.disk_bytes, pieces)?;
        let (ours, cycle) = replicate(&self.disk, &self.target)?;
        let (_, apart) = self.three.cycle_on_order(self.id)?;
        let apart = apart.end_ms.context("an end")?.saturating_sub(apart.start_ms) as f64 / 1000.0;
        self.disk.warm()?;
        let theirs = rsync(&self.disk)?;
        add(measured, "sluice replicate", ours);
        measured.add("sluice, one process: the cycle", "s", cycle.seconds);
        measured.add("sluice, three processes: the cycle", "s", apart);
        add(measured, "rsync --inplace --no-whole-file", theirs);
        measured.add("rsync's wall over the cycle's, one process", "x", theirs.wall / cycle.seconds);
        measured.add("rsync's wall over the cycle's, three processes", "x", theirs.wall / apart);
        measured.add("rsync's wall over sluice replicate's", "x", theirs.wall / ours.wall);
        self.disk.warm()?;
        if let Some(theirs) = blocksync(&self.disk)? {
            add(measured, "blocksync-fast", theirs);
            measured.add("blocksync-fast's wall over the cycle's, one process", "x", theirs.wall / cycle.seconds);
            measured.add("blocksync-fast's wall over the cycle's, three processes", "x", theirs.wall / apart);
        }
        for Large { name, disk, target } in &self.large {
            disk.dirty(seed, plan.disk_bytes, pieces)?;
            let (cost, on_large) = replicate(disk, target)?;
            measured.add(&format!("the cycle on {name}"), "s", on_large.seconds);
            measured.add(
                &format!("the cycle on {name} over that on the small disk"),
                "x",
                on_large.seconds / cycle.seconds,
            );
            measured.add(&format!("sluice replicate on {name}: CPU"), "s", cost.cpu);
            measured.add(&format!("sluice replicate on {name}: peak memory"), "MiB", cost.peak_mib);
        }
        Ok(())
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 40 { format!("{} TiB", bytes >> 40) } else { format!("{} MiB", bytes >> 20) }
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
fn rsync(disk: &Disk) -> Result<Cost> {
    let copy = disk.beside("rsync.raw");
    let options = ["--inplace", "--no-whole-file", "--ignore-times", "--fsync", text(disk.backing()), text(&copy)];
    Ok(run_command(command("rsync", &options))?.0)
}

/// The same by blocksync-fast, with a file of digests, which spares it reading its copy. `None` where it is not there.
fn blocksync(disk: &Disk) -> Result<Option<Cost>> {
    let Some(program) = blocksync_fast() else { return Ok(None) };
    let (copy, digests) = (disk.beside("blocksync.raw"), disk.beside("blocksync.digest"));
    let options = ["-s", text(disk.backing()), "-d", text(&copy), "-f", text(&digests), "--silent"];
    let mut cost = run_command(command(text(&program), &options))?.0;
    cost.wall += run_command(command("sync", &["-d", text(&copy)]))?.0.wall;
    Ok(Some(cost))
}

/// What a cycle costs for which there is nothing to do.
fn idle(disk: &Disk, target: &Path, wanted: usize, measured: &mut Measured) -> Result<()> {
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
    let cycles = wait_cycles(&lines, first + wanted)? - first;
    let cpu = cpu_seconds(process).context("sluice runs")? - before;
    measured.add(IDLE, "ms", cpu * 1000.0 / cycles as f64);
    measured.note(format!("idle: over {cycles} cycles, with the pauses of one second between them"));
    Ok(())
}

/// The same of three processes; the bench's own questions, of which there are few, are in it.
fn idle_three(three: &mut Three, disk: DiskId, wanted: u64, measured: &mut Measured) -> Result<()> {
    three.cycle_on_order(disk)?;
    let sum = |three: &Three| three.usage().iter().map(|(cpu, _)| cpu).sum::<f64>();
    let first = three.newest(disk)?.cycle.0;
    let before = sum(three);
    three.cluster().operator().set_policy(1000, None);
    loop {
        // sleep: waits for what other processes do.
        std::thread::sleep(Duration::from_millis(500));
        let cycles = three.newest(disk)?.cycle.0 - first;
        if cycles > wanted {
            measured.add(IDLE_THREE, "ms", (sum(three) - before) * 1000.0 / cycles as f64);
            return Ok(());
        }
        three.all_run()?;
    }
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
