//! The three parts as processes of their own, run from this very program.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

/// A part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Reads the source.
    Agent,
    /// Stands between.
    Appliance,
    /// Writes the target.
    Hydrator,
}

impl Part {
    const ALL: [Self; 3] = [Self::Agent, Self::Appliance, Self::Hydrator];

    /// The subcommand that it is.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Appliance => "appliance",
            Self::Hydrator => "hydrator",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Names the process that a part must not outlive.
const PARENT: &str = "SLUICE_PARENT";

/// Runs `agent`, `appliance` or `hydrator` if that is the first argument, with the arguments behind it.
pub fn run_part(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    let word = args.next()?;
    let part = Part::ALL.into_iter().find(|part| word == part.word())?;
    if let Some(parent) = std::env::var(PARENT).ok().and_then(|pid| pid.parse().ok())
        && !tied_to(Pid::from_raw(parent))
    {
        return Some(ExitCode::FAILURE);
    }
    let args = std::iter::once(OsString::from(format!("sluice-{part}"))).chain(args);
    Some(match part {
        Part::Agent => sluice_agent::cli::main_with(args),
        Part::Appliance => sluice_appliance::cli::main_with(args),
        Part::Hydrator => sluice_hydrator::cli::main_with(args),
    })
}

/// From now on this process ends with its parent; false where that is gone already.
fn tied_to(parent: Pid) -> bool {
    set_pdeathsig(Signal::SIGTERM).is_ok() && getppid() == parent
}

/// A part that runs; ended when it is dropped.
#[derive(Debug)]
pub struct Process {
    /// Which part.
    pub part: Part,
    child: Child,
}

impl Process {
    /// Starts a part with `run --config`. What it logs goes to `log`, what it prints to whoever takes it.
    pub fn start(part: Part, config: &Path, log: &Path) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let child = Command::new(std::env::current_exe()?)
            .args([part.word(), "run", "--config"])
            .arg(config)
            .env(PARENT, std::process::id().to_string())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            // Ctrl-C on a terminal is for the demo, which ends them in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { part, child })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it prints.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn end(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let Ok(pid) = pid {
            // It may have ended in between.
            let _ = kill(pid, Signal::SIGTERM);
        }
        for _ in 0..500 {
            if self.ended().is_some() {
                return;
            }
            // sleep: a child's end can't be awaited with a limit outside of a runtime.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
