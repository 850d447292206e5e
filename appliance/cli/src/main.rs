//! `sluice`: the operator's command line.
#![forbid(unsafe_code)]

#[macro_use]
mod progress;

mod args;
mod bottleneck;
mod demo;
mod inspect;
mod outcome;
mod processes;
mod replicate;
mod report;
mod signals;
mod units;
mod verify;

use anyhow::Context;
use args::{Cli, Command};
use clap::Parser;
use outcome::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_platform::process::keep_small();
    // The demo runs the three parts as processes of their own, from this very file.
    if let Some(code) = processes::run_part(std::env::args_os()) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // If even that can't be printed there is nobody to tell.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            progress::say(format!("sluice: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    progress::start_log("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the runtime can't be started")?;
    let outcome = runtime.block_on(async {
        match &cli.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Replicate(args) => replicate::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Inspect(args) => inspect::run(args).await,
        }
    });
    // What still blocks a thread must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(outcome?)
}
