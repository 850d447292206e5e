//! `sluice inspect` of every kind of file.

use crate::support::{Scene, end, sluice, start, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[test]
fn disk_images() {
    let scene = Scene::new(16 << 20);
    for (name, format, words) in [
        ("a.vhd", "vhd", "a fixed VHD"),
        ("b.vhd", "vhd-dynamic", "a dynamic VHD"),
        ("a.vhdx", "vhdx", "a fixed VHDX"),
        ("b.vhdx", "vhdx-dynamic", "a dynamic VHDX"),
    ] {
        let target = scene.at(name);
        scene.replicate(&target, &["--format", format]).must(0, &[]);
        sluice(&["inspect", text(&target)]).must(0, &[words, "16777216 bytes", "ok:"]);
    }
    let raw = scene.at("t.raw");
    scene.replicate(&raw, &[]).must(0, &[]);
    sluice(&["inspect", text(&raw)]).must(2, &["t.raw", "no marks"]);
    sluice(&["inspect", text(&scene.at("missing"))]).must(2, &["missing"]);
    sluice(&["inspect", text(scene.folder.path())]).must(2, &["folder"]);
}

#[test]
fn a_damaged_footer_is_wrong() {
    let scene = Scene::new(4 << 20);
    let target = scene.at("a.vhdx");
    scene.replicate(&target, &[]).must(0, &[]);
    let mut bytes = fs::read(&target).expect("the image");
    // Both headers and both region tables of a VHDX lie in its first MiB.
    bytes[64 << 10..1 << 20].fill(0xff);
    fs::write(&target, bytes).expect("damage");
    sluice(&["inspect", text(&target)]).must(1, &["WRONG"]);
}

/// A scene with a cycle that waits half-way, so that all files of a run are there.
fn half_way(cache: bool) -> (Scene, PathBuf) {
    let scene = Scene::new(32 << 20);
    let target = scene.at("t.vhd");
    scene.replicate(&target, &[]).must(0, &[]);
    (0..24).for_each(|mib| scene.scribble(mib << 20, 1 << 20));
    let store = if cache { scene.at("cache") } else { scene.at("t.vhd.sluice/cache") };
    let url = format!("file://{}", text(&store));
    let mut more = vec!["--limit", "8Mbit/s"];
    if cache {
        more.extend(["--cache", &url]);
    }
    let child = start(&scene.arguments(&target, &more));
    let limit = Instant::now() + Duration::from_secs(60);
    let log = scene.at("t.vhd.sluice/agent/segments.log");
    // Noted by the agent, so stored by the appliance. The log's header alone is 16 bytes.
    while fs::metadata(&log).map_or(0, |facts| facts.len()) <= 16 {
        assert!(Instant::now() < limit, "no segment was stored");
        std::thread::yield_now();
    }
    let process = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    // A run that is told to end leaves what is in its memory in the folder. Told twice, it does so at once.
    let signals: &[Signal] = if cache { &[Signal::SIGKILL] } else { &[Signal::SIGINT, Signal::SIGTERM] };
    signals.iter().for_each(|signal| kill(process, *signal).expect("it runs"));
    end(child);
    let segment = find(&store, ".seg").expect("a segment");
    (scene, segment)
}

fn find(folder: &Path, end: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if text(&path).ends_with(end) => return Some(path),
                false => {}
            }
        }
    }
    None
}

#[test]
fn segments_sealed_or_not() {
    for cache in [false, true] {
        let (_scene, segment) = half_way(cache);
        let suite = if cache { "AES-256-GCM" } else { "plain" };
        let ended = sluice(&["inspect", text(&segment)]);
        ended.must(0, &["a segment", suite, "cycle                  2", "its name is that of its contents", "BLAKE3"]);
        let whole = fs::read(&segment).expect("the segment");
        let wrong = |bytes: &[u8], words: &str| {
            fs::write(&segment, bytes).expect("damage");
            sluice(&["inspect", text(&segment)]).must(1, &["WRONG", words]);
        };
        wrong(&whole[..whole.len() / 2], "segment");
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        wrong(&flipped, "checksum");
        let mut newer = whole;
        newer[8] = 9;
        wrong(&newer, "version 9");
    }
}

#[test]
fn state_files_without_their_secrets() {
    let (scene, _segment) = half_way(false);
    let state = scene.at("t.vhd.sluice");
    let look = |name: &str, words: &[&str]| {
        let ended = sluice(&["inspect", text(&state.join(name))]);
        ended.must(0, words);
        ended.stdout
    };
    let shown = look("agent/disk.json", &["record of a disk", "generation", "(not shown)"]);
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("agent/disk.json")).expect("the record")).expect("JSON");
    let key = record["data_key"].as_str().expect("a key");
    assert!(!shown.contains(key), "the key is shown");
    look("agent/plan.json", &["plan of a running cycle", "delta"]);
    look("agent/plan.bitmap", &["sector bitmap", "sectors", "runs"]);
    look("agent/segments.log", &["a journal", "records"]);
    look("hydrator/ledger", &["ledger", "t.vhd", "verified", "cycle 1"]);
    look("appliance.db", &["SQLite"]);
    look("replicate.json", &["source.img"]);
    let shown = look("hydrator.key", &["hydrator's own key", "not shown"]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    look("signing.key", &["signing key"]);

    let ledger = state.join("hydrator/ledger");
    let mut bytes = fs::read(&ledger).expect("the ledger");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&ledger, bytes).expect("damage");
    sluice(&["inspect", text(&ledger)]).must(1, &["WRONG", "checksum"]);
}

#[test]
fn the_samples_of_the_protocol() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/samples");
    let Ok(entries) = fs::read_dir(&folder) else { panic!("{} is gone", folder.display()) };
    let mut kinds = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let bytes = fs::read(&path).expect("a sample");
        for (magic, words) in
            [(b"SLUICMAN", "a manifest"), (b"SLUICSEG", "a segment"), (b"SLUICDIG", "digests of a target")]
        {
            if bytes.starts_with(magic) {
                sluice(&["inspect", text(&path)]).must(0, &[words, "ok: header"]);
                kinds += 1;
            }
        }
    }
    assert!(kinds >= 3, "a sample of each object: {kinds}");
}
