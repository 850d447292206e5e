//! The first copy of a disk.

use crate::bench::Plan;
use crate::disk::{Disk, remove_target};
use crate::machine::processors;
use crate::measure::{Cost, command, disk_bytes, run, sluice_command};
use crate::report::{Measured, Side};
use crate::stages;
use crate::three::{NEVER_MS, Three, end_ms};
use anyhow::Result;
use sluice_test_support::devices::text;
use std::fs::File;
use std::path::Path;

/// Adds the rows of one contender's run.
pub fn add(measured: &mut Measured, who: &str, cost: Cost) {
    measured.add(&format!("{who}: wall"), "s", cost.wall);
    measured.add(&format!("{who}: CPU"), "s", cost.cpu);
    measured.add(&format!("{who}: peak memory"), "MiB", cost.peak_mib);
}

/// One process to a fixed VHD, read back and with digests; `qemu-img` to the same format, past the page cache too; and
/// `nbdcopy` through `nbdkit`.
pub fn local(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    measured.note(&disk.holds);
    measured.note(
        "sluice neither compresses nor encrypts here, as no byte leaves the process; it hashes and reads back all",
    );
    for round in 0..plan.rounds(5) {
        let (mut ours, mut theirs) = (Cost::default(), Cost::default());
        // Who comes first changes from round to round.
        for turn in [0, 1] {
            match (turn + round) % 2 {
                0 => ours = alone(&disk, "sluice replicate", replicate, measured)?,
                _ => theirs = alone(&disk, "qemu-img convert", convert_to_vhd, measured)?,
            }
        }
        let copied = alone(&disk, "nbdcopy", nbdcopy, measured)?;
        measured.add("qemu-img's wall over sluice's", "x", theirs.wall / ours.wall);
        measured.add("nbdcopy's wall over sluice's", "x", copied.wall / ours.wall);
    }
    measured.promise("1b", "qemu-img's wall over sluice's", Side::AtLeast, 1.0);
    let bars = ["sluice replicate: wall", "qemu-img convert: wall", "nbdcopy: wall"];
    measured.bars("initial-local", "First copy in one process, seconds", &bars);
    Ok(())
}

/// One contender's run, and how busy it kept the disk that the target lies on.
fn alone(
    disk: &Disk,
    who: &str,
    contender: impl FnOnce(&Disk) -> Result<Cost>,
    measured: &mut Measured,
) -> Result<Cost> {
    disk.warm()?;
    let target = disk.beside("");
    let before = disk_bytes(&target);
    let cost = contender(disk)?;
    let moved = disk_bytes(&target).zip(before).map(|(after, before)| after.saturating_sub(before));
    add(measured, who, cost);
    if let Some(moved) = moved {
        measured.add(&format!("{who}: read and written by the disk"), "GB/s", moved as f64 / 1e9 / cost.wall);
    }
    Ok(cost)
}

fn replicate(disk: &Disk) -> Result<Cost> {
    let target = disk.beside("ours.vhd");
    let cost = run(sluice_command(&["replicate", text(disk.path()), text(&target), "--json"]))?.0;
    remove_target(&target);
    Ok(cost)
}

fn convert_to_vhd(disk: &Disk) -> Result<Cost> {
    let peer = disk.beside("peer.vhd");
    let cost = qemu_img("convert -t none -T none -f raw -O vpc -o subformat=fixed,force_size", disk.path(), &peer)?;
    std::fs::remove_file(&peer)?;
    Ok(cost)
}

fn nbdcopy(disk: &Disk) -> Result<Cost> {
    let peer = disk.beside("peer.raw");
    let source = ["--flush", "--", "[", "nbdkit", "--exit-with-parent", "file", text(disk.path()), "]", text(&peer)];
    let cost = flushed(run(command("nbdcopy", &source))?.0, &peer)?;
    std::fs::remove_file(&peer)?;
    Ok(cost)
}

fn qemu_img(arguments: &str, source: &Path, target: &Path) -> Result<Cost> {
    let mut words: Vec<&str> = arguments.split(' ').collect();
    words.extend([text(source), text(target)]);
    Ok(run(command("qemu-img", &words))?.0)
}

