//! The cache's disk is full: the agent waits, and goes on when there is room again.

use sluice_e2e::{Apart, Format, assert_equal};
use sluice_proto::cycle::State;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;
use sluice_test_support::mounts::SmallDisk;

#[test]
fn a_full_cache_holds_the_cycle_up_and_loses_nothing() {
    if !is_root("a_full_cache_holds_the_cycle_up_and_loses_nothing") {
        return;
    }
    let small = SmallDisk::new(64 << 20);
    let cache = format!("file://{}", small.path().display());
    let mut apart = Apart::prepare(|setup| setup.cache = Some(cache));
    let disk = apart.in_step();
    let filler = small.fill_but(6 << 20);
    apart.write(0, 16 << 20, 5);
    let cycle = apart.order(disk);
    let (_, from) = apart.cluster.part(Part::Agent).wait_stderr(0, |line| {
        let words = line.to_lowercase();
        (words.contains("no room") || words.contains("full") || words.contains("no space")).then_some(())
    });
    let view = apart.newest(disk);
    assert!(view.cycle.0 == cycle && matches!(view.state, State::Capturing | State::Shipping), "it waits: {view:?}");
    assert!(from > 0);
    std::fs::remove_file(filler).expect("room again");
    let done = apart.cluster.operator().wait_verified(disk, cycle - 1);
    assert_eq!(done.cycle.0, cycle, "the same cycle goes on: {done:?}");
    assert_equal(apart.source.path(), &apart.cluster.target(disk), Format::Vhd);
}

#[test]
fn a_first_copy_goes_through_a_cache_of_three_segments() {
    if !is_root("a_first_copy_goes_through_a_cache_of_three_segments") {
        return;
    }
    let small = SmallDisk::new(64 << 20);
    let cache = format!("file://{}", small.path().display());
    small.fill_but(14 << 20);
    let mut apart = Apart::prepare(|setup| setup.cache = Some(cache));
    apart.cluster.start_part(Part::Appliance);
    apart.cluster.operator().wait_ready();
    apart.cluster.start_part(Part::Agent);
    // Whichever segments are there when the store is full, the one that comes next gets its room.
    apart.cluster.part(Part::Agent).wait_stderr(0, |line| line.contains("cache store is full").then_some(()));
    apart.cluster.start_part(Part::Hydrator);
    let disk = apart.cluster.operator().only_disk();
    apart.cluster.operator().wait_verified(disk, 0);
    assert_equal(apart.source.path(), &apart.cluster.target(disk), Format::Vhd);
}
