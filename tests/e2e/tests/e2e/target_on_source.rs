//! A target that lies on its own source would eat itself.

use sluice_test_support::command::is_root;
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::mounts::{FileSystem, Mount};
use sluice_test_support::program::Sluice;
use std::path::Path;

#[test]
fn a_target_on_its_source_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    std::fs::write(&source, vec![7; 1 << 20]).expect("a source");
    let link = folder.path().join("link.raw");
    std::os::unix::fs::symlink(&source, &link).expect("a link");
    let hard = folder.path().join("hard.raw");
    std::fs::hard_link(&source, &hard).expect("a hard link");
    for target in [&source, &link, &hard] {
        assert_refused(&source, target);
    }
    assert!(std::fs::read(&source).expect("the source") == vec![7; 1 << 20], "the source is as it was");
    if !is_root("a_target_on_its_source_is_refused") {
        return;
    }
    let mut disk = Loop::new(folder.path(), "disk", 64 << 20, 512);
    let partition = disk.add_partition(2048, 48 << 11);
    let mount = Mount::format(&partition, FileSystem::Ext4);
    assert_refused(&partition, &mount.path().join("target.raw"));
    assert_refused(disk.path(), &mount.path().join("target.raw"));
    assert_refused(disk.path(), &partition);
    assert_refused(&partition, disk.path());
    assert_refused(disk.path(), disk.backing());
    assert_refused(disk.backing(), disk.path());
    assert!(!mount.path().join("target.raw").exists(), "a target was made");
}

fn assert_refused(source: &Path, target: &Path) {
    let arguments =
        ["replicate", text(source), text(target), "--format", "raw", "--tracker", "scan", "--yes", "--json"];
    let ended = Sluice::run(&arguments);
    let what = format!("{} to {}: {}\n{}", source.display(), target.display(), ended.status, ended.stderr);
    assert!(ended.code().is_some_and(|code| code != 0), "{what}");
    assert!(ended.stderr.contains(text(target)) && ended.stderr.contains("source"), "{what}");
}
