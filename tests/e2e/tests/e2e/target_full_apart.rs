//! The target's disk is full: the cycle fails with that reason, and the next one brings what it could not.

use sluice_e2e::Apart;
use sluice_proto::cycle::{FailReason, State};
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
    let failed = apart.cluster.operator().wait_cycle(disk, "a cycle fails", |view| {
        assert_ne!(view.state, State::Verified, "24 MiB have no room in 10: {view:?}");
        (view.state == State::Failed).then(|| view.clone())
    });
    assert_eq!(failed.reason, Some(FailReason::TargetFull), "{failed:?}");
    std::fs::remove_file(filler).expect("room again");
    apart.cluster.operator().sync_now(disk);
    apart.cluster.operator().wait_verified_at_last(disk, failed.cycle.0);
    apart.mend(disk);
}
