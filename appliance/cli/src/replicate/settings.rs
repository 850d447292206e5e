//! The schedule and the limit as the command line gives them, and what a state folder was begun with.

use super::Args;
use crate::outcome::Refusal;
use serde::{Deserialize, Serialize};
use sluice_platform::durable::{self, Access};
use sluice_proto::schedule::Policy;
use sluice_proto::wire::PolicyView;
use std::path::{Path, PathBuf};

/// The policy of this run.
pub fn policy(args: &Args) -> Result<PolicyView, Refusal> {
    let usual = Policy::default();
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (min, max) = (args.min_interval.map(ms), args.max_interval.map(ms));
    // One of both given alone moves the other where they would contradict each other.
    let min_ms = min.unwrap_or(usual.min_interval_ms.min(max.unwrap_or(u64::MAX)));
    let max_ms = max.unwrap_or(usual.max_interval_ms.max(min_ms));
    Policy::new(min_ms, max_ms).map_err(|bad| Refusal::at("--min-interval, --max-interval", bad))?;
    Ok(PolicyView {
        min_interval_ms: min_ms,
        max_interval_ms: max_ms,
        limit: args.limit.clone(),
        ..PolicyView::default()
    })
}

const NAME: &str = "replicate.json";
const BYTES_MAX: u64 = 1 << 20;
const VERSION: u32 = 1;

/// What a state folder belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The record's version. Change log: 1, the first.
    version: u32,
    /// The source, with all links followed.
    pub source: PathBuf,
    /// The cache store that a cycle under way is in; none is the state folder.
    pub cache: Option<String>,
}

impl Origin {
    /// What this run would note.
    pub fn new(source: &Path, cache: Option<&str>) -> Self {
        Self { version: VERSION, source: source.to_path_buf(), cache: cache.map(str::to_owned) }
    }

    /// What an earlier run noted.
    pub fn load(state: &Path) -> Result<Option<Self>, Refusal> {
        let path = state.join(NAME);
        let Some(bytes) = durable::read_file_if_exists(&path, BYTES_MAX).map_err(Refusal::of)? else {
            return Ok(None);
        };
        let origin: Self = serde_json::from_slice(&bytes).map_err(|e| Refusal::at(path.display(), e))?;
        match origin.version {
            VERSION => Ok(Some(origin)),
            newer => {
                Err(Refusal::new(format!("{}: version {newer}, of a newer Sluice; update this one", path.display())))
            }
        }
    }

    /// Notes it.
    pub fn save(&self, state: &Path) -> Result<(), Refusal> {
        let bytes = serde_json::to_vec_pretty(self).map_err(Refusal::of)?;
        durable::write_file(&state.join(NAME), &bytes, Access::Owner).map_err(Refusal::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn policy_of(options: &[&str]) -> Result<(u64, u64), String> {
        let line = [&["sluice", "replicate", "a", "b.vhd"], options].concat();
        let Command::Replicate(args) = Cli::try_parse_from(line).expect("well typed").command else {
            panic!("another command")
        };
        policy(&args).map(|p| (p.min_interval_ms, p.max_interval_ms)).map_err(|e| e.to_string())
    }

    #[test]
    fn one_interval_alone_moves_the_other() {
        assert_eq!(policy_of(&[]), Ok((3_600_000, 43_200_000)));
        assert_eq!(policy_of(&["--min-interval", "1s"]), Ok((1000, 43_200_000)));
        assert_eq!(policy_of(&["--max-interval", "5m"]), Ok((300_000, 300_000)));
        assert_eq!(policy_of(&["--min-interval", "20h"]), Ok((72_000_000, 72_000_000)));
    }

    #[test]
    fn intervals_that_contradict_each_other_are_refused() {
        assert!(policy_of(&["--min-interval", "5m", "--max-interval", "1m"]).is_err_and(|e| e.contains("shorter")));
        assert!(policy_of(&["--min-interval", "100ms"]).is_err_and(|e| e.contains("one second")));
    }
}
