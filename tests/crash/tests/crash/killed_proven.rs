//! Death between the proof, which the hydrator has noted, and its report, which the appliance has not heard.

use sluice_crash::Scene;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn killed_between_proof_and_report() {
    if !is_root("killed_between_proof_and_report") {
        return;
    }
    let mut scene = Scene::in_step("killed_between_proof_and_report");
    for part in Part::ALL {
        eprintln!("killing {part:?}");
        let cycle = scene.catch_applying();
        // The proof is noted while the appliance lives, as nothing is written without it; the report follows some flushes later.
        scene.wait_proven(cycle);
        scene.cluster().kill(Part::Appliance);
        let mut dead = vec![Part::Appliance];
        if part != Part::Appliance {
            scene.cluster().kill(part);
            dead.push(part);
        }
        scene.revive(&dead, cycle);
    }
}
