//! Once the faults are over: the source at rest, progress, and equal disks.

use crate::plan::LINKS;
use crate::reasons::Happened;
use crate::scene::Scene;
use sluice_e2e::{Format, assert_equal};
use sluice_proto::DiskId;
use sluice_proto::cycle::{CycleKind, State};
use sluice_proto::disk::State as Phase;
use sluice_proto::wire::{CycleView, DiskView};
use sluice_test_support::cluster::Part;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest that nothing may change while something is waited for.
const STILL_MAX: Duration = Duration::from_secs(180);
/// The longest that it may take however much changes.
const PATIENCE: Duration = Duration::from_secs(420);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until both disks had their initial cycle verified.
pub fn in_step(scene: &mut Scene) {
    await_progress(scene, "both disks are in step", |views| views.iter().all(|view| view.phase == Phase::InStep));
}

/// Stops the writers, waits until all that they wrote is on the targets, and compares. Panics where they differ, or where a
/// cycle failed for what was not done.
pub fn demand_equal(scene: &mut Scene, format: Format) {
    scene.sources.iter_mut().for_each(crate::sources::Source::rest);
    let since = Instant::now();
    let operator = scene.cluster.operator();
    let views = operator.wait_disks(2);
    let disks: Vec<DiskId> = views.iter().map(|view| view.disk).collect();
    // A cycle that begins from here on ships all there is.
    let last: Vec<u64> = views.iter().map(|view| view.cycle.as_ref().map_or(0, |cycle| cycle.cycle.0)).collect();
    disks.iter().for_each(|disk| operator.sync_now(*disk));
    let later = |view: &DiskView| {
        let i = disks.iter().position(|disk| *disk == view.disk).expect("a known disk");
        view.cycle.as_ref().is_some_and(|cycle| cycle.cycle.0 > last[i] && cycle.state == State::Verified)
    };
    await_progress(scene, "a cycle of each disk at rest is verified", |views| views.iter().all(later));
    let settled = since.elapsed();
    disks.iter().for_each(|disk| scene.cluster.operator().order_final(*disk));
    await_progress(scene, "both disks are cut over", |views| views.iter().all(|view| view.phase == Phase::CutOver));
    println!("settled in {:.1} s, cut over in {:.1} s", settled.as_secs_f64(), since.elapsed().as_secs_f64());

    let mut unexplained = Vec::new();
    for view in &views {
        let source = match view.name.as_str() {
            "disk-0" => &scene.sources[0],
            _ => &scene.sources[1],
        };
        assert_equal(source.disk.path(), &scene.cluster.target(view.disk), format);
        let happened = Happened {
            disk: view.disk,
            name: view.name.clone(),
            sizes: source.sizes().to_vec(),
            flipped: scene.flipped.clone(),
            target_was_full: scene.counts.of("full targets") > 0,
        };
        unexplained.extend(count(scene, &happened));
    }
    assert!(unexplained.is_empty(), "cycles failed for what was not done:\n{}", unexplained.join("\n"));
    for (link, name) in scene.links.iter().zip(LINKS) {
        assert!(link.connections() > 0, "nothing came through the {name}: nothing could happen to it");
    }
    for part in [Part::Agent, Part::Hydrator, Part::Appliance] {
        assert!(scene.terminate(part), "{part:?} is not there to be ended");
    }
}

/// Waits until `done` holds of the disks. Panics if for long nothing changes, or a process ends by itself.
fn await_progress(scene: &mut Scene, what: &str, done: impl Fn(&[DiskView]) -> bool) {
    let start = Instant::now();
    // Of each disk by itself: that one gets on says nothing of the other.
    let mut seen: BTreeMap<DiskId, (Option<CycleView>, Instant)> = BTreeMap::new();
    loop {
        scene.watch();
        let views = scene.cluster.operator().wait_disks(2);
        if done(&views) {
            return;
        }
        let now = Instant::now();
        for view in views {
            let (last, since) = seen.entry(view.disk).or_insert((None, now));
            if *last != view.cycle {
                (*last, *since) = (view.cycle, now);
            }
            assert!(now - *since < STILL_MAX, "nothing changes for {STILL_MAX:?} until {what}: {last:#?}");
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}: {seen:#?}");
        // sleep: between two looks at the appliance
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Adds up how a disk's cycles ended. Gives those that failed though nothing that happened explains it, in words.
fn count(scene: &mut Scene, happened: &Happened) -> Vec<String> {
    let (disk, mut unexplained) = (happened.disk, Vec::new());
    for cycle in scene.cluster.operator().cycles(disk) {
        match (cycle.state, cycle.kind) {
            (State::Verified, CycleKind::Resync) => {
                println!("disk {disk}: cycle {} was a resync: {:?}", cycle.cycle, cycle.detail);
                scene.counts.add("resyncs verified", 1);
            }
            (State::Verified, _) => scene.counts.add("cycles verified", 1),
            _ => {
                let reason = cycle.reason.map_or("none", |reason| reason.as_str());
                let failed = format!("disk {disk}: cycle {} failed: {reason}: {:?}", cycle.cycle, cycle.detail);
                println!("{failed}");
                scene.counts.add("cycles failed", 1);
                if !happened.explains(cycle.cycle, cycle.reason, cycle.detail.as_deref().unwrap_or_default()) {
                    unexplained.push(format!("{failed}; all that was done: {happened:?}"));
                }
            }
        }
    }
    unexplained
}
