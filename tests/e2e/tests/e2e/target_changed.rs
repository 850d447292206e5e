//! A target that somebody wrote to: noticed, and mended by comparing.

use sluice_e2e::{Format, Replicate, assert_equal};
use sluice_test_support::devices::text;
use sluice_test_support::program::Sluice;
use std::fs::File;
use std::os::unix::fs::FileExt;

#[test]
fn a_target_that_somebody_changed_is_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    let contents: Vec<u8> = (0..16_u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&source, &contents).expect("a source");
    for format in [Format::Raw, Format::Vhd] {
        let replicate = Replicate::new(&source, format, &[]);
        replicate.must();

        let target = File::options().write(true).open(replicate.target()).expect("the target");
        target.write_all_at(b"somebody was here", 5_000_000).expect("somebody writes");
        drop(target);
        let verify = Sluice::run(&["verify", text(&source), text(&replicate.target()), "--json"]);
        assert_eq!(verify.code(), Some(1), "different: {}{}", verify.stdout, verify.stderr);

        // The cycle that finds it may fail, and says so; it is told apart from success, and the next one mends it.
        let found = replicate.run();
        let words = format!("{}{}", found.stdout, found.stderr);
        assert!(words.contains("changed"), "{format:?}: it is told what happened: {words}");
        if !found.status.success() {
            let mended = replicate.must();
            assert!(mended.iter().all(|cycle| cycle.dirty_sectors <= 256), "only what differs is shipped: {mended:?}");
        }
        assert_equal(&source, &replicate.target(), format);
    }
}
