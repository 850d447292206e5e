//! The benches by name, and how large they are run.

use crate::measure::take_commands;
use crate::report::Measured;
use crate::{delta, guest, initial, link, many, memory, rpo, stages, tracker};
use anyhow::Result;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

/// How large and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where disks and targets are made.
    pub folder: PathBuf,
    /// Runs of each contender, where it was asked for.
    pub rounds: Option<u32>,
    /// The size of the disks.
    pub disk_bytes: u64,
    /// The sizes of the large sparse disks.
    pub sparse_bytes: Vec<u64>,
    /// How long whatever is measured over time takes, where it was asked for.
    pub seconds: Option<u64>,
    /// Bytes a second that churn writes.
    pub churn_bytes: u64,
    /// Whether the highest churn is searched for.
    pub search: bool,
    /// Whether it only is to be seen that all runs.
    pub tiny: bool,
}

impl Plan {
    /// So small that all benches together take a minute or two.
    pub fn tiny(folder: PathBuf) -> Self {
        Self {
            folder,
            rounds: Some(1),
            disk_bytes: 64 << 20,
            sparse_bytes: vec![256 << 20],
            seconds: Some(2),
            churn_bytes: 2_000_000,
            search: false,
            tiny: true,
        }
    }

    /// The rounds of a bench that has so many by itself.
    pub fn rounds(&self, own: u32) -> u32 {
        self.rounds.unwrap_or(own)
    }

    /// The seconds of a bench that takes so many by itself.
    pub fn seconds(&self, own: u64) -> u64 {
        self.seconds.unwrap_or(own)
    }

    /// The size of the largest sparse disk.
    pub fn large_bytes(&self) -> u64 {
        self.sparse_bytes.iter().copied().max().unwrap_or(self.disk_bytes)
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
    /// The same beside dm-era, in a guest.
    DmEra,
    /// How old the newest verified data is while much is written.
    Rpo,
    /// How much of a long fat link is used.
    Link,
    /// Many disks at once, and a small one beside a large one.
    Many,
    /// What is resident, and whether it grows.
    Memory,
}

impl Bench {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 10] = [
        Self::InitialLocal,
        Self::Initial,
        Self::Stages,
        Self::Delta,
        Self::Tracker,
        Self::DmEra,
        Self::Rpo,
        Self::Link,
        Self::Many,
        Self::Memory,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::InitialLocal => "initial-local",
            Self::Initial => "initial",
            Self::Stages => "stages",
            Self::Delta => "delta",
            Self::Tracker => "tracker",
            Self::DmEra => "dm-era",
            Self::Rpo => "rpo",
            Self::Link => "link",
            Self::Many => "many",
            Self::Memory => "memory",
        }
    }

    /// Runs it.
    pub fn run(self, plan: &Plan) -> Result<Measured> {
        let (mut measured, begun) = (Measured::new(self.name()), Instant::now());
        // What was run before belongs to another bench.
        drop(take_commands());
        match self {
            Self::InitialLocal => initial::local(plan, &mut measured)?,
            Self::Initial => initial::processes(plan, &mut measured)?,
            Self::Stages => stages::run(plan, &mut measured)?,
            Self::Delta => delta::run(plan, &mut measured)?,
            Self::Tracker => tracker::run(plan, &mut measured)?,
            Self::DmEra => guest::run(plan, &mut measured)?,
            Self::Rpo => rpo::run(plan, &mut measured)?,
            Self::Link => link::run(plan, &mut measured)?,
            Self::Many => many::run(plan, &mut measured)?,
            Self::Memory => memory::run(plan, &mut measured)?,
        }
        let folder = plan.folder.display().to_string();
        measured.commands = take_commands().into_iter().map(|command| command.replace(&folder, "DIR")).collect();
        measured.end(begun.elapsed());
        Ok(measured)
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
