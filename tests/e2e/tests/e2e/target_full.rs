//! No room left where the target, or the cache, lies.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::text;
use sluice_test_support::mounts::SmallDisk;
use sluice_test_support::program::{Ended, Sluice};

const BYTES: usize = 24 << 20;

#[test]
fn a_full_disk_fails_the_run_and_loses_nothing() {
    if !is_root("a_full_disk_fails_the_run_and_loses_nothing") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    let mut noise = vec![0; BYTES];
    let mut state = 1_u64;
    for chunk in noise.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    std::fs::write(&source, &noise).expect("a source");

    // The target's disk, with the state elsewhere; then all on one disk.
    let state = folder.path().join("state");
    let apart = ["--state", text(&state)];
    for (bytes, options) in [(40 << 20, &apart[..]), (80 << 20, &[])] {
        let small = SmallDisk::new(bytes);
        let filler = small.fill_but(8 << 20);
        let target = small.path().join("target.raw");
        let arguments = [&["replicate", text(&source), text(&target), "--json"], options].concat();
        assert_no_room(&Sluice::run(&arguments));
        std::fs::remove_file(filler).expect("room again");
        let again = Sluice::run(&arguments);
        assert_eq!(again.code(), Some(0), "with room again it goes on: {}", again.stderr);
        assert_equal(&source, &target, Format::Raw);
    }

    // Room for the target, but not for what waits to be applied as well: that lies in memory.
    let small = SmallDisk::new(48 << 20);
    let target = small.path().join("target.raw");
    let ended = Sluice::run(&["replicate", text(&source), text(&target), "--json"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_equal(&source, &target, Format::Raw);

    // The cache's disk: one segment of what can't be compressed does not fit.
    let small = SmallDisk::new(40 << 20);
    let filler = small.fill_but(2 << 20);
    let cache = format!("file://{}", text(small.path()));
    let replicate = Replicate::new(&source, Format::Vhd, &["--cache", &cache]);
    assert_no_room(&replicate.run());
    std::fs::remove_file(filler).expect("room again");
    replicate.must();
    assert_equal(&source, &replicate.target(), Format::Vhd);
}

/// It failed, and says why and what to do.
fn assert_no_room(ended: &Ended) {
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let words = format!("{}{}", ended.stdout, ended.stderr).to_lowercase();
    assert!(["room", "full", "no space"].iter().any(|word| words.contains(word)), "{words}");
}
