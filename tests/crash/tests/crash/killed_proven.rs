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
        // Without an appliance nobody hears the report.
        scene.cluster().kill(Part::Appliance);
        scene.wait_proven(cycle);
        let mut dead = vec![Part::Appliance];
        if part != Part::Appliance {
            scene.cluster().kill(part);
            dead.push(part);
        }
        scene.revive(&dead, cycle);
    }
}
