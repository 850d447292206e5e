//! `sluice-hydrator`: the command line.

use crate::apply::Environment;
use crate::config::Config;
use crate::driver::Hydrator;
use crate::{init, keys};
use clap::{Parser, Subcommand};
use sluice_client::{ClientFiles, ClientOptions, HttpsClient, HydratorApi};
use sluice_platform::system::{OsEntropy, SystemClock};
use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;

const AFTER: &str = "\
Examples:
  sluice-hydrator init --dir /etc/sluice/hydrator
  sluice-hydrator run --config /etc/sluice/hydrator/hydrator.toml

Exit codes:
  0  done; or ended by SIGTERM or SIGINT, what was under way goes on at the next start
  1  could not go on; the last line says why
  2  the command line or the configuration is wrong; nothing was started";

/// Applies what the agents sent to target disks, reads it back and proves it right.
#[derive(Debug, Parser)]
#[command(name = "sluice-hydrator", version, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Applies cycles until it is told to end.
    #[command(after_help = "Example:\n  sluice-hydrator run --config /etc/sluice/hydrator/hydrator.toml")]
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
    },
    /// Makes a key and a configuration to fill in, and prints the public key for the agents' configurations.
    #[command(after_help = "Example:\n  sluice-hydrator init --dir /etc/sluice/hydrator")]
    Init {
        /// The folder to make them in.
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
    },
}

/// The program, with the process's own arguments.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// The program, with arguments of which the first is its name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // If even that can't be printed there is nobody to tell.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.command {
        Command::Init { dir } => report(make(&dir)),
        Command::Run { config } => {
            let config = match Config::load(&config) {
                Ok(config) => config,
                Err(error) => {
                    eprintln!("sluice-hydrator: {error}");
                    return ExitCode::from(2);
                }
            };
            report(run(&config))
        }
    }
}

fn report(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("sluice-hydrator: {error}");
    ExitCode::from(1)
}

fn make(dir: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let made = init::init(dir)?;
    println!("{}", made.public);
    eprintln!(
        "The line above is the hydrator's public key: put it into each agent's configuration as hydrator_key.\n\
         Key:           {} (keep a copy where it is safe)\n\
         Configuration: {} (fill in the appliance and the cache store, then: sluice-hydrator run --config FILE)",
        made.key.display(),
        made.config.display()
    );
    Ok(())
}

fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    let environment = environment(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let api = connect(config)?;
        sluice_cache_store::check_at_start(&*environment.store).await?;
        let (stop, stopped) = watch::channel(false);
        let hydrator = tokio::spawn(Hydrator::new(environment, api).run(stopped));
        end_signal().await?;
        tracing::info!("ending; what is under way goes on at the next start");
        stop.send_replace(true);
        Ok(hydrator.await?)
    })
}

fn connect(config: &Config) -> Result<Arc<dyn HydratorApi>, Box<dyn Error>> {
    let way = &config.appliance;
    let files = ClientFiles { authority: way.ca.clone(), certificate: way.cert.clone(), key: way.key.clone() };
    Ok(Arc::new(HttpsClient::new(&way.endpoint, &files, ClientOptions::default())?))
}

/// Everything that a configuration names but the appliance.
fn environment(config: &Config) -> Result<Environment, Box<dyn Error>> {
    let store = sluice_cache_store::open(&config.cache.url, &config.store_options())?;
    let targets = config.local_targets(Arc::new(SystemClock), Arc::new(OsEntropy::new()));
    Ok(Environment::open(store, &config.spool, keys::load(&config.key)?, Arc::new(targets))?)
}

/// Waits for SIGTERM or SIGINT.
async fn end_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
