//! `cargo xtask check`: formatting, lints, tidy and deny.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{deny, tidy, workspace};

/// Says whether all is well.
type Check = fn() -> Result<bool>;

const CHECKS: &[(&str, Check)] = &[("fmt", fmt), ("tidy", tidy::run), ("deny", deny::run), ("clippy", clippy)];

/// What one check came to.
pub struct Verdict {
    /// The check's name.
    pub name: &'static str,
    /// Whether nothing was found.
    pub passed: bool,
    /// How long it took.
    pub took: Duration,
}

/// Runs the checks named in `names`, or all; `false` if one found something.
pub fn run(names: &[String]) -> Result<bool> {
    let verdicts = verdicts(names)?;
    for verdict in &verdicts {
        let word = if verdict.passed { "ok" } else { "FAILED" };
        println!("check {:<8} {word:<8} {:>6.1} s", verdict.name, verdict.took.as_secs_f64());
    }
    Ok(verdicts.iter().all(|verdict| verdict.passed))
}

/// Runs the checks named in `names`, or all, also after one has failed.
pub fn verdicts(names: &[String]) -> Result<Vec<Verdict>> {
    if let Some(unknown) = names.iter().find(|name| !CHECKS.iter().any(|(known, _)| known == name)) {
        bail!("there is no check `{unknown}`; the checks are fmt, clippy, tidy and deny");
    }
    let chosen = CHECKS.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name));
    let mut verdicts = Vec::new();
    for (name, check) in chosen {
        let start = Instant::now();
        let passed = check().unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            false
        });
        verdicts.push(Verdict { name, passed, took: start.elapsed() });
    }
    Ok(verdicts)
}

fn fmt() -> Result<bool> {
    cargo(&["fmt", "--all", "--", "--check"])
}

fn clippy() -> Result<bool> {
    cargo(&["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn cargo(args: &[&str]) -> Result<bool> {
    Ok(workspace::cargo().args(args).status().context("cargo could not be started")?.success())
}
