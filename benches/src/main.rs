//! Sluice and its peers on the same disks in the same run: how fast, and what it costs.
//!
//! Every bench runs its contenders in turn, round after round, and reports medians and the median of the rounds'
//! ratios: what else the machine does then falls on all of them. What is promised stands in `SPECIFICATION.md`, what
//! was measured in `RESULTS.md`.
#![forbid(unsafe_code)]

mod bench;
mod churn;
mod cleanup;
mod delta;
mod disk;
mod guest;
mod initial;
mod link;
mod machine;
mod many;
mod measure;
mod memory;
mod peers;
mod plot;
mod proxy;
mod report;
mod results;
mod rpo;
mod stages;
mod stats;
mod three;
#[cfg(all(test, feature = "tiny"))]
mod tiny;
mod tracker;

use anyhow::{Context, Result, bail};
use bench::{Bench, Plan};
use clap::Parser;
use cleanup::RunFolder;
use machine::Machine;
use report::Report;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Tells this program, started again, where its folder is.
const FOLDER: &str = "SLUICE_BENCH_FOLDER";

/// Measures Sluice and its peers. Needs root: it makes loop devices, all of which go again.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Which benches; all if none is named.
    names: Vec<Bench>,
    /// Also writes everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many times each contender runs [default: 5; 21 in `tracker`, 7 in `dm-era`, once where minutes are measured].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// The size of the disks, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 6144, value_parser = clap::value_parser!(u64).range(64..))]
    disk: u64,
    /// The sizes of the large sparse disks of `delta`, in GiB; `memory` takes the largest.
    #[arg(long, value_name = "GIB", value_delimiter = ',', default_values_t = [64, 1024])]
    sparse: Vec<u64>,
    /// How long what is measured over time takes [default: a run of `tracker` 3, of `link` 45, `rpo` 300, `memory`
    /// 3600].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// What `rpo` writes, in MB/s.
    #[arg(long, value_name = "MB", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    churn: u64,
    /// Leaves out `rpo`'s search for the highest churn that holds.
    #[arg(long)]
    no_search: bool,
    /// Everything small, in a minute or two: to see that it runs, not how fast.
    #[arg(long)]
    tiny: bool,
    /// Where disks and targets are made, on a disk that takes direct I/O.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    folder: PathBuf,
    /// Measures nothing, but writes the reports in benches/results/ into RESULTS.md and draws them.
    #[arg(long, exclusive = true)]
    results: bool,
}

impl Args {
    /// Those that are named, or all.
    fn benches(&self) -> Vec<Bench> {
        if self.names.is_empty() { Bench::ALL.to_vec() } else { self.names.clone() }
    }

    fn plan(&self, folder: PathBuf) -> Plan {
        if self.tiny {
            return Plan::tiny(folder);
        }
        Plan {
            folder,
            rounds: self.rounds,
            disk_bytes: self.disk << 20,
            sparse_bytes: self.sparse.iter().filter(|size| **size > 0).map(|size| size << 30).collect(),
            seconds: self.seconds,
            churn_bytes: self.churn * 1_000_000,
            search: !self.no_search,
            tiny: false,
        }
    }
}

fn main() -> ExitCode {
    let result = run(&Args::parse());
    // What went wrong then went wrong because of that.
    cleanup::yield_to_signal();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.results {
        return results::write(Path::new(env!("CARGO_MANIFEST_DIR")));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("loop devices and tracking need root");
    }
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return prepare(args);
    };
    let _folder = RunFolder::guard(&folder)?;
    let begun = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Report::new(Machine::here(), format!("cargo xtask bench {}", words.join(" ")).trim().to_owned());
    println!("{}", report.machine);
    let mut failed = Vec::new();
    for name in args.benches() {
        let measured = match name.run(&args.plan(folder.clone())) {
            Ok(measured) => measured,
            Err(error) => {
                cleanup::yield_to_signal();
                // What the others measure is worth having all the same.
                eprintln!("bench: {name}: {error:#}");
                failed.push(name.to_string());
                continue;
            }
        };
        println!("\n{measured}");
        report.benches.push(measured);
        // After each: a long run that is broken off leaves what it has.
        if let Some(file) = &args.json {
            report.save(file)?;
        }
    }
    println!("\n{:.0} s in all", begun.elapsed().as_secs_f64());
    anyhow::ensure!(failed.is_empty(), "not measured, for the reason told above: {}", failed.join(", "));
    Ok(())
}

/// Gets all that is needed, and starts again in its own place with an environment that says where it lies: which a
/// process can't safely change for itself.
fn prepare(args: &Args) -> Result<()> {
    peers::install()?;
    if args.benches().contains(&Bench::DmEra)
        && !args.tiny
        && let Err(error) = guest::provide()
    {
        // The others need no guest.
        eprintln!("bench: no guest: {error:#}");
    }
    let program = sluice_test_support::program::sluice();
    let folder = RunFolder::make(&args.folder)?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1));
    again.env("SLUICE_PROGRAM", program).env(FOLDER, &folder).env("TMPDIR", &folder);
    Err(again.exec()).context("starting again")
}
