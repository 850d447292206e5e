//! Death of each process while a cycle is written to the target.

use sluice_crash::Scene;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn killed_while_applying() {
    if !is_root("killed_while_applying") {
        return;
    }
    let mut scene = Scene::in_step("killed_while_applying");
    for part in Part::ALL {
        eprintln!("killing {part:?}");
        let cycle = scene.catch_applying();
        scene.cluster().kill(part);
        scene.revive(&[part], cycle);
    }
}
