//! `sluice replicate` of image files, compared by reading them.

use crate::support::{Scene, end, sluice, start, text};
use std::io::{BufRead, BufReader};

const FIELDS: [&str; 13] = [
    "cycle",
    "kind",
    "tracker",
    "consistency",
    "dirty_sectors",
    "bytes_read",
    "bytes_sent",
    "seconds",
    "bitmaps_equal",
    "source_digest",
    "target_digest",
    "verified",
    "error",
];

/// The names of an object's fields, in the order in which they stand in the text.
fn names(line: &str) -> Vec<String> {
    let mut found: Vec<(usize, &str)> =
        FIELDS.iter().filter_map(|name| Some((line.find(&format!("\"{name}\":"))?, *name))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name.to_owned()).collect()
}

#[test]
fn the_first_run_copies_and_the_second_ships_what_changed() {
    for (name, more) in [
        ("t.raw", &[][..]),
        ("t.vhd", &[]),
        ("t.vhdx", &[]),
        ("d.vhd", &["--format", "vhd-dynamic"]),
        ("d.vhdx", &["--format", "vhdx-dynamic"]),
    ] {
        let scene = Scene::new(24 << 20);
        let target = scene.at(name);
        let more = [&["--json"], more].concat();
        let first = scene.replicate(&target, &more);
        let json = first.must(0, &[]).json();
        assert_eq!(names(first.stdout.trim()), FIELDS, "{}", first.stdout);
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(FIELDS.len()));
        assert_eq!((&json["cycle"], &json["kind"], &json["tracker"]), (&1.into(), &"initial".into(), &"scan".into()));
        assert_eq!((&json["verified"], &json["error"]), (&true.into(), &serde_json::Value::Null), "{json}");
        assert_eq!((&json["dirty_sectors"], &json["bitmaps_equal"]), (&((24 << 20) / 512).into(), &true.into()));
        assert_eq!(json["source_digest"], json["target_digest"]);
        assert!(json["bytes_read"].as_u64() >= Some(18 << 20) && json["bytes_sent"].as_u64() > Some(0), "{json}");

        scene.scribble(5 << 20, 700);
        let second = scene.replicate(&target, &more);
        let json = second.must(0, &[]).json();
        assert_eq!((&json["cycle"], &json["kind"], &json["verified"]), (&2.into(), &"delta".into(), &true.into()));
        assert_eq!(json["dirty_sectors"], 128, "one grain holds the change: {json}");
        sluice(&["verify", text(&scene.source), text(&target)]).must(0, &["equal"]);
    }
}

#[test]
fn people_are_told_on_stderr_alone() {
    let scene = Scene::new(2 << 20);
    let ended = scene.replicate(&scene.at("t.vhd"), &[]);
    ended.must(0, &[]);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("cycle 1 (initial, scan") && ended.stderr.contains("verified"), "{}", ended.stderr);
}

#[test]
fn state_and_cache_go_where_they_are_told_to() {
    let scene = Scene::new(4 << 20);
    let (target, state, cache) = (scene.at("t.raw"), scene.at("elsewhere"), scene.at("cache"));
    let url = format!("file://{}", text(&cache));
    let more = ["--state", text(&state), "--cache", &url, "--json"];
    scene.replicate(&target, &more).must(0, &[]);
    assert!(!scene.at("t.raw.sluice").exists() && state.join("appliance.db").exists());
    assert!(cache.exists() && !state.join("cache").exists());
    scene.scribble(0, 4096);
    assert_eq!(scene.replicate(&target, &more).must(0, &[]).json()["kind"], "delta");
    // With nothing under way the cache may change.
    scene.scribble(8192, 4096);
    let json = scene.replicate(&target, &["--state", text(&state), "--json"]).must(0, &[]).json();
    assert_eq!((&json["kind"], &json["verified"]), (&"delta".into(), &true.into()), "{json}");
    sluice(&["verify", text(&scene.source), text(&target)]).must(0, &[]);
}

#[test]
fn following_goes_on_in_cycles_until_it_is_told_to_end() {
    let scene = Scene::new(4 << 20);
    let target = scene.at("t.vhd");
    let more = ["--json", "--follow", "--min-interval", "1s", "--max-interval", "1s"];
    let mut child = start(&scene.arguments(&target, &more));
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for cycle in 1..=3 {
        let line = lines.next().expect("a cycle").expect("a line");
        let json: serde_json::Value = serde_json::from_str(&line).expect("an object");
        assert_eq!((&json["cycle"], &json["verified"]), (&cycle.into(), &true.into()), "{line}");
        scene.scribble(cycle * 65536, 100);
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    // Read to the end, so that it never writes to a closed pipe.
    lines.for_each(drop);
    end(child).must(0, &[]);
    scene.replicate(&target, &[]).must(0, &["verified"]);
    sluice(&["verify", text(&scene.source), text(&target)]).must(0, &[]);
}

#[test]
fn a_changed_target_is_told_and_mended_in_the_same_run() {
    let scene = Scene::new(8 << 20);
    let target = scene.at("t.raw");
    scene.replicate(&target, &[]).must(0, &[]);
    let file = std::fs::File::options().write(true).open(&target).expect("the target");
    std::os::unix::fs::FileExt::write_all_at(&file, b"somebody", 3 << 20).expect("written");
    drop(file);
    let ended = scene.replicate(&target, &["--json"]);
    ended.must(0, &["changed"]);
    let last: serde_json::Value = serde_json::from_str(ended.stdout.lines().last().expect("a cycle")).expect("JSON");
    assert_eq!((&last["kind"], &last["verified"]), (&"resync".into(), &true.into()), "{}", ended.stdout);
    sluice(&["verify", text(&scene.source), text(&target)]).must(0, &[]);
}
