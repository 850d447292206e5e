//! A key that no program knows: nothing is started, and the key is named.

use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::devices::text;
use sluice_test_support::program::Sluice;

#[test]
fn unknown_keys_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    std::fs::write(&source, vec![1; 1 << 20]).expect("a source");
    let cluster = Cluster::prepare(Setup { sources: vec![(source, "scan")], ..Setup::of(folder.path()) });
    for part in Part::ALL {
        let config = cluster.config(part);
        let good = std::fs::read_to_string(&config).expect("a configuration");
        let wrong = config.with_extension("wrong.toml");
        std::fs::write(&wrong, format!("thruttle = 5\n{good}")).expect("written");
        let ended = Sluice::run(&[part.word(), "run", "--config", text(&wrong)]);
        assert_eq!(ended.code(), Some(2), "{part:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("thruttle") && ended.stderr.contains(text(&wrong)), "{part:?}: {}", ended.stderr);
    }
}