/// With the time until what was written is on the disk.
fn flushed(mut cost: Cost, target: &Path) -> Result<Cost> {
    cost.wall += run(command("sync", &[text(target)]))?.0.wall;
    Ok(cost)
}

/// Three processes over TLS with zstd and AES-256-GCM to a fixed VHD that is read back; `qemu-img` to a compressed
/// qcow2; `restic` to a repository, which compresses and encrypts too. All are on the disk at their ends.
pub fn processes(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    measured.note(&disk.holds);
    measured.note("sluice's wall: from the agent's start to the verdict, the other two processes being there");
    measured.note("CPU bound: sum of the stages' CPU seconds over the processors, stages on all processors at once");
    for round in 0..plan.rounds(5) {
        let (mut ours, mut theirs) = (Cost::default(), Cost::default());
        for turn in [0, 1] {
            match (turn + round) % 2 {
                0 => ours = three(&disk, plan, measured)?,
                _ => theirs = convert_compressed(&disk)?,
            }
        }
        let backup = restic(&disk)?;
        add(measured, "sluice, three processes", ours);
        add(measured, "qemu-img convert -c", theirs);
        add(measured, "restic backup", backup);
        measured.add("qemu-img's wall over sluice's", "x", theirs.wall / ours.wall);
        measured.add("restic's wall over sluice's", "x", backup.wall / ours.wall);
        stages::bound(&disk, plan, ours, measured)?;
    }
    measured.promise("1a", "qemu-img's wall over sluice's", Side::AtLeast, 2.0);
    measured.promise("1a", stages::OVER_BOUND, Side::AtMost, 1.25);
    let bars = ["sluice, three processes: wall", stages::BOUND, "qemu-img convert -c: wall", "restic backup: wall"];
    measured.bars("initial", &format!("First copy by three processes on {} processors, seconds", processors()), &bars);
    Ok(())
}

fn convert_compressed(disk: &Disk) -> Result<Cost> {
    let peer = disk.beside("peer.qcow2");
    disk.warm()?;
    let cost = qemu_img("convert -c -f raw -O qcow2 -o compression_type=zstd", disk.path(), &peer)?;
    let cost = flushed(cost, &peer)?;
    std::fs::remove_file(&peer)?;
    Ok(cost)
}

/// A backup of the disk as one file, to a new repository of the version that compresses.
fn restic(disk: &Disk) -> Result<Cost> {
    let repository = disk.beside("restic");
    let cache = disk.beside("restic-cache");
    let restic = |arguments: &[&str]| {
        let mut restic = command("restic", &[&["--repo", text(&repository), "--quiet"], arguments].concat());
        restic.env("RESTIC_PASSWORD", "bench").env("RESTIC_CACHE_DIR", &cache);
        restic
    };
    crate::measure::quiet(restic(&["init", "--repository-version", "2"]))?;
    disk.warm()?;
    let mut backup = restic(&["backup", "--stdin", "--stdin-filename", "disk"]);
    backup.stdin(File::open(disk.path())?);
    let mut cost = run(backup)?.0;
    cost.wall += run(command("sync", &["--file-system", text(&repository)]))?.0.wall;
    [repository, cache].iter().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
    Ok(cost)
}

/// From the start of the agent, the others being there, to the verdict.
fn three(disk: &Disk, plan: &Plan, measured: &mut Measured) -> Result<Cost> {
    disk.warm()?;
    let mut three = Three::prepare(plan, &[disk.path()], "vhd", NEVER_MS)?;
    let before = three.usage();
    let start = three.start_agent();
    let (_, cycle) = three.wait_verified(1, 0)?.remove(0);
    let wall = (end_ms(&cycle)? - start) as f64 / 1000.0;
    let cost = three.add_usage(measured, "sluice", wall, before);
    measured.add("sluice: sent", "MiB", cycle.bytes_sent.0 as f64 / f64::from(1 << 20));
    Ok(cost)
}
