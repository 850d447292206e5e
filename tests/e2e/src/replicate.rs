//! `sluice replicate` over one source.

use crate::Pins;
use crate::judge::Format;
use serde::Deserialize;
use sluice_test_support::devices::text;
use sluice_test_support::load::Load;
use sluice_test_support::program::{Ended, Sluice};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What `--json` prints of a cycle. Every field must be there, and no other.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Cycle {
    pub cycle: u64,
    pub kind: String,
    pub tracker: Option<String>,
    pub consistency: Option<String>,
    pub dirty_sectors: u64,
    pub bytes_read: u64,
    pub bytes_sent: u64,
    pub seconds: f64,
    pub bitmaps_equal: Option<bool>,
    pub source_digest: Option<String>,
    pub target_digest: Option<String>,
    pub verified: bool,
    pub error: Option<String>,
}

impl Cycle {
    /// Reads a line; `None` if it is not of a cycle.
    pub fn read(line: &str) -> Option<Self> {
        let cycle: Result<Self, _> = serde_json::from_str(line);
        Some(cycle.unwrap_or_else(|e| panic!("not what --json promises ({e}): {line}")))
    }

    /// Panics unless it is verified, with everything that this means.
    pub fn assert_verified(&self) {
        assert!(self.verified && self.error.is_none(), "{self:?}");
        assert_eq!(self.bitmaps_equal, Some(true), "{self:?}");
        assert!(self.source_digest.is_some() && self.source_digest == self.target_digest, "{self:?}");
    }
}

/// A source, its target in a folder of the test's own, and how `sluice replicate` is called.
#[derive(Debug)]
pub struct Replicate {
    /// Gone before the folder is.
    _pins: Pins,
    folder: TempDir,
    source: PathBuf,
    format: Format,
    options: Vec<String>,
}

impl Replicate {
    /// From `source` to a new target, with `options` besides.
    pub fn new(source: &Path, format: Format, options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { _pins: Pins::of(folder.path()), folder, source: source.to_owned(), format, options }
    }

    /// The same with a cache in a folder of its own: segments are sealed and stored as between machines.
    pub fn with_cache_folder(mut self) -> Self {
        self.options.extend(["--cache".to_owned(), format!("file://{}", text(&self.cache()))]);
        self
    }

    /// The folder of [`Replicate::with_cache_folder`].
    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// The folder that all of it lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The target's path.
    pub fn target(&self) -> PathBuf {
        self.folder.path().join(self.format.file_name())
    }

    /// Where state is kept by default.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join(format!("{}.sluice", self.format.file_name()))
    }

    /// Starts it, with `more` arguments.
    pub fn start(&self, more: &[&str]) -> Sluice {
        let target = self.target();
        let mut arguments =
            vec!["replicate", text(&self.source), text(&target), "--format", self.format.word(), "--json"];
        arguments.extend(self.options.iter().map(String::as_str));
        arguments.extend(more);
        Sluice::start(&arguments, &[])
    }

    /// Runs it to its end.
    pub fn run(&self) -> Ended {
        self.start(&[]).end()
    }

    /// Runs it, which must succeed; the cycles that it made, all of them verified.
    pub fn must(&self) -> Vec<Cycle> {
        let ended = self.run();
        assert!(ended.status.success(), "{}\n{}{}", ended.status, ended.stdout, ended.stderr);
        let cycles: Vec<Cycle> = ended.stdout.lines().filter_map(Cycle::read).collect();
        assert!(!cycles.is_empty(), "no cycle was made:\n{}", ended.stderr);
        cycles.iter().for_each(Cycle::assert_verified);
        cycles
    }

    /// Follows the source while `load` writes to it: the first cycle and `deltas` further ones, each of them verified and
    /// with something to ship; then asks it to end. Returns the cycles.
    pub fn follow_under(&self, load: &Load, deltas: usize) -> Vec<Cycle> {
        let sluice = self.start(&["--follow", "--min-interval", "1s", "--max-interval", "1s"]);
        let (mut cycles, mut from) = (Vec::<Cycle>::new(), 0);
        while cycles.len() <= deltas {
            let (cycle, next) = sluice.wait_stdout(from, Cycle::read);
            cycle.assert_verified();
            assert!(cycle.dirty_sectors > 0, "under load there is something to ship: {cycle:?}");
            load.wait_rounds(1);
            from = next;
            cycles.push(cycle);
        }
        let ended = sluice.terminate();
        assert_eq!(ended.code(), Some(0), "ended by SIGTERM:\n{}{}", ended.stdout, ended.stderr);
        cycles
    }
}
