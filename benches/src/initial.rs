//! The first copy of a disk.

use crate::bench::Plan;
use crate::disk::{Disk, remove_target};
use crate::measure::{Cost, command, cpu_seconds, peak_mib, run, sluice_command};
use crate::report::{Measured, processors};
use crate::stages;
use anyhow::{Result, ensure};
use sluice_proto::cycle::State;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::devices::text;
use std::path::Path;
use std::time::Duration;

/// Adds the rows of one contender's run.
pub fn add(measured: &mut Measured, who: &str, cost: Cost) {
    measured.add(&format!("{who}: wall"), "s", cost.wall);
    measured.add(&format!("{who}: CPU"), "s", cost.cpu);
    measured.add(&format!("{who}: peak memory"), "MiB", cost.peak_mib);
}

/// One process to a fixed VHD, read back and with digests, and `qemu-img` to the same format, past the page cache too.
pub fn local(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    measured.note(format!("disk of {} MiB, an ext4 with Debian's /usr", plan.disk_bytes >> 20));
    let (target, peer) = (disk.beside("ours.vhd"), disk.beside("peer.vhd"));
    for _ in 0..plan.rounds {
        disk.warm()?;
        remove_target(&target);
        let (ours, _) = run(sluice_command(&["replicate", text(disk.path()), text(&target), "--json"]))?;
        remove_target(&target);
        drop(std::fs::remove_file(&peer));
        disk.warm()?;
        let convert = "convert -t none -T none -f raw -O vpc -o subformat=fixed,force_size";
        let theirs = qemu_img(convert, disk.path(), &peer)?;
        drop(std::fs::remove_file(&peer));
        add(measured, "sluice replicate", ours);
        add(measured, "qemu-img convert", theirs);
        measured.add("qemu-img's wall over sluice's", "x", theirs.wall / ours.wall);
    }
    Ok(())
}

fn qemu_img(arguments: &str, source: &Path, target: &Path) -> Result<Cost> {
    let mut words: Vec<&str> = arguments.split(' ').collect();
    words.extend([text(source), text(target)]);
    Ok(run(command("qemu-img", &words))?.0)
}

/// Three processes over TLS with zstd and AES-256-GCM to a fixed VHD that is read back, and `qemu-img` to a compressed
/// qcow2 that is on the disk at its end.
pub fn processes(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    measured.note(format!("disk of {} MiB, an ext4 with Debian's /usr", plan.disk_bytes >> 20));
    let peer = disk.beside("peer.qcow2");
    let stages = stages::of_disk(&disk, plan.disk_bytes)?;
    for _ in 0..plan.rounds {
        disk.warm()?;
        let ours = three(&disk, plan, measured)?;
        disk.warm()?;
        drop(std::fs::remove_file(&peer));
        let mut theirs = qemu_img("convert -c -f raw -O qcow2 -o compression_type=zstd", disk.path(), &peer)?;
        let (flushed, _) = run(command("sync", &["-d", text(&peer)]))?;
        theirs.wall += flushed.wall;
        add(measured, "qemu-img convert -c", theirs);
        measured.add("qemu-img's wall over sluice's", "x", theirs.wall / ours.wall);
        let bound = stages.total() / processors() as f64;
        measured.add("CPU bound (sum of stages over processors)", "s", bound);
        measured.add("wall over the CPU bound", "x", ours.wall / bound);
        measured.add("CPU over the sum of stages", "x", ours.cpu / stages.total());
    }
    Ok(())
}

/// From the start of the agent, the others being there, to the verdict.
fn three(disk: &Disk, plan: &Plan, measured: &mut Measured) -> Result<Cost> {
    let targets = tempfile::Builder::new().prefix("sluice-bench-").tempdir_in(&plan.folder)?;
    let mut setup = Setup::of(disk.path());
    setup.targets = Some(targets.path().to_owned());
    let mut cluster = Cluster::prepare(setup);
    cluster.start_part(Part::Appliance);
    cluster.operator().wait_ready();
    cluster.start_part(Part::Hydrator);
    let before = Part::ALL[..2].iter().filter_map(|part| cpu_seconds(cluster.part(*part).id())).sum::<f64>();
    let start = jiff::Timestamp::now().as_millisecond();
    cluster.start_part(Part::Agent);
    let id = cluster.operator().only_disk();
    let view = loop {
        // Seldom: whoever asks takes CPU time from what is measured.
        // sleep: waits for what another process does.
        std::thread::sleep(Duration::from_millis(100));
        let newest = cluster.operator().cycles(id).into_iter().find(|view| view.state.is_end());
        if let Some(view) = newest {
            break view;
        }
    };
    ensure!(view.state == State::Verified, "the initial cycle failed: {view:?}");
    let end = view.end_ms.map_or(start, |ms| ms as i64);
    let mut cost = Cost { wall: (end - start) as f64 / 1000.0, cpu: -before, peak_mib: 0.0 };
    for part in Part::ALL {
        let process = cluster.part(part).id();
        let peak = peak_mib(process).unwrap_or(0.0);
        let cpu = cpu_seconds(process).unwrap_or(0.0);
        measured.add(&format!("sluice {}: CPU", part.word()), "s", cpu);
        measured.add(&format!("sluice {}: peak memory", part.word()), "MiB", peak);
        cost.cpu += cpu;
        cost.peak_mib += peak;
    }
    add(measured, "sluice, three processes", cost);
    measured.add("sluice: sent", "MiB", view.bytes_sent.0 as f64 / f64::from(1 << 20));
    Ok(cost)
}
