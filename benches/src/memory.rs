//! How much memory each process takes on a disk of 1 TiB, how much the kernel takes for the tracker, and whether any of
//! it grows.

use crate::bench::Plan;
use crate::churn::Churn;
use crate::disk::Disk;
use crate::measure::resident_mib;
use crate::report::{Measured, Side};
use crate::stats::{median, slope};
use crate::three::{Three, end_ms};
use anyhow::{Result, ensure};
use sluice_test_support::cluster::Part;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// The disk holds this many stretches of random bytes, spread over all of it.
const STRETCHES: u64 = 8;
/// What is written while growth is looked for, in bytes a second.
const CHURN: u64 = 4_000_000;
/// What is written at once, in bytes: many small pieces, as bitmaps with many runs are what takes memory.
const PIECE: usize = 16 << 10;
/// At so many places all over the disk, 2 GiB of it, so that an hour of churn has room.
const PLACES: u64 = 1 << 17;
/// What may be resident, in MiB.
const RESIDENT_MAX: [(Part, f64); 3] = [(Part::Appliance, 128.0), (Part::Hydrator, 128.0), (Part::Agent, 64.0)];
/// Between two looks while churn runs.
const LOOK: Duration = Duration::from_secs(2);
/// What may be added in an hour before it counts as growth, in MiB.
const GROWTH_MAX: f64 = 2.0;
const MIB: f64 = 1048576.0;

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let (size, data) = (plan.large_bytes(), plan.disk_bytes.min(plan.large_bytes() / 2));
    let disk = Disk::empty(plan, size)?;
    disk.past_the_cache();
    let stretch = (data / STRETCHES) & !0xf_ffff;
    for number in 0..STRETCHES {
        disk.fill(size / STRETCHES * number, stretch, number)?;
    }
    measured.note(format!(
        "a sparse disk of {} GiB with {} MiB of random bytes in {STRETCHES} places; three processes; a raw target",
        size >> 30,
        (stretch * STRETCHES) >> 20
    ));
    let mut three = Three::prepare(plan, &[disk.path()], "raw", 1000)?;
    let before = three.usage();
    let start = three.start_agent();
    let (_, cycle) = three.wait_verified(1, 0)?.remove(0);
    let wall = (end_ms(&cycle)? - start) as f64 / 1000.0;
    measured.add("first copy: wall", "s", wall);
    measured.add("first copy: read", "MB/s", size as f64 / 1e6 / wall);
    three.add_usage(measured, "first copy", wall, before);
    for (part, most) in RESIDENT_MAX {
        measured.promise("6", &format!("first copy, {}: peak memory", part.word()), Side::AtMost, most);
    }
    kernel(&three, size, measured);
    growth(plan, &mut three, &disk, measured)
}

/// What the kernel counts for the BPF maps that the agent holds: those are the tracker's.
fn kernel(three: &Three, size: u64, measured: &mut Measured) {
    let process = three.cluster().part(Part::Agent).id();
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field =
            |name: &str| -> Option<u64> { text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok() };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    let bytes: u64 = maps.values().sum();
    let promised = 64.0 + 2.0 * size as f64 / (1_u64 << 40) as f64;
    measured.add("kernel memory of the tracker's maps", "MiB", bytes as f64 / MIB);
    measured.promise("6", "kernel memory of the tracker's maps", Side::AtMost, promised);
    measured.note(format!("{} maps; promised are 64 MiB and 2 MiB per TiB: {promised:.1} MiB", maps.len()));
}

/// Cycles a second apart under churn: what is resident at the beginning and at the end.
fn growth(plan: &Plan, three: &mut Three, disk: &Disk, measured: &mut Measured) -> Result<()> {
    let seconds = plan.seconds(3600);
    let parts = Part::ALL.map(|part| (part, three.cluster().part(part).id()));
    let mut samples: [Vec<(f64, f64)>; 3] = Default::default();
    let mut next = Duration::ZERO;
    let end = plan.large_bytes();
    let places = PLACES.min(end / PIECE as u64);
    let churn = Churn { bytes_per_second: CHURN, piece: PIECE, end, places, seconds, seed: 11 };
    churn.write(disk.path(), |now| {
        if now < next {
            return Ok(());
        }
        next = now + LOOK.min(Duration::from_secs(seconds) / 20);
        three.all_run()?;
        for ((_, process), samples) in parts.iter().zip(&mut samples) {
            samples.extend(resident_mib(*process).map(|mib| (now.as_secs_f64(), mib)));
        }
        Ok(())
    })?;
    let cycles = three.newest(three.cluster().operator().only_disk())?.cycle.0;
    let mut lines = Vec::new();
    for ((part, _), samples) in parts.into_iter().zip(samples) {
        let quarter = samples.len() / 4;
        ensure!(quarter > 0, "the {} was hardly looked at", part.word());
        let middle = |part: &[(f64, f64)]| median(&part.iter().map(|(_, mib)| *mib).collect::<Vec<_>>());
        let (first, last) = (middle(&samples[..quarter]), middle(&samples[samples.len() - quarter..]));
        let who = format!("{seconds} s of churn, {}", part.word());
        measured.add(&format!("{who}: resident, first quarter"), "MiB", first);
        measured.add(&format!("{who}: resident, last quarter"), "MiB", last);
        measured.add(&format!("{who}: added from the first to the last quarter"), "MiB", last - first);
        measured.add(
            &format!("{who}: slope over its second half"),
            "MiB/h",
            slope(&samples[samples.len() / 2..]) * 3600.0,
        );
        measured.promise("6", &format!("{who}: added from the first to the last quarter"), Side::AtMost, GROWTH_MAX);
        lines.push((part.word(), samples));
    }
    measured.note(format!(
        "{cycles} cycles; churn of {} MB/s in pieces of 16 KiB at {places} places all over the disk",
        CHURN / 1_000_000
    ));
    measured.lines("memory", "Resident memory under churn, MiB", "MiB", lines, None);
    Ok(())
}
