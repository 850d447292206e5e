//! A source that grew, shrank or vanished since the last cycle.

use sluice_e2e::{Format, Replicate, assert_equal};
use std::fs::File;

#[test]
fn a_source_of_another_size_is_refused_and_the_target_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    let contents: Vec<u8> = (0..4_u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&source, &contents).expect("a source");
    let replicate = Replicate::new(&source, Format::Raw, &[]);
    replicate.must();
    let kept = std::fs::read(replicate.target()).expect("the target");

    for size in [5 << 20, 3 << 20] {
        File::options().write(true).open(&source).and_then(|file| file.set_len(size)).expect("another size");
        let ended = replicate.run();
        assert!(ended.code().is_some_and(|code| code != 0), "{size}: {}\n{}", ended.status, ended.stderr);
        let was = contents.len().to_string();
        assert!(ended.stderr.contains(&was) && ended.stderr.contains(&size.to_string()), "{}", ended.stderr);
    }
    std::fs::remove_file(&source).expect("the source goes");
    let ended = replicate.run();
    assert!(ended.code().is_some_and(|code| code != 0), "vanished: {}", ended.status);
    assert!(ended.stderr.contains("source.img"), "{}", ended.stderr);
    assert!(std::fs::read(replicate.target()).expect("the target") == kept, "the target holds the last verified cycle");

    // Nothing is lost: with its size back it goes on.
    std::fs::write(&source, &contents).expect("the source is back");
    replicate.must();
    assert_equal(&source, &replicate.target(), Format::Raw);
}
