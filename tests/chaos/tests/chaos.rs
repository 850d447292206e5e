//! A short round, as CI runs it.

use sluice_chaos::Plan;
use sluice_test_support::command::is_root;

/// Fixed, so that every run has the same faults; `cargo xtask chaos` draws others.
const SEED: u64 = 20_261_120;

#[test]
fn a_short_round_ends_with_equal_disks() {
    if !is_root("a_short_round_ends_with_equal_disks") {
        return;
    }
    println!("seed {SEED}");
    let counts = sluice_chaos::run(&Plan::short(SEED));
    println!("{counts}");
    assert!(counts.kills() >= 5, "too little happened: {counts}");
    assert!(counts.of("cycles verified") >= 4, "too little was proven: {counts}");
}
