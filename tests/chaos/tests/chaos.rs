//! Short rounds, as CI runs them: between them everything that there is happens.

use sluice_chaos::{Counts, Plan, Store};
use sluice_test_support::command::is_root;

/// Fixed, so that every run has the same faults; `cargo xtask chaos` draws others.
const SEED: u64 = 20_261_129;

#[test]
fn a_short_round_ends_with_equal_disks() {
    if let Some(counts) = short("a_short_round_ends_with_equal_disks", Store::Folder) {
        demand(&counts, &["full caches", "objects corrupted"]);
    }
}

#[test]
fn a_short_round_over_a_blob_service_ends_with_equal_disks() {
    if let Some(counts) = short("a_short_round_over_a_blob_service_ends_with_equal_disks", Store::Azurite) {
        demand(&counts, &["restarts of Azurite"]);
    }
}

fn short(test: &str, store: Store) -> Option<Counts> {
    if !is_root(test) {
        return None;
    }
    println!("seed {SEED}");
    let counts = sluice_chaos::run(&Plan::short(SEED, store));
    println!("{counts}");
    Some(counts)
}

/// Everything happened that can happen over any store, and this.
fn demand(counts: &Counts, besides: &[&str]) {
    let all = [
        "connections cut",
        "refusals",
        "stalls",
        "throttlings",
        "stops",
        "terminations",
        "full targets",
        "disks grown",
    ];
    for what in all.iter().chain(besides) {
        assert!(counts.of(what) > 0, "no {what}: {counts}");
    }
    assert!(counts.kills() >= 5, "too little happened: {counts}");
    assert!(counts.of("cycles verified") >= 4, "too little was proven: {counts}");
}
