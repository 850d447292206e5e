//! Processes: how long they run, what they cost.

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::stat::{major, minor};
use sluice_test_support::program::sluice;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was measured by running it, for the report.
static COMMANDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a process has cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// From its start to its end, in seconds.
    pub wall: f64,
    /// User and system time, in seconds; what the kernel's own threads did for it is not in it.
    pub cpu: f64,
    /// The most memory that was resident, in MiB.
    pub peak_mib: f64,
}

/// How often a running process's peak is looked at. The kernel keeps it, so only what it grew by since is missed.
const LOOK: Duration = Duration::from_millis(5);

/// `sluice` with these arguments, not yet started.
pub fn sluice_command(arguments: &[&str]) -> Command {
    command(&sluice().display().to_string(), arguments)
}

/// A command that is told nothing.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The commands that were run since the last time that this was asked, each once.
pub fn take_commands() -> Vec<String> {
    std::mem::take(&mut *COMMANDS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Notes a command for the report.
pub fn note_command(command: &str) {
    let mut commands = COMMANDS.lock().unwrap_or_else(PoisonError::into_inner);
    if !commands.iter().any(|known| known == command) {
        commands.push(command.to_owned());
    }
}

/// As the shell would be given it.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command that must succeed and is not measured.
pub fn quiet(mut command: Command) -> Result<()> {
    let what = words(&command);
    let output = command.output().with_context(|| what.clone())?;
    if !output.status.success() {
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs a command that must succeed; what it cost, and what it printed. One at a time: CPU time is that of all
/// children.
pub fn run(mut command: Command) -> Result<(Cost, String)> {
    let what = words(&command);
    note_command(&what);
    let before = cpu_of(&getrusage(UsageWho::RUSAGE_CHILDREN)?);
    let start = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| what.clone())?;
    let (id, done) = (child.id(), AtomicBool::new(false));
    let (output, wall, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak: f64 = 0.0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(peak_mib(id).unwrap_or(0.0));
                // sleep: how often a process is looked at is part of the measurement.
                std::thread::sleep(LOOK);
            }
            peak
        });
        let output = child.wait_with_output();
        let wall = start.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        (output, wall, watcher.join().unwrap_or(0.0))
    });
    let output = output?;
    if !output.status.success() {
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let cpu = cpu_of(&getrusage(UsageWho::RUSAGE_CHILDREN)?) - before;
    Ok((Cost { wall, cpu, peak_mib: peak }, String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn cpu_of(usage: &Usage) -> f64 {
    [usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum()
}

/// CPU seconds of this process so far, all of its threads.
pub fn own_cpu() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| cpu_of(&usage))
}

/// The most memory that a running process has had resident, in MiB.
pub fn peak_mib(process: u32) -> Option<f64> {
    memory(process, "VmHWM:")
}

/// The memory that a running process has resident now, in MiB.
pub fn resident_mib(process: u32) -> Option<f64> {
    memory(process, "VmRSS:")
}

fn memory(process: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// Bytes that the disk under a path has read and written so far; `None` where that can't be told, as below btrfs or in
/// memory.
pub fn disk_bytes(path: &Path) -> Option<u64> {
    let device = fs::metadata(path).ok()?.dev();
    let about = fs::read_to_string(format!("/sys/dev/block/{}:{}/stat", major(device), minor(device))).ok()?;
    let words: Vec<u64> = about.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // In units of 512 bytes, whatever the disk's sectors are (the kernel's Documentation/block/stat.rst).
    Some((words.get(2)? + words.get(6)?) * 512)
}

/// `sysconf(_SC_CLK_TCK)` of every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of the whole machine so far: everybody's, the kernel's threads included.
pub fn machine_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // User, nice and system; idle and waiting for disks; interrupts.
    let busy = words.take(7).enumerate().filter(|(i, _)| !matches!(i, 3 | 4));
    busy.filter_map(|(_, word)| word.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// CPU seconds of a running process so far, to a clock tick.
pub fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may have spaces; user and system time are the 12th and 13th word after it.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| words.get(i).and_then(|word| word.parse::<f64>().ok());
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// A process that is asked to end, and waited for, when this is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.0.id() as i32);
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        drop(self.0.wait());
    }
}
