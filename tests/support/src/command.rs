//! Commands of the system that tests build on.

use std::fmt::Write as _;
use std::process::{Command, Output};

/// Runs a command that must succeed, and returns what it printed, trimmed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs a command, however it ends; panics only if it can't be started.
pub fn output(program: &str, arguments: &[&str]) -> Output {
    // Debian keeps tools for disks where a plain user's path does not lead.
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|e| panic!("{program} can't be run ({e}); `cargo xtask test` installs what tests need"))
}

/// How a command ended and what it printed, for a failure's message.
pub fn said(output: &Output) -> String {
    let mut text = output.status.to_string();
    for stream in [&output.stdout, &output.stderr] {
        let words = String::from_utf8_lossy(stream);
        if !words.trim().is_empty() {
            // Writing to a string can't fail.
            let _ = write!(text, "\n{}", words.trim());
        }
    }
    text
}

/// True as root. Otherwise says on stderr that `test` did not run: devices and mounts need root.
pub fn is_root(test: &str) -> bool {
    let root = run("id", &["-u"]) == "0";
    if !root {
        eprintln!("SKIPPED {test}: it makes devices and mounts them, which needs root");
    }
    root
}
