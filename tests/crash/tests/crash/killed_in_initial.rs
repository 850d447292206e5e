//! Death of each process in the middle of the initial cycle, whose segments are applied as they arrive.

use sluice_crash::Scene;
use sluice_proto::cycle::{CycleKind, State};
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn killed_in_the_initial_cycle() {
    if !is_root("killed_in_the_initial_cycle") {
        return;
    }
    let mut scene = Scene::begin("killed_in_the_initial_cycle", Some("64Mbit/s"));
    let disk = scene.disk();
    for (part, megabytes) in Part::ALL.into_iter().zip([8, 20, 32]) {
        eprintln!("killing {part:?}");
        let what = format!("{megabytes} MiB of the initial cycle are stored");
        scene.cluster().operator().wait_cycle(disk, &what, |view| {
            assert!(view.cycle.0 == 1 && !view.state.is_end(), "passed by: {view:?}");
            (view.state == State::Shipping && view.sectors_stored.0 >= megabytes << 11).then_some(())
        });
        scene.cluster().kill(part);
        scene.cluster().start_part(part);
    }
    scene.limit(None);
    let initial = scene.cluster().operator().wait_verified(disk, 0);
    assert_eq!((initial.cycle.0, initial.kind), (1, CycleKind::Initial), "{initial:?}");
    assert!(initial.bytes_sent.0 < (64 << 20) + (40 << 20), "began again at 0 %: {initial:?}");
    scene.cluster().operator().wait_verified(disk, 1);
    scene.judge();
}
