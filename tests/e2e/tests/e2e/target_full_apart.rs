//! The target's disk is full: the cycle fails with that reason, and the next one brings what it could not.

use sluice_e2e::Apart;
use sluice_proto::cycle::{FailReason, State};
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;
use sluice_test_support::mounts::SmallDisk;

#[test]
fn a_full_target_fails_the_cycle_and_loses_nothing() {
    if !is_root("a_full_target_fails_the_cycle_and_loses_nothing") {
        return;
    }
    let small = SmallDisk::new(64 << 20);
    let filler = small.fill_but(10 << 20);
    let mut apart = Apart::prepare(|setup| setup.targets = Some(small.path().to_owned()));
    let disk = apart.start();
    // The hydrator's state lies beside the target: where that meets the full disk first, it waits for room. Which does is chance.
    let hydrator = apart.cluster.part(Part::Hydrator);
    let full = apart.cluster.operator().wait_cycle(disk, "a cycle fails, or waits for room", |view| {
        assert_ne!(view.state, State::Verified, "24 MiB have no room in 10: {view:?}");
        let waits = hydrator.tail().contains("can't go on without its state");
        (view.state == State::Failed || waits).then(|| view.clone())
    });
    assert!(full.state != State::Failed || full.reason == Some(FailReason::TargetFull), "{full:?}");
    std::fs::remove_file(filler).expect("room again");
    apart.cluster.operator().sync_now(disk);
    apart.cluster.operator().wait_verified_at_last(disk, full.cycle.0);
    apart.mend(disk);
}
