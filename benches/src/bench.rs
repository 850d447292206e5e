//! The benches by name, how large they are run, and the peers that they need.

use crate::report::Measured;
use crate::{delta, initial, rpo, stages, tracker};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// How large and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where disks and targets are made.
    pub folder: PathBuf,
    /// Runs of each contender.
    pub rounds: u32,
    /// The size of the disks.
    pub disk_bytes: u64,
    /// The size of the large sparse disk; 0 for none.
    pub sparse_bytes: u64,
    /// How long churn runs.
    pub seconds: u64,
    /// Bytes a second that churn writes.
    pub churn_bytes: u64,
}

impl Plan {
    /// So small that all benches together take seconds.
    pub fn tiny(folder: PathBuf) -> Self {
        let disk_bytes = 64 << 20;
        Self { folder, rounds: 1, disk_bytes, sparse_bytes: 256 << 20, seconds: 4, churn_bytes: 2_000_000 }
    }
}

/// A bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    /// The first copy, in one process without a network.
    InitialLocal,
    /// The first copy, by three processes over TLS.
    Initial,
    /// What each stage costs by itself.
    Stages,
    /// A cycle after 1 % was written, and one after nothing was.
    Delta,
    /// What tracking costs those who write.
    Tracker,
    /// How old the newest verified data is while much is written.
    Rpo,
}

impl Bench {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 6] = [Self::InitialLocal, Self::Initial, Self::Stages, Self::Delta, Self::Tracker, Self::Rpo];

    fn name(self) -> &'static str {
        match self {
            Self::InitialLocal => "initial-local",
            Self::Initial => "initial",
            Self::Stages => "stages",
            Self::Delta => "delta",
            Self::Tracker => "tracker",
            Self::Rpo => "rpo",
        }
    }

    /// Runs it.
    pub fn run(self, plan: &Plan) -> Result<Measured> {
        let mut measured = Measured::new(self.name());
        match self {
            Self::InitialLocal => initial::local(plan, &mut measured)?,
            Self::Initial => initial::processes(plan, &mut measured)?,
            Self::Stages => stages::run(plan, &mut measured)?,
            Self::Delta => delta::run(plan, &mut measured)?,
            Self::Tracker => tracker::run(plan, &mut measured)?,
            Self::Rpo => rpo::run(plan, &mut measured)?,
        }
        Ok(measured.ended())
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bench {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|bench| bench.name() == text).ok_or(format!("the benches are {names}"))
    }
}

/// Programs that are measured or measure, and Debian's packages of them.
const PEERS: [(&str, &str); 3] = [("qemu-img", "qemu-utils"), ("rsync", "rsync"), ("fio", "fio")];

/// Installs the peers that are missing.
pub fn install_peers() -> Result<()> {
    let missing: Vec<&str> =
        PEERS.into_iter().filter(|(program, _)| !has(program)).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    for arguments in [&["update", "-qq"][..], &[&["install", "-y", "-qq"][..], &missing].concat()] {
        let status = Command::new("apt-get").args(arguments).status().context("apt-get")?;
        if !status.success() {
            bail!("apt-get {}: {status}; install {} by hand", arguments.join(" "), missing.join(" "));
        }
    }
    Ok(())
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
