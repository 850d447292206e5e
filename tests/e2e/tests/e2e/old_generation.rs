//! An agent of an older generation, such as one that was restored from a snapshot: whatever it asks is refused.

use sluice_e2e::Apart;
use sluice_proto::Generation;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;

#[test]
fn an_agent_with_an_old_generation_is_refused() {
    if !is_root("an_agent_with_an_old_generation_is_refused") {
        return;
    }
    let mut apart = Apart::prepare(|_| {});
    let disk = apart.in_step();
    let target = apart.cluster.target(disk);
    let before = std::fs::read(&target).expect("the target");
    let cycles = apart.cluster.operator().cycles(disk).len();

    // The disk's true agent lives elsewhere now, and has a newer generation.
    apart.cluster.take(Part::Agent).terminate();
    apart.cluster.register_newer_generation(disk, Generation(2));
    apart.write(4 << 20, 1 << 20, 7);
    apart.cluster.start_part(Part::Agent);
    let (line, _) = apart
        .cluster
        .part(Part::Agent)
        .wait_stderr(0, |line| (line.contains("ERROR") && line.contains(&disk.to_string())).then(|| line.to_owned()));
    assert!(line.contains("generation"), "it says why: {line}");
    assert_eq!(apart.cluster.operator().cycles(disk).len(), cycles, "no cycle was begun for it");
    assert!(std::fs::read(&target).expect("the target") == before, "the target was written to");
}
