//! kill -9 and Ctrl-C in the middle of a cycle: the next run goes on.

use crate::support::{Scene, end, sluice, start, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// At this rate 24 MiB take half a minute.
const SLOW: &str = "8Mbit/s";

/// Starts a slow first run and waits until two segments of it are applied: what waits in memory is lost with the process, and
/// that the first was applied is told before the second is noted.
fn in_the_middle(scene: &Scene, target: &Path) -> Child {
    let child = start(&scene.arguments(target, &["--json", "--limit", SLOW]));
    let ledger = scene.at("t.vhd.sluice/hydrator/ledger");
    let end = Instant::now() + Duration::from_secs(60);
    while !std::fs::read(&ledger).is_ok_and(|bytes| applied(&bytes) >= 2) {
        assert!(Instant::now() < end, "no two segments were applied");
        // sleep: another process writes the file.
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// How many segments are applied by this ledger: behind a head of 16 bytes it is JSON.
fn applied(ledger: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(ledger);
    let counts = text.split("\"segments\":").skip(1).map(|rest| rest.trim_start().split(|c: char| !c.is_ascii_digit()));
    counts.filter_map(|mut digits| digits.next()?.parse::<u64>().ok()).sum()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), signal).expect("it runs");
}

#[test]
fn after_a_kill_the_cycle_is_finished_and_another_follows() {
    let scene = Scene::new(32 << 20);
    let target = scene.at("t.vhd");
    let child = in_the_middle(&scene, &target);
    signal(&child, Signal::SIGKILL);
    assert_eq!(end(child).code, None);

    scene.scribble(1 << 20, 512);
    let ended = scene.replicate(&target, &["--json"]);
    ended.must(0, &[]);
    let cycles: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let kinds: Vec<_> = cycles.iter().map(|c| (c["cycle"].as_u64(), c["kind"].as_str())).collect();
    assert_eq!(kinds, [(Some(1), Some("initial")), (Some(2), Some("delta"))], "{}", ended.stdout);
    let read = cycles[0]["bytes_read"].as_u64().expect("a number");
    assert!(read < 32 << 20, "what was stored is not read again: {read}");
    sluice(&["verify", text(&scene.source), text(&target)]).must(0, &[]);
}

#[test]
fn a_signal_leaves_what_cannot_be_finished_and_says_so() {
    let scene = Scene::new(96 << 20);
    let target = scene.at("t.vhd");
    let child = in_the_middle(&scene, &target);
    signal(&child, Signal::SIGINT);
    signal(&child, Signal::SIGTERM);
    // Two signals at once may count as one; the grace is short in any case.
    end(child).must(3, &["cycle 1 is not finished"]);
    scene.replicate(&target, &[]).must(0, &["cycle 1 (initial", "verified"]);
    sluice(&["verify", text(&scene.source), text(&target)]).must(0, &[]);
}

#[test]
fn another_cache_is_refused_while_a_cycle_waits_in_the_first() {
    let scene = Scene::new(32 << 20);
    let target = scene.at("t.vhd");
    let child = in_the_middle(&scene, &target);
    signal(&child, Signal::SIGKILL);
    end(child);
    let url = format!("file://{}", text(&scene.at("cache")));
    scene.replicate(&target, &["--cache", &url]).must(2, &["no --cache", "not finished"]);
    scene.replicate(&target, &[]).must(0, &[]);
    scene.replicate(&target, &["--cache", &url]).must(0, &["verified"]);
}

#[test]
fn two_runs_at_once_are_one_too_many() {
    let scene = Scene::new(32 << 20);
    let target = scene.at("t.vhd");
    let first = in_the_middle(&scene, &target);
    scene.replicate(&target, &[]).must(2, &["t.vhd.sluice"]);
    signal(&first, Signal::SIGKILL);
    end(first);
}
