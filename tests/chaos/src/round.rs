//! A round: a scene, its faults one after another, then rest and the demand.

use crate::counts::Counts;
use crate::faults::{self, Drawn, Fault};
use crate::plan::Plan;
use crate::scene::Scene;
use crate::settle;
use sluice_crash::Noise;
use std::time::{Duration, Instant};

/// How often it is looked whether a process ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a fault is waited for that must happen, as what it befalls is dead, or not there yet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays it. Panics where a promise is broken: a difference between source and target, a panic, a process that ends by
/// itself, no progress once the faults are over.
pub fn run(plan: &Plan) -> Counts {
    println!("{plan:?}");
    let mut noise = Noise::seeded(plan.seed);
    let drawn = faults::draw(plan, &mut noise);
    let mut scene = Scene::build(plan, &mut noise);
    if !plan.early {
        settle::in_step(&mut scene);
    }
    happen(&mut scene, drawn);
    settle::demand_equal(&mut scene, plan.format);
    scene.counts.clone()
}

/// Lets faults happen, each beginning while earlier ones last; when this returns, all are over.
fn happen(scene: &mut Scene, drawn: Vec<Drawn>) {
    let start = Instant::now();
    let mut active: Vec<(Instant, Box<dyn Fault>)> = Vec::new();
    for Drawn { mut fault, lasts, gap, must } in drawn {
        let patience = Instant::now() + if must { PATIENCE } else { Duration::ZERO };
        let mut began = fault.begin(scene);
        while !began && Instant::now() < patience {
            pass(scene, &mut active, LOOK_EVERY);
            began = fault.begin(scene);
        }
        let at = start.elapsed().as_secs_f64();
        println!("{at:7.2} s  {fault}{}", if began { "" } else { " (can't be just now)" });
        if began {
            active.push((Instant::now() + lasts, fault));
        }
        pass(scene, &mut active, gap);
    }
    active.iter_mut().for_each(|(_, fault)| fault.end(scene));
}

/// Lets a while pass, in which faults end whose time is over.
fn pass(scene: &mut Scene, active: &mut Vec<(Instant, Box<dyn Fault>)>, length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        end_due(scene, active, Instant::now());
        scene.watch();
        // sleep: the gap between two faults is what the seed says
        std::thread::sleep(LOOK_EVERY);
    }
}

fn end_due(scene: &mut Scene, active: &mut Vec<(Instant, Box<dyn Fault>)>, now: Instant) {
    active.retain_mut(|(until, fault)| {
        let due = *until <= now;
        if due {
            fault.end(scene);
        }
        !due
    });
}
