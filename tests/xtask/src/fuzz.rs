//! `cargo xtask fuzz`: libFuzzer on every decoder, from the committed corpus on.
//!
//! The program is built apart, in `target/fuzz`, with the instrumentation that libFuzzer reads; it needs a C++ compiler.
//! What a run learns stays in `target/fuzz/corpus`; `--merge` puts the few inputs that reach as much in the place of the
//! committed ones. A finding is made small and put into `tests/fuzz/findings`, which every test run replays.

mod outcome;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{processes, workspace};
use outcome::Outcome;

/// Edges as counters in place, the table that names them, and what comparisons compare: stable flags of LLVM's pass. One
/// unit a crate, as the counters of several don't find together.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Inputs are no longer than this: with patches and repetition, a target needs no more to say anything.
const INPUT_BYTES_MAX: u32 = 16 << 10;
/// What a process may hold: the smoke run's limit, and as much again for libFuzzer's own tables.
const MEMORY_MIB_MAX: u32 = 1024;
/// An input that takes so long is a finding. Generous, as the machine may be busy with other things.
const INPUT_SECONDS_MAX: u32 = 60;
/// Inputs that a merge leaves of a target: git is to hold no thousands of files.
const INPUTS_MAX: usize = 90;
/// How long a finding is made smaller.
const MINIMIZE_SECONDS: u32 = 30;

const USAGE: &str = "\
cargo xtask fuzz [TARGET...] [--minutes N] [--jobs J] [--merge]

Runs each target (all but the canaries when none is named) for N minutes (10), J of them at a time (1).
`--merge` then reduces what was learnt to a small corpus in tests/fuzz/corpus. The canaries must be found out.
`cargo xtask fuzz --minutes 60` is the long run: an hour a target.";

/// What to do.
struct Plan {
    targets: Vec<String>,
    minutes: u64,
    jobs: usize,
    merge: bool,
}

/// Builds the program, runs the targets, and tells; `false` if anything was found, or a canary was not.
pub fn run(args: &[String]) -> Result<bool> {
    let plan = Plan::new(args, &all_targets()?)?;
    processes::supervise()?;
    let program = build()?;
    let queue = Mutex::new(plan.targets.iter().cloned().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| {
                while let Some(target) = next().filter(|_| !processes::interrupted()) {
                    let outcome = fuzz(&program, &target, &plan);
                    if let Ok(outcome) = &outcome {
                        println!("{target:<16} {outcome}");
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push((target, outcome));
                    }
                }
            });
        }
    });
    let done = done.into_inner().context("a run broke off")?;
    let mut failed = 0;
    for (target, outcome) in &done {
        let passed = outcome.as_ref().is_ok_and(|outcome| outcome.found.is_empty() != is_canary(target));
        if let Err(error) = outcome {
            println!("{target:<16} could not be run: {error:#}");
        }
        failed += usize::from(!passed);
    }
    println!("{} passed, {failed} failed", done.len() - failed);
    Ok(failed == 0 && done.len() == plan.targets.len())
}

impl Plan {
    fn new(args: &[String], known: &[String]) -> Result<Self> {
        let mut plan = Self { targets: Vec::new(), minutes: 10, jobs: 1, merge: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u64> {
                let text = args.next().with_context(|| format!("{arg}: a number is missing\n{USAGE}"))?;
                text.parse().ok().filter(|n| *n > 0).with_context(|| format!("{arg}: {text:?} is no number"))
            };
            match arg.as_str() {
                "--minutes" => plan.minutes = number()?,
                "--jobs" => plan.jobs = usize::try_from(number()?)?,
                "--merge" => plan.merge = true,
                name if known.iter().any(|target| target == name) => plan.targets.push(name.to_owned()),
                "--help" | "-h" => bail!("{USAGE}"),
                other => bail!("there is no target {other:?}; there are {}", known.join(", ")),
            }
        }
        if plan.targets.is_empty() {
            plan.targets = known.iter().filter(|target| !is_canary(target)).cloned().collect();
        }
        Ok(plan)
    }
}

/// Targets that must be found out; nothing of what they find is kept.
fn is_canary(target: &str) -> bool {
    target.starts_with("canary")
}

