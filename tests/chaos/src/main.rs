//! `cargo xtask chaos --minutes N`; with `--seed S --rounds 1` one round again.
#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use clap::Parser;
use sluice_chaos::{Counts, INTERRUPTED, Plan};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// On a disk on every Debian, and under a name that `cargo xtask clean` knows.
const FOLDER: &str = "/var/tmp/sluice-test-run-";

/// Kills, stops, cuts off and fills up agent, appliance and hydrator under load, and compares source and target.
#[derive(Parser)]
struct Args {
    /// For how long rounds are begun.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The first round's seed; later rounds count on by two.
    #[arg(long)]
    seed: Option<u64>,
    /// Ends as soon as so many kills are survived, and fails if the time is over before.
    #[arg(long)]
    kills: Option<u64>,
    /// Ends after so many rounds.
    #[arg(long)]
    rounds: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| {
        use std::hash::{BuildHasher, Hasher};
        std::hash::RandomState::new().build_hasher().finish() >> 32
    });
    println!("seed {seed}");
    if !sluice_test_support::command::is_root("chaos") {
        bail!("not as root, nothing was run");
    }
    let folder = Folder::new()?;
    heed_signals()?;
    let (start, mut counts, mut passed, mut failed) = (Instant::now(), Counts::default(), 0, Vec::new());
    while start.elapsed() < Duration::from_secs(args.minutes * 60)
        && args.kills.is_none_or(|kills| counts.kills() < kills)
        && args.rounds.is_none_or(|rounds| passed + (failed.len() as u64) < rounds)
        && !INTERRUPTED.load(Ordering::Relaxed)
    {
        let round = seed.wrapping_add(2 * (passed + failed.len() as u64));
        println!("\nround of seed {round}");
        let began = Instant::now();
        // What a round says when it panics stands in the output by then.
        match catch_unwind(AssertUnwindSafe(|| sluice_chaos::run(&Plan::drawn(round)))) {
            Ok(seen) => {
                println!("seed {round}: ok in {:.0} s: {seen}", began.elapsed().as_secs_f64());
                counts.merge(&seen);
                passed += 1;
            }
            Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {}
            Err(_) => {
                println!("seed {round}: FAILED; see it again with --seed {round} --rounds 1");
                failed.push(round);
            }
        }
    }
    drop(folder);
    println!("\nsurvived in {:.0} minutes: {counts}", start.elapsed().as_secs_f64() / 60.0);
    println!("{passed} passed, {} failed", failed.len());
    if !failed.is_empty() {
        bail!("rounds that broke a promise: {failed:?}");
    }
    if let Some(kills) = args.kills.filter(|kills| counts.kills() < *kills) {
        bail!("{} kills were survived, not {kills}", counts.kills());
    }
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// The folder of all temporary files.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("{FOLDER}{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("{} could not be made", path.display()))?;
        // It fails only where another was set before.
        tempfile::env::override_temp_dir(&path).ok();
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}; `cargo xtask clean` removes it", self.0.display());
        }
    }
}

/// Signals that end programs cut the round short instead, so that devices and mounts go.
fn heed_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            loop {
                tokio::select! {
                    biased;
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}
