//! Death of each process while a cycle is captured: its plan is durable, nothing of it is stored.

use sluice_crash::Scene;
use sluice_proto::cycle::State;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn killed_while_capturing() {
    if !is_root("killed_while_capturing") {
        return;
    }
    let mut scene = Scene::in_step("killed_while_capturing");
    for part in Part::ALL {
        eprintln!("killing {part:?}");
        // The first segment takes half a minute at this rate.
        scene.limit(Some("1Mbit/s"));
        let cycle = scene.order_cycle();
        scene.wait_state(cycle, State::Capturing);
        scene.cluster().kill(part);
        scene.revive(&[part], cycle);
    }
}