/// Every target has a folder in the corpus: a test of sluice-fuzz sees to it.
fn all_targets() -> Result<Vec<String>> {
    let corpus = workspace::root()?.join("tests/fuzz/corpus");
    let entries = fs::read_dir(&corpus).with_context(|| format!("{} can't be read", corpus.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn folder() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("fuzz"))
}

/// Builds the program for one platform by name, so that build scripts and macros are spared the instrumentation.
fn build() -> Result<PathBuf> {
    let folder = folder()?;
    let mut command = workspace::cargo();
    command.args(["build", "--locked", "--profile", "fuzz", "--package", "sluice-fuzz", "--features", "coverage"]);
    command.args(["--bin", "sluice-fuzz-coverage", "--target", PLATFORM]).arg("--target-dir").arg(&folder);
    ensure!(finish(command.env("RUSTFLAGS", INSTRUMENTATION))?, "the fuzzer could not be built");
    Ok(folder.join(PLATFORM).join("fuzz/sluice-fuzz-coverage"))
}

/// Runs one target for its time, and keeps what it found and learnt.
fn fuzz(program: &Path, target: &str, plan: &Plan) -> Result<Outcome> {
    let (root, folder) = (workspace::root()?, folder()?);
    let (grown, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts").join(target));
    // What was found before is in `findings`; a canary must sing anew.
    let _ = fs::remove_dir_all(&artifacts);
    let committed = root.join("tests/fuzz/corpus").join(target);
    let findings = root.join("tests/fuzz/findings").join(target);
    if is_canary(target) {
        let _ = fs::remove_dir_all(&grown);
    }
    for folder in [&grown, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    }
    let log = folder.join(format!("{target}.log"));
    let mut command = fuzzer(program, target);
    command.arg(format!("-max_total_time={}", plan.minutes * 60)).arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&grown);
    // A canary is to be found by coverage alone.
    command.args([&committed, &findings].into_iter().filter(|folder| !is_canary(target) && folder.is_dir()));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    let mut outcome = outcome::watch(&mut command, &log)?;
    for artifact in files(&artifacts)? {
        outcome.found.push(keep(program, target, &artifact, &findings)?);
    }
    ensure!(!outcome.broke_off || !outcome.found.is_empty(), "libFuzzer broke off; {} says why", log.display());
    if plan.merge && outcome.found.is_empty() && !processes::interrupted() {
        merge(program, target, &grown, &committed)?;
    }
    Ok(outcome)
}

fn fuzzer(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command.env("FUZZ_TARGET", target).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    // What a busy machine makes slow is no finding.
    command.arg(format!("-report_slow_units={INPUT_SECONDS_MAX}"));
    command
}

/// Makes a finding small and a regression; returns where it lies.
fn keep(program: &Path, target: &str, artifact: &Path, findings: &Path) -> Result<PathBuf> {
    let small = artifact.with_extension("small");
    let mut command = fuzzer(program, target);
    // With a limit for lengths libFuzzer makes every finding so small that nothing is left of it.
    command.args(["-minimize_crash=1".to_owned(), format!("-max_total_time={MINIMIZE_SECONDS}")]);
    command.arg(format!("-exact_artifact_path={}", small.display())).arg(artifact);
    // Its end says nothing: it fails where it could not make the input any smaller, too.
    finish(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let is_something = small.metadata().is_ok_and(|facts| facts.len() > 0);
    let best = if is_something { small.as_path() } else { artifact };
    if is_canary(target) {
        return Ok(best.to_path_buf());
    }
    let name = artifact.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    fs::create_dir_all(findings).with_context(|| format!("{} can't be made", findings.display()))?;
    // libFuzzer's own name: what happened, and the input's SHA-1.
    let kept = findings.join(name.chars().take(24).collect::<String>());
    fs::copy(best, &kept).with_context(|| format!("{} can't be written", kept.display()))?;
    Ok(kept)
}

/// Puts the fewest inputs that reach all that is reached in the place of the committed corpus.
fn merge(program: &Path, target: &str, grown: &Path, committed: &Path) -> Result<()> {
    let merged = grown.with_extension("merged");
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged).with_context(|| format!("{} can't be made", merged.display()))?;
    let mut command = fuzzer(program, target);
    command.args(["-set_cover_merge=1".to_owned(), format!("-max_len={INPUT_BYTES_MAX}")]);
    command.args([&merged, grown, committed]);
    let merged_well = finish(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    ensure!(merged_well, "{target}: merging failed; the corpus is as it was");
    let mut inputs = files(&merged)?;
    // Of too many, some of each size: what is dropped here is still in `grown`.
    inputs.sort_by_key(|input| input.metadata().map_or(0, |facts| facts.len()));
    let step = inputs.len().div_ceil(INPUTS_MAX).max(1);
    ensure!(!inputs.is_empty(), "{target}: merging left nothing; the corpus is as it was");
    files(committed)?.iter().try_for_each(fs::remove_file)?;
    for input in inputs.into_iter().step_by(step) {
        let name = input.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        fs::copy(&input, committed.join(name.chars().take(16).collect::<String>()))?;
    }
    Ok(())
}

/// Runs a command to its end; true where that was a good one. While it runs, signals are ours to hear.
fn finish(command: &mut Command) -> Result<bool> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = processes::unblocked(|| command.spawn())?;
    Ok(child.with_context(|| format!("`{name}` could not be started"))?.wait()?.success())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Seconds as minutes for people.
fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str]) -> Result<Plan> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Plan::new(&owned(args), &owned(&["canary", "frame", "vhd"]))
    }

    #[test]
    fn canaries_run_by_name_alone() {
        assert_eq!(plan(&[]).expect("a plan").targets, ["frame", "vhd"]);
        assert_eq!(plan(&["canary", "--minutes", "1"]).expect("a plan").targets, ["canary"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for args in [&["vhdd"][..], &["--minutes"], &["--minutes", "0"], &["--jobs", "x"]] {
            assert!(plan(args).is_err(), "{args:?}");
        }
    }
}
