//! The processes that a run started: watched, and ended with everything that they left running.
//!
//! xtask makes itself the reaper of orphans, so a daemon that a test forgot becomes our child instead of init's, and
//! can be found and ended by its parent's id, never by its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long processes have to end by themselves after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Whether SIGINT, SIGTERM or SIGHUP has come.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// From here on signals end our children instead of us, so that the run gets to its clean-up. Call it before any
/// thread is started: the signals are blocked in this thread and in those it starts (children get them unblocked).
pub fn supervise() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("the kernel refuses to let xtask reap orphans")?;
    let signals = ending();
    signals.thread_block()?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            let again = INTERRUPTED.swap(true, Ordering::SeqCst);
            signal_all(if again { Signal::SIGKILL } else { Signal::SIGTERM });
            if !again {
                // A second thread, so that another Ctrl-C can cut the grace short.
                thread::spawn(|| {
                    // sleep: the grace itself; what is still there afterwards is killed
                    thread::sleep(GRACE);
                    signal_all(Signal::SIGKILL);
                });
            }
        }
    });
    Ok(())
}

/// The signals that end xtask, and with it all that it started.
fn ending() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Does what starts a process with no signal blocked: a child inherits the mask, and what it tests would never hear of
/// being told to end.
pub fn unblocked<T>(start: impl FnOnce() -> T) -> Result<T> {
    let mask = SigSet::thread_get_mask()?;
    ending().thread_unblock()?;
    let started = start();
    mask.thread_set_mask()?;
    Ok(started)
}

/// Ends every process below us and waits until it is gone. Only for moments when no child is being waited for.
pub fn end_all() -> usize {
    let count = descendants().len();
    // A process may fork while it is being killed; its child comes to us and is found in the next round.
    while !descendants().is_empty() {
        signal_all(Signal::SIGKILL);
        reap();
    }
    count
}

/// Waits for one dead child, and takes all others that are dead already.
fn reap() {
    let mut flags = None;
    while let Ok(status) = waitpid(None, flags) {
        if status == WaitStatus::StillAlive {
            break;
        }
        flags = Some(WaitPidFlag::WNOHANG);
    }
}

fn signal_all(signal: Signal) {
    for pid in descendants() {
        // It may be gone by now, which is what we want.
        let _ = kill(pid, signal);
    }
}

/// All processes below this one, by the parents that /proc names.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_in(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![getpid().as_raw()];
    while let Some(parent) = parents.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            found.push(Pid::from_raw(child));
            parents.push(child);
        }
    }
    found
}

/// The parent in a `/proc/PID/stat` line, whose second field is a name that may hold blanks and brackets.
fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parent_in;

    #[test]
    fn parent_is_found_behind_a_name_with_brackets() {
        assert_eq!(parent_in("12 (a b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (cat"), None);
        assert_eq!(parent_in(""), None);
    }
}
