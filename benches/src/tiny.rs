//! Every bench, tiny: that it runs. Speed is not judged here: tests run in another profile, and beside others.

use crate::bench::{Bench, Plan};
use crate::plot;
use sluice_test_support::command::is_root;

/// What cannot be told from a run so short that nothing is reached may be missing, but nothing else.
#[test]
fn every_bench_runs() {
    if !is_root("every_bench_runs") {
        return;
    }
    crate::peers::install().expect("peers");
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    for bench in Bench::ALL {
        if bench == Bench::DmEra && !crate::guest::can_boot() {
            eprintln!("SKIPPED {bench}: `cargo xtask test` builds the guest that it needs");
            continue;
        }
        let measured = bench.run(&Plan::tiny(folder.path().to_owned())).unwrap_or_else(|e| panic!("{bench}: {e:#}"));
        println!("{measured}");
        assert!(!measured.rows.is_empty(), "{bench} measures something");
        // Stages are measured within this process.
        assert!(!measured.commands.is_empty() || bench == Bench::Stages, "{bench} tells what it ran");
        let good = |value: &f64| value.is_finite();
        assert!(measured.rows.iter().all(|row| row.values.iter().all(good)), "{measured}");
        for promise in &measured.promises {
            assert!(measured.row(&promise.row).is_some(), "{bench} measures what was promised: {}", promise.row);
        }
        for plot in &measured.plots {
            let drawn = plot::svg(&measured, plot).unwrap_or_else(|| panic!("{bench}: {} is empty", plot.name));
            assert!(drawn.starts_with("<svg"), "{drawn}");
        }
    }
}
