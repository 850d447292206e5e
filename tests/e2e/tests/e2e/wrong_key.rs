//! An agent that seals for another hydrator's key: the cycle fails with its reason, and no target is made of it.

use sluice_e2e::Apart;
use sluice_proto::cycle::{FailReason, State};
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;
use sluice_test_support::devices::text;
use sluice_test_support::program::Sluice;

#[test]
fn a_key_for_another_hydrator_is_told() {
    if !is_root("a_key_for_another_hydrator_is_told") {
        return;
    }
    let mut apart = Apart::prepare(|_| {});
    let folder = tempfile::tempdir().expect("a folder");
    let other = Sluice::must(&["hydrator", "init", "--dir", text(&folder.path().join("other"))]);
    let config = apart.cluster.config(Part::Agent);
    let lines = std::fs::read_to_string(&config).expect("the agent's configuration");
    let replaced: String = lines
        .lines()
        .map(|line| match line.starts_with("hydrator_key") {
            true => format!("hydrator_key = \"{}\"\n", other.stdout.trim()),
            false => format!("{line}\n"),
        })
        .collect();
    assert_ne!(replaced, lines);
    std::fs::write(&config, replaced).expect("written");

    let disk = apart.start();
    let failed = apart
        .cluster
        .operator()
        .wait_cycle(disk, "the cycle fails", |view| (view.state == State::Failed).then(|| view.clone()));
    assert_eq!(failed.reason, Some(FailReason::WrongKey), "{failed:?}");
    let detail = failed.detail.unwrap_or_default();
    assert!(detail.contains("key"), "it says what to do: {detail}");
    let images = std::fs::read_dir(apart.cluster.targets()).expect("the targets' folder").flatten();
    let images: Vec<_> = images.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).collect();
    assert!(images.is_empty(), "a target was made: {images:?}");
}
