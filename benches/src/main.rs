//! Sluice and its peers on the same disks in the same run: how fast, and what it costs.
//!
//! Every bench runs its contenders in turn, round after round, and reports medians and the median of the rounds' ratios:
//! what else the machine does then falls on all of them. What is promised stands in `SPECIFICATION.md`, what was measured
//! in `RESULTS.md`.
#![forbid(unsafe_code)]

mod bench;
mod delta;
mod disk;
mod initial;
mod measure;
mod report;
mod rpo;
mod stages;
mod tracker;

use anyhow::{Context, Result, bail};
use bench::{Bench, Plan};
use clap::Parser;
use report::{Machine, Report};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Measures Sluice and its peers. Needs root: it makes loop devices, all of which go again.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Which benches; all if none is named.
    names: Vec<Bench>,
    /// Also writes everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many times each contender runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The size of the disks, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 6144, value_parser = clap::value_parser!(u64).range(64..))]
    disk: u64,
    /// The size of the large sparse disk of `delta`, in GiB; 0 for none.
    #[arg(long, value_name = "GIB", default_value_t = 64)]
    sparse: u64,
    /// How long churn and writers run, in seconds: `rpo` so long, each run of `tracker` a tenth of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    seconds: u64,
    /// What `rpo` writes, in MB/s.
    #[arg(long, value_name = "MB", default_value_t = 50)]
    churn: u64,
    /// Everything small, in seconds: to see that it runs, not how fast.
    #[arg(long)]
    tiny: bool,
    /// Where disks and targets are made; the folder for temporary files if none is given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Plan {
        let folder = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        if self.tiny {
            return Plan::tiny(folder);
        }
        Plan {
            folder,
            rounds: self.rounds,
            disk_bytes: self.disk << 20,
            sparse_bytes: self.sparse << 30,
            seconds: self.seconds,
            churn_bytes: self.churn * 1_000_000,
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("loop devices and tracking need root");
    }
    with_program()?;
    bench::install_peers()?;
    let names = if args.names.is_empty() { Bench::ALL.to_vec() } else { args.names.clone() };
    let mut report = Report::new(Machine::here());
    println!("{}", report.machine);
    for name in names {
        let measured = name.run(&args.plan()).with_context(|| format!("bench {name}"))?;
        println!("\n{measured}");
        report.benches.push(measured);
        // After each: a long run that is broken off leaves what it has.
        if let Some(file) = &args.json {
            report.save(file)?;
        }
    }
    Ok(())
}

/// Sluice's own program, built as this one was. Where it lies is told by the environment, which a process can't safely
/// change for itself: it starts again in its own place.
fn with_program() -> Result<()> {
    if std::env::var_os("SLUICE_PROGRAM").is_some() {
        return Ok(());
    }
    let this = std::env::current_exe()?;
    let profile = this.parent().context("this program lies in a folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--package", "sluice", "--bin", "sluice"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("cargo")?;
    if !built.success() {
        bail!("sluice can't be built: {built}");
    }
    let mut again = Command::new(&this);
    again.args(std::env::args_os().skip(1)).env("SLUICE_PROGRAM", profile.join("sluice"));
    Err(again.exec()).context("starting again")
}

#[cfg(all(test, feature = "tiny"))]
mod tests {
    use super::*;

    /// Speed is not judged here: tests run in another profile, and beside others.
    #[test]
    fn every_bench_runs() {
        if !sluice_test_support::command::is_root("every_bench_runs") {
            return;
        }
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        for bench in Bench::ALL {
            let measured =
                bench.run(&Plan::tiny(folder.path().to_owned())).unwrap_or_else(|e| panic!("{bench}: {e:#}"));
            assert!(!measured.rows.is_empty(), "{bench} measures something");
            let good = |value: &f64| value.is_finite();
            assert!(
                measured.rows.iter().all(|row| !row.values.is_empty() && row.values.iter().all(good)),
                "{measured}"
            );
        }
    }
}
