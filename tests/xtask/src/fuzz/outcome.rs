//! What one run of libFuzzer came to, from its log and from the kernel's books.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::minutes;
use crate::processes;

/// What one run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inputs that were run.
    pub executions: u64,
    /// Edges that were reached at the run's begin, by the corpus, and at its end.
    pub coverage: (u64, u64),
    /// Processor time, the kernel's part of it included.
    pub cpu: Duration,
    /// Time by the clock.
    pub took: Duration,
    /// Inputs that the target did not bear, made small.
    pub found: Vec<PathBuf>,
    /// It ended by itself before its time, or otherwise badly.
    pub broke_off: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.coverage;
        let (cpu, took) = (minutes(self.cpu), minutes(self.took));
        write!(f, "{:>11} executions, coverage {from:>6} to {to:>6}, ", self.executions)?;
        write!(f, "{cpu:>6.1} CPU minutes in {took:>6.1}, {} findings", self.found.len())?;
        self.found.iter().try_for_each(|path| write!(f, "\n  {}", path.display()))
    }
}

/// Runs libFuzzer to its end, its words in `log`.
pub fn watch(command: &mut Command, log: &Path) -> Result<Outcome> {
    let words = File::create(log).with_context(|| format!("{} can't be made", log.display()))?;
    command.stdout(words.try_clone()?).stderr(words);
    let start = Instant::now();
    let mut child = processes::unblocked(|| command.spawn())?.context("libFuzzer could not be started")?;
    let cpu = cpu_at_end(&child)?;
    let status = child.wait()?;
    // A target that aborts may leave half a character behind.
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let read = Outcome { cpu, took: start.elapsed(), broke_off: !status.success(), ..of_log(&text) };
    Ok(read)
}

/// Waits for the child's end and reads its processor time while its entry in the process table is still there.
fn cpu_at_end(child: &Child) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold spaces, user and system time are the 12th and the 13th field.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// Reads `#123 INITED cov: 45 ft: …` and the lines that follow, and `stat::number_of_executed_units: 678`.
fn of_log(text: &str) -> Outcome {
    let coverage = |line: &str| line.split_once("cov: ")?.1.split_whitespace().next()?.parse::<u64>().ok();
    let executions = |line: &str| -> Option<u64> {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            return count.trim().parse().ok();
        }
        line.strip_prefix('#')?.split_whitespace().next()?.parse().ok()
    };
    let inited = text.lines().find(|line| line.contains("INITED")).and_then(coverage).unwrap_or(0);
    Outcome {
        executions: text.lines().filter_map(executions).max().unwrap_or(0),
        coverage: (inited, text.lines().filter_map(coverage).max().unwrap_or(inited)),
        ..Outcome::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let text = "INFO: seed corpus: files: 5\n#6\tINITED cov: 100 ft: 200 corp: 5/1b exec/s: 0 rss: 40Mb\n\
                    #900\tNEW    cov: 130 ft: 250 corp: 6/2b\nstat::number_of_executed_units: 1234\n";
        let outcome = of_log(text);
        assert_eq!((outcome.executions, outcome.coverage), (1234, (100, 130)));
        // One that broke off has no statistics.
        let outcome = of_log("#6\tINITED cov: 7 ft: 9\n#77\tREDUCE cov: 9 ft: 11\npanicked at\n");
        assert_eq!((outcome.executions, outcome.coverage), (77, (7, 9)));
    }

    #[test]
    fn the_processor_time_is_the_childs() {
        let folder = std::env::temp_dir().join(format!("sluice-outcome-{}", std::process::id()));
        let mut busy = Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
        let outcome = watch(&mut busy, &folder).expect("it runs");
        fs::remove_file(&folder).expect("the log");
        assert!(!outcome.broke_off && outcome.cpu > Duration::ZERO, "{outcome:?}");
    }
}
