//! The disk that the state lies on is full, at whatever it wants to write next.

use sluice_e2e::{Format, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::text;
use sluice_test_support::mounts::SmallDisk;
use sluice_test_support::program::Sluice;

/// Room that is left, in KiB: for no database, no disk's record, no segment's, or not for the agent's last note.
const ROOMS: [u64; 8] = [64, 96, 128, 160, 192, 224, 256, 320];

#[test]
fn a_full_state_ends_the_run_and_loses_nothing() {
    if !is_root("a_full_state_ends_the_run_and_loses_nothing") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    std::fs::write(&source, vec![0x5a; 8 << 20]).expect("a source");
    let mut refused = 0;
    for room in ROOMS {
        let small = SmallDisk::new(40 << 20);
        let filler = small.fill_but(room << 10);
        let state = small.path().join("state");
        let target = folder.path().join(format!("{room}.raw"));
        let arguments = ["replicate", text(&source), text(&target), "--json", "--state", text(&state)];
        let ended = Sluice::run(&arguments);
        if ended.code() != Some(0) {
            refused += 1;
            let words = ended.stderr.to_lowercase();
            assert!(words.contains("no room") || words.contains("no space"), "{room} KiB: {words}");
            assert!(words.contains("free some") || words.contains("make room"), "{room} KiB: {words}");
        }
        std::fs::remove_file(filler).expect("room again");
        let again = Sluice::run(&arguments);
        assert_eq!(again.code(), Some(0), "{room} KiB: with room again it goes on: {}", again.stderr);
        assert_equal(&source, &target, Format::Raw);
    }
    assert!(refused >= 3, "{refused} of {ROOMS:?} KiB were too little");
}
