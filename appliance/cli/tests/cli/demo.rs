//! The demo, small: it must end well and leave nothing behind.

use crate::support::{folder, start};
use std::process::{Command, Stdio};

/// What a demo in `folder` ends with.
fn demo(folder: &std::path::Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args([&["demo", "--size", "128M", "--rounds", "3"], more].concat()).env("TMPDIR", folder);
    let output = command.stdin(Stdio::null()).output().expect("sluice runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn it_verifies_every_cycle_and_cleans_up() {
    let folder = folder();
    let (code, stdout, stderr) = demo(folder.path(), &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for word in ["initial", "delta", "final", "whole disks:", "all verified"] {
        assert!(stdout.contains(word), "{word}:\n{stdout}{stderr}");
    }
    assert!(stderr.contains("ebpf") || stderr.contains("scan"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    assert!(!mounts.contains(&folder.path().display().to_string()), "{mounts}");
}

#[test]
fn it_keeps_what_it_is_told_to_keep() {
    let folder = folder();
    let (code, stdout, stderr) = demo(folder.path(), &["--keep"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let kept = std::fs::read_dir(folder.path()).expect("the folder").next().expect("something kept").expect("an entry");
    assert!(stderr.contains(&kept.path().display().to_string()), "{stderr}");
    assert!(kept.path().join("disk.img").exists() && kept.path().join("targets").exists());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    use std::io::{BufRead, BufReader};
    // In the system's own folder: `start` sets no other. What it makes is named by what it says.
    let mut child = start(&["demo", "--size", "256M", "--rounds", "1000"]);
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let made =
        lines.find_map(|line| Some(line.strip_prefix("in ")?.split(' ').next()?.to_owned())).expect("its folder");
    lines.find(|line| line.starts_with("cycle 1")).expect("a cycle");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    lines.for_each(drop);
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert!(!std::path::Path::new(&made).exists(), "{made} is left");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    assert!(!mounts.contains(&made), "{mounts}");
    let pins = std::path::Path::new("/sys/fs/bpf").join(std::path::Path::new(&made).file_name().expect("a name"));
    assert!(!pins.exists(), "{} is left", pins.display());
}

#[test]
fn what_a_killed_demo_left_goes_with_the_next_one() {
    use std::io::{BufRead, BufReader};
    if !nix::unistd::geteuid().is_root() {
        eprintln!("what_a_killed_demo_left_goes_with_the_next_one: skipped, only root tracks a disk");
        return;
    }
    let folder = folder();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_sluice"));
    killed.args(["demo", "--size", "128M", "--rounds", "1000"]).env("TMPDIR", folder.path());
    let mut killed =
        killed.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(killed.stderr.take().expect("piped")).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("cycle 1")).expect("a cycle");
    let left =
        std::fs::read_dir(folder.path()).expect("the folder").flatten().map(|e| e.path()).next().expect("a demo");
    let pins = std::path::Path::new("/sys/fs/bpf").join(left.file_name().expect("a name"));
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    // Its parts end with it, but nobody takes its disk down.
    lines.for_each(drop);
    assert!(left.exists() && pins.exists());

    let (code, stdout, stderr) = demo(folder.path(), &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stderr.contains(&format!("what it left in {} was removed", left.display())), "{stderr}");
    assert!(!left.exists() && !pins.exists());
    let left = left.display().to_string();
    assert!(!std::fs::read_to_string("/proc/mounts").expect("the mounts").contains(&left));
    let devices = Command::new("losetup").arg("--list").output().expect("losetup").stdout;
    assert!(!String::from_utf8_lossy(&devices).contains(&left));
}
