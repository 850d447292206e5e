//! Death of each process while segments are shipped: the cycle goes on at the last one that is stored.

use sluice_crash::Scene;
use sluice_proto::cycle::State;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn killed_while_shipping() {
    if !is_root("killed_while_shipping") {
        return;
    }
    let mut scene = Scene::in_step("killed_while_shipping");
    for part in Part::ALL {
        eprintln!("killing {part:?}");
        scene.limit(Some("64Mbit/s"));
        let cycle = scene.order_cycle();
        scene.wait_state(cycle, State::Shipping);
        scene.cluster().kill(part);
        scene.revive(&[part], cycle);
        let disk = scene.disk();
        let views = scene.cluster().operator().cycles(disk);
        let view = views.iter().find(|view| view.cycle.0 == cycle).expect("the cycle is remembered");
        // What doesn't compress: 48 MiB. Of what was under way when it died a few segments may come twice, not all.
        assert!(view.bytes_sent.0 < (48 << 20) + (24 << 20), "began again at 0 %: {view:?}");
    }
}
