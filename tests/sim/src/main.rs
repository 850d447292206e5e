//! `cargo xtask sim --seeds N`, or `--seed S` to see one again.
#![forbid(unsafe_code)]

use anyhow::bail;
use clap::Parser;
use sluice_sim::check::Judgement;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs seeds of the simulation.
#[derive(Parser)]
struct Args {
    /// How many seeds, from `--from` on.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Seeds that run at once, each in a thread of its own.
    #[arg(long, default_value = "1")]
    jobs: NonZeroUsize,
    /// This seed alone, twice, with its log; the trace must be the same.
    #[arg(long)]
    seed: Option<u64>,
    /// Every so many seeds, one is run twice; the trace must be the same.
    #[arg(long, default_value = "25", value_name = "SEEDS")]
    replay_every: std::num::NonZeroU64,
    /// Builds with one check taken out each, which must fail within `--seeds`.
    #[arg(long)]
    canary: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.canary {
        return sluice_sim::canary::run(args.seeds, args.jobs);
    }
    match args.seed {
        Some(seed) => see(seed),
        None => run(&args),
    }
}

/// One seed, twice, with its log.
fn see(seed: u64) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    println!("seed {seed}");
    let judgement = sluice_sim::world::run_twice(seed);
    println!("{judgement:#?}");
    match judgement.violations.is_empty() {
        true => Ok(()),
        false => bail!("seed {seed} breaks a promise"),
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (next, end) = (AtomicU64::new(args.from), args.from + args.seeds);
    let work = || {
        let mut judged = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return judged;
            }
            // Printed first, so that a run that hangs names its seed.
            println!("seed {seed}");
            let judgement = match seed.is_multiple_of(args.replay_every.get()) {
                true => sluice_sim::world::run_twice(seed),
                false => sluice_sim::world::run(seed),
            };
            println!("seed {seed}: {} verified, trace {}", judgement.verified, judgement.trace);
            if !judgement.violations.is_empty() {
                println!("seed {seed}: {:#?}", judgement.violations);
            }
            judged.push((seed, judgement));
        }
    };
    let judged: Vec<(u64, Judgement)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.jobs.get()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    report(args.seeds, &judged)
}

/// So many seeds come to everything that is to be proven.
const SEEDS_OF_ALL_KINDS: u64 = 100;

fn report(seeds: u64, judged: &[(u64, Judgement)]) -> anyhow::Result<()> {
    let sum = |count: fn(&Judgement) -> u64| judged.iter().map(|(_, judgement)| count(judgement)).sum::<u64>();
    let (verified, crash) = (sum(|j| j.verified), sum(|j| j.crash_consistent));
    let while_written = sum(|j| j.crash_while_written);
    println!(
        "{verified} cycles verified, {crash} of them crash-consistent, {while_written} of a source that was written"
    );
    let (twins, limits, grows) = (sum(|j| j.twins.into()), sum(|j| j.limits.into()), sum(|j| j.grows.into()));
    println!("{twins} seeds with a second hydrator, {limits} with limits on rates, {grows} with a source that grows");
    let (put_back, devices) = (sum(|j| j.put_back.into()), sum(|j| j.device.into()));
    println!("{put_back} seeds with an appliance that is put back, {devices} with a block device for a target");
    println!("{} seeds with writes that the tracking does not see", sum(|j| j.blind.into()));
    let passed = sum(|j| j.violations.is_empty().into());
    println!("{passed} passed, {} failed", seeds - passed);
    if passed < seeds {
        let mut failed: Vec<u64> = judged.iter().filter(|(_, j)| !j.violations.is_empty()).map(|(s, _)| *s).collect();
        failed.sort_unstable();
        bail!("seeds that break a promise: {failed:?}; see one with --seed S");
    }
    if while_written == 0 && seeds >= SEEDS_OF_ALL_KINDS {
        bail!("no cycle was proven to be one instant of a source that was written meanwhile");
    }
    Ok(())
}
