//! A source that is not there, or that can't be a source.

use sluice_e2e::{Format, Replicate};

#[test]
fn a_source_that_is_no_disk_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("none.img");
    let empty = folder.path().join("empty.img");
    std::fs::File::create_new(&empty).expect("an empty file");
    for source in [missing.as_path(), folder.path(), std::path::Path::new("/dev/null"), empty.as_path()] {
        let replicate = Replicate::new(source, Format::Raw, &[]);
        let ended = replicate.run();
        assert!(ended.code().is_some_and(|code| code != 0), "{}: {}", source.display(), ended.status);
        assert!(ended.stderr.contains(&source.display().to_string()), "{}: {}", source.display(), ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        assert!(!replicate.target().exists(), "{}: a target was made", source.display());
    }
}
