//! `cargo xtask sim --seeds N`, or `--seed S` to see one again.
#![forbid(unsafe_code)]

use anyhow::bail;
use clap::Parser;
use std::io::Write;

/// Runs seeds of the simulation.
#[derive(Parser)]
struct Args {
    /// How many seeds, from `--from` on.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This seed alone, twice, with its log; the trace must be the same.
    #[arg(long)]
    seed: Option<u64>,
    /// A second hydrator that believes to own the target, in one seed of four; such seeds are not replayed exactly yet.
    #[arg(long)]
    twins: bool,
    /// Builds with one check taken out each, which must fail within `--seeds`.
    #[arg(long)]
    canary: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.canary {
        return sluice_sim::canary::run(args.seeds);
    }
    if let Some(seed) = args.seed {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
        println!("seed {seed}");
        let (first, second) =
            (sluice_sim::world::run_with(seed, args.twins), sluice_sim::world::run_with(seed, args.twins));
        println!("{first:#?}");
        if first.trace != second.trace {
            bail!("seed {seed}: two runs, two traces: {} and {}", first.trace, second.trace);
        }
        if !first.violations.is_empty() {
            bail!("seed {seed} breaks a promise");
        }
        return Ok(());
    }
    let (mut failed, mut verified, mut crash) = (Vec::new(), 0, 0);
    for seed in args.from..args.from + args.seeds {
        print!("seed {seed} ");
        std::io::stdout().flush()?;
        let judgement = sluice_sim::world::run_with(seed, args.twins);
        println!("{} verified, trace {}", judgement.verified, judgement.trace);
        verified += judgement.verified;
        crash += judgement.crash_consistent;
        if !judgement.violations.is_empty() {
            println!("seed {seed}: {:#?}", judgement.violations);
            failed.push(seed);
        }
    }
    println!("{verified} cycles verified, {crash} of them crash-consistent");
    println!("{} passed, {} failed", args.seeds - failed.len() as u64, failed.len());
    if !failed.is_empty() {
        bail!("seeds that break a promise: {failed:?}; see one with --seed S");
    }
    Ok(())
}
