//! Other BPF programs on the same tracepoints: a second agent with the same disk, and its own, which comes and goes.

use sluice_e2e::{Apart, Format, assert_equal};
use sluice_machine::assert_delta;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;

#[test]
fn a_second_tracker_of_the_same_disk_takes_nothing_from_the_first() {
    if !is_root("a_second_tracker_of_the_same_disk_takes_nothing_from_the_first") {
        return;
    }
    let mut first = Apart::prepare(|_| {});
    let disk = first.in_step();
    let folder = tempfile::tempdir().expect("a folder");
    let own = Loop::new(folder.path(), "own", 8 << 20, 512);
    let shared = first.source.path().to_owned();
    let mut second = Apart::prepare(|setup| {
        setup.sources = vec![(shared.clone(), "ebpf"), (own.path().to_owned(), "ebpf")];
    });
    second.cluster.start_part(Part::Appliance);
    second.cluster.operator().wait_ready();
    second.cluster.operator().set_policy(sluice_e2e::NEVER_MS, None);
    second.cluster.start_part(Part::Hydrator);
    second.cluster.start_part(Part::Agent);
    let views = second.cluster.operator().wait_disks(2);
    let same = views.iter().find(|view| view.size.0 == Apart::BYTES).expect("the shared disk").disk;
    second.cluster.operator().wait_verified(same, 1);

    // Both see the same writes, each for itself.
    for round in 0..3 {
        first.write(round << 20, 300_000, 7 + round);
        let sectors = 300_000_u64.div_ceil(512) + 8;
        assert_delta(&first.mend(disk), sectors);
        if round == 1 {
            // The writes of two rounds.
            let last = second.newest(same).cycle.0;
            second.cluster.operator().sync_now(same);
            assert_delta(&second.cluster.operator().wait_verified(same, last), 2 * sectors);
            assert_equal(&shared, &second.cluster.target(same), Format::Vhd);
        }
    }
    // With the other's programs gone, the first one's are still there.
    drop(second);
    first.write(20 << 20, 70_000, 11);
    assert_delta(&first.mend(disk), 70_000_u64.div_ceil(512) + 8);
}
