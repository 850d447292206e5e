//! Death of each process once a cycle is committed and before any hydrator has looked at it.

use sluice_crash::Scene;
use sluice_proto::cycle::State;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn killed_once_committed() {
    if !is_root("killed_once_committed") {
        return;
    }
    let mut scene = Scene::in_step("killed_once_committed");
    for part in Part::ALL {
        eprintln!("killing {part:?}");
        scene.cluster().part(Part::Hydrator).signal("STOP");
        let cycle = scene.order_cycle();
        scene.wait_state(cycle, State::Committed);
        scene.cluster().kill(part);
        if part != Part::Hydrator {
            scene.cluster().part(Part::Hydrator).signal("CONT");
        }
        scene.revive(&[part], cycle);
    }
}
