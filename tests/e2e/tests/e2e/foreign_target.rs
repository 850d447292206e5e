//! A target that exists and is not ours is taken with `--yes` only.

use sluice_e2e::{Format, Replicate, assert_equal};

#[test]
fn a_target_that_is_not_ours_is_not_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    std::fs::write(&source, vec![3; 2 << 20]).expect("a source");
    let replicate = Replicate::new(&source, Format::Vhd, &[]);
    let photos = vec![9; 3 << 20];
    std::fs::write(replicate.target(), &photos).expect("somebody's file");

    let refused = replicate.run();
    assert!(refused.code().is_some_and(|code| code != 0), "{}", refused.status);
    assert!(refused.stderr.contains("--yes") && refused.stderr.contains("target.vhd"), "{}", refused.stderr);
    assert!(std::fs::read(replicate.target()).expect("somebody's file") == photos, "somebody's file is as it was");

    let taken = replicate.start(&["--yes"]).end();
    assert_eq!(taken.code(), Some(0), "{}", taken.stderr);
    assert_equal(&source, &replicate.target(), Format::Vhd);
    // From now on it is ours.
    replicate.must();
}
