//! Chores that are programs of their own: xtask builds and runs them, and passes arguments on.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Chore, and the package whose program does it.
const PROGRAMS: &[(&str, &str)] = &[("bench", "sluice-bench"), ("sim", "sluice-sim"), ("chaos", "sluice-chaos")];

/// The package that does `chore`.
pub fn package_for(chore: &str) -> Option<&'static str> {
    PROGRAMS.iter().find(|(name, _)| *name == chore).map(|(_, package)| *package)
}

/// Runs `package`'s program, optimised, in our place: a signal that is meant for us is for it to hear.
pub fn run(package: &str, args: &[String]) -> Result<bool> {
    if !workspace::members()?.iter().any(|member| member.name == package) {
        bail!("this tree has no package `{package}`");
    }
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--release", "--locked", "--package", package, "--"]).args(args);
    // Returns only where it fails.
    Err(cargo.exec()).context("cargo could not be started")
}
