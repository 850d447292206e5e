//! The machine and the programs on it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::process::Command;

/// Where it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_mib: u64,
    kernel: String,
    system: String,
    /// Sluice's own commit; `-dirty` where files differed from it.
    commit: String,
    programs: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
        let kib: u64 = memory.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let system = field(&read("/etc/os-release"), "PRETTY_NAME", '=');
        let blocksync = super::peers::blocksync_fast().map(|path| path.display().to_string());
        let peers =
            ["qemu-img", "nbdkit", "nbdcopy", "rsync", "fio"].into_iter().filter_map(|name| version(name, "--version"));
        let peers = peers.chain(version("restic", "version"));
        let about = read("/proc/cpuinfo");
        // What zstd, BLAKE3 and AES are fast by.
        let has = field(&about, "flags", ':');
        let sets = ["avx2", "avx512f", "aes", "vaes"].into_iter().filter(|set| has.split(' ').any(|flag| flag == *set));
        Self {
            processor: format!("{} ({})", field(&about, "model name", ':'), sets.collect::<Vec<_>>().join(" ")),
            processors: processors(),
            memory_mib: kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: system.trim_matches('"').to_owned(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            programs: peers.chain(blocksync.and_then(|name| version(&name, "--version"))).collect(),
        }
    }
}

fn field(text: &str, name: &str, separator: char) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(separator).map_or("?", |(_, value)| value.trim()).to_owned()
}

/// How many processors there are.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first line that a program says of its version.
fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next()?.split(", Copyright").next()?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory_mib, kernel, system, commit, programs } = self;
        let machine = format!("{processors} x {processor}, {memory_mib} MiB, {system}, Linux {kernel}");
        write!(f, "{machine}; Sluice {commit}; {}", programs.join("; "))
    }
}

/// The load average over the last minute: what else the machine does.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}
