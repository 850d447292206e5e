//! Runs a command, shows its output as it comes, and adds up the test results in it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::processes;

/// Tests that passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
}

/// What a command came to.
pub struct Outcome {
    /// Test results found in its output; a command that failed has at least one failure.
    pub tally: Tally,
    /// How long it ran.
    pub took: Duration,
}

/// Runs `command` for `limit` at most, then ends it and everything that it left running.
pub fn tee(command: &mut Command, limit: Duration) -> Result<Outcome> {
    use std::os::unix::process::CommandExt;
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child =
        processes::unblocked(|| command.spawn())?.with_context(|| format!("`{name}` could not be started"))?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let stdout = child.stdout.take().context("the command has no output")?;
    let stderr = child.stderr.take().context("the command has no error output")?;
    let out = thread::spawn(move || copy(stdout, std::io::stdout()));
    let err = thread::spawn(move || copy(stderr, std::io::stderr()));

    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait()));
    let in_time = end.recv_timeout(limit);
    if in_time.is_err() {
        eprintln!("`{name}` has not ended within {} s and is stopped", limit.as_secs());
        let _ = killpg(group, Signal::SIGKILL);
    }
    let status = match in_time {
        Ok(status) => status?,
        Err(_) => end.recv().context("the command's end was not seen")??,
    };
    // What outlives the command would hold its pipes open, and the next suite's ports and devices too.
    let left = processes::end_all();
    if left > 0 {
        eprintln!("`{name}` left {left} processes running; they were ended");
    }
    let mut tally = out.join().map_err(|_| anyhow!("reading the output failed"))?;
    err.join().map_err(|_| anyhow!("reading the error output failed"))?;
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(Outcome { tally, took: start.elapsed() })
}

/// Copies line by line, so that the two streams don't cut each other's lines, and adds up test results.
fn copy(from: impl Read, mut to: impl Write) -> Tally {
    let mut from = BufReader::new(from);
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
        // A closed terminal must not end the run before its clean-up.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        if let Some(found) = result_in(&String::from_utf8_lossy(&line)) {
            tally.passed += found.passed;
            tally.failed += found.failed;
        }
        line.clear();
    }
    tally
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn result_in(line: &str) -> Option<Tally> {
    let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    Some(Tally { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_runners_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.05s";
        assert_eq!(result_in(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(result_in("running 3 tests"), None);
        assert_eq!(result_in("test result: "), None);
    }

    #[test]
    fn output_is_added_up_and_passed_on() {
        let text =
            "a\ntest result: ok. 2 passed; 0 failed; 0 ignored\nb\ntest result: ok. 5 passed; 1 failed; 0 ignored";
        let mut shown = Vec::new();
        assert_eq!(copy(text.as_bytes(), &mut shown), Tally { passed: 7, failed: 1 });
        assert_eq!(shown, text.as_bytes());
    }
}
