//! Bad input: refused before anything is made, with what happened and what to do.

use crate::support::{Scene, folder, sluice, text};
use std::fs::{self, File};

#[test]
fn a_source_that_is_none() {
    let folder = folder();
    let target = folder.path().join("t.vhd");
    let empty = folder.path().join("empty.img");
    File::create(&empty).expect("an empty file");
    let cases = [("missing.img", "missing.img"), ("", "sluice-test-"), ("empty.img", "nothing to copy")];
    for (name, words) in cases {
        let source = folder.path().join(name);
        sluice(&["replicate", text(&source), text(&target)]).must(2, &[words]);
    }
    sluice(&["replicate", "/dev/null", text(&target)]).must(2, &["/dev/null"]);
    assert!(!target.exists() && !folder.path().join("t.vhd.sluice").exists(), "nothing was made");
}

#[test]
fn a_target_that_is_not_ours() {
    let scene = Scene::new(2 << 20);
    let target = scene.at("t.vhd");
    fs::write(&target, b"photos").expect("somebody's file");
    scene.replicate(&target, &[]).must(2, &["t.vhd", "--yes"]);
    assert_eq!(fs::read(&target).expect("it is there"), b"photos");
    scene.replicate(&target, &["--yes"]).must(0, &["verified"]);
    scene.replicate(&target, &[]).must(0, &["verified"]);
}

#[test]
fn a_target_on_its_source() {
    let scene = Scene::new(2 << 20);
    let before = fs::read(&scene.source).expect("the source");
    scene.replicate(&scene.source, &["--yes"]).must(2, &["lies on the source"]);
    let link = scene.at("link.raw");
    std::os::unix::fs::symlink(&scene.source, &link).expect("a link");
    scene.replicate(&link, &["--yes"]).must(2, &["lies on the source"]);
    assert!(fs::read(&scene.source).expect("the source") == before);
}

#[test]
fn a_format_that_cannot_be_told_or_cannot_hold_it() {
    let scene = Scene::new(1 << 20);
    scene.replicate(&scene.at("target"), &[]).must(2, &["--format"]);
    let sized = |gib: u64| File::options().write(true).open(&scene.source).and_then(|f| f.set_len(gib << 30)).is_ok();
    if sized(2041) {
        for format in ["vhd", "vhd-dynamic"] {
            scene.replicate(&scene.at("t.vhd"), &["--format", format]).must(2, &["2040", "vhdx"]);
        }
    }
    if sized((64 << 10) + 1) {
        scene.replicate(&scene.at("t.raw"), &[]).must(2, &["64 TiB"]);
    }
    assert!(!scene.at("t.vhd").exists() && !scene.at("t.raw").exists());
}

#[test]
fn a_source_that_shrank_or_is_gone() {
    let scene = Scene::new(4 << 20);
    let target = scene.at("t.raw");
    scene.replicate(&target, &[]).must(0, &[]);
    let kept = fs::read(&target).expect("the target");
    let sized = File::options().write(true).open(&scene.source).and_then(|f| f.set_len(3 << 20));
    sized.expect("another size");
    scene.replicate(&target, &[]).must(2, &["3145728", "4194304"]);
    fs::remove_file(&scene.source).expect("the source goes");
    scene.replicate(&target, &[]).must(2, &["source.img"]);
    assert!(fs::read(&target).expect("the target") == kept);
}

#[test]
fn a_source_that_is_not_the_one_of_the_last_run() {
    let scene = Scene::new(2 << 20);
    let target = scene.at("t.raw");
    scene.replicate(&target, &[]).must(0, &[]);
    let other = scene.at("other.img");
    fs::copy(&scene.source, &other).expect("another source");
    let arguments = ["replicate", text(&other), text(&target), "--tracker", "scan"];
    sluice(&arguments).must(2, &["source.img", "other.img", "--yes"]);
    sluice(&[&arguments[..], &["--yes"]].concat()).must(0, &["verified"]);
    sluice(&["verify", text(&other), text(&target)]).must(0, &[]);
}

#[test]
fn a_target_of_another_format_than_it_was_made_in() {
    let scene = Scene::new(2 << 20);
    let target = scene.at("t.vhd");
    scene.replicate(&target, &[]).must(0, &[]);
    let ended = scene.replicate(&target, &["--format", "vhdx"]);
    assert!(ended.code.is_some_and(|code| code == 1 || code == 2), "{:?}\n{}", ended.code, ended.stderr);
    assert!(ended.stderr.contains("vhdx"), "{}", ended.stderr);
    scene.replicate(&target, &[]).must(0, &["verified"]);
}

#[test]
fn a_tracker_a_cache_or_a_state_that_cannot_be_had() {
    let scene = Scene::new(1 << 20);
    let target = scene.at("t.vhd");
    sluice(&["replicate", text(&scene.source), text(&target), "--tracker", "ebpf"]).must(2, &["block device", "scan"]);
    scene.replicate(&target, &["--cache", "ftp://somewhere"]).must(2, &["--cache", "ftp"]);
    scene.replicate(&target, &["--cache", "/a/folder"]).must(2, &["file:///"]);
    scene.replicate(&target, &["--min-interval", "5m", "--max-interval", "1m"]).must(2, &["--max-interval"]);
    scene.replicate(&target, &["--state", text(&scene.source)]).must(2, &["source.img"]);
    // Without its write-ahead log, from which SQLite would put the pages right again.
    for log in ["t.vhd.sluice/appliance.db-wal", "t.vhd.sluice/appliance.db-shm"] {
        drop(fs::remove_file(scene.at(log)));
    }
    fs::write(scene.at("t.vhd.sluice/appliance.db"), b"not a database, and longer than its header".repeat(40))
        .expect("damage");
    scene.replicate(&target, &[]).must(2, &["appliance.db"]);
}
