//! `sluice-agent`: the command line.

use crate::config::Config;
use crate::protect::{ProtectError, Protection};
use crate::service;
use clap::{Parser, Subcommand};
use sluice_client::{ClientFiles, ClientOptions, HttpsClient};
use sluice_platform::system::OsEntropy;
use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;

const AFTER: &str = "\
Examples:
  sluice-agent run --config /etc/sluice/agent.toml
  sluice-agent rotate-key --config /etc/sluice/agent.toml --source /dev/vdb
  sluice-agent adopt --config /etc/sluice/agent.toml --source /dev/vdb
  sluice-agent forget --config /etc/sluice/agent.toml --source /dev/vdb --yes

Exit codes:
  0  done; or ended by SIGTERM or SIGINT, what was under way goes on at the next start
  1  could not go on; the last line says why
  2  the command line or the configuration is wrong; nothing was started";

/// Tracks what changes on this machine's disks and ships it to the appliance.
#[derive(Debug, Parser)]
#[command(name = "sluice-agent", version, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Protects the disks of the configuration until it is told to end. Tracking goes on in the kernel after that.
    #[command(after_help = "Example:\n  sluice-agent run --config /etc/sluice/agent.toml")]
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
    },
    /// Begins a new generation of a disk, under a new data key. Stop the agent first; nothing is copied again.
    #[command(after_help = "Example:\n  sluice-agent rotate-key --config /etc/sluice/agent.toml --source /dev/vdb")]
    RotateKey {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
        /// The disk's source, as the configuration has it.
        #[arg(long)]
        source: PathBuf,
    },
    /// Takes the medium that a source is now for the protected one, though it is another: the next cycle compares it with the
    /// target, which becomes its copy. Where only the names of disks have changed, correct the source in the configuration.
    #[command(after_help = "Example:\n  sluice-agent adopt --config /etc/sluice/agent.toml --source /dev/vdb")]
    Adopt {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
        /// The disk's source, as the configuration has it.
        #[arg(long)]
        source: PathBuf,
    },
    /// Ends a disk's protection: its tracking is taken out of the kernel and its state is removed. Stop the agent first.
    #[command(after_help = "Example:\n  sluice-agent forget --config /etc/sluice/agent.toml --source /dev/vdb --yes")]
    Forget {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
        /// The disk's source, as the configuration has it.
        #[arg(long)]
        source: PathBuf,
        /// Do it. Without this, only what would be removed is printed.
        #[arg(long)]
        yes: bool,
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
    let (Command::Run { config: path }
    | Command::RotateKey { config: path, .. }
    | Command::Adopt { config: path, .. }
    | Command::Forget { config: path, .. }) = &cli.command;
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sluice-agent: {error}");
            return ExitCode::from(2);
        }
    };
    let result = match cli.command {
        Command::Run { .. } => {
            sluice_platform::process::step_back();
            sluice_platform::process::give_back_large();
            run(&config)
        }
        Command::RotateKey { source, .. } => rotate_key(&config, &source),
        Command::Adopt { source, .. } => adopt(&config, &source),
        Command::Forget { source, yes, .. } => forget(&config, &source, yes),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("sluice-agent: {error}");
    ExitCode::from(1)
}

fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    let signer = service::signing_key(&config.state, &OsEntropy::new())?;
    let way = &config.appliance;
    let options = ClientOptions { uploads_max: way.connections.clamp(1, 16), ..ClientOptions::default() };
    let files = ClientFiles { authority: way.ca.clone(), certificate: way.cert.clone(), key: way.key.clone() };
    let api = Arc::new(HttpsClient::new(&way.endpoint, &files, options)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let disks: Vec<_> = config.protections().collect();
        let mut service = tokio::spawn(service::run(disks, api, signer, stopped));
        tokio::select! {
            biased;
            ended = &mut service => return Ok(ended?),
            signal = end_signal() => signal?,
        }
        tracing::info!("ending; tracking goes on, and what is under way goes on at the next start");
        stop.send_replace(true);
        Ok(service.await?)
    })
}

/// The disk of the configuration whose source this is.
fn disk_of(config: &Config, source: &Path) -> Result<Protection, String> {
    config
        .protections()
        .find(|p| p.source == source)
        .ok_or_else(|| format!("{} is not in the configuration; name the source as it stands there", source.display()))
}

fn rotate_key(config: &Config, source: &Path) -> Result<(), Box<dyn Error>> {
    let entropy = OsEntropy::new();
    let signer = service::signing_key(&config.state, &entropy)?;
    let generation = disk_of(config, source)?.rotate_key(&entropy, &signer)?;
    println!("{}: generation {generation} begins with the next start of the agent", source.display());
    Ok(())
}

fn adopt(config: &Config, source: &Path) -> Result<(), Box<dyn Error>> {
    let shown = source.display();
    match disk_of(config, source)?.adopt()? {
        Some((known, found)) => {
            println!("{shown}: it was {known}, and is {found} from now on; the next cycle compares")
        }
        None => println!("{shown}: it is no other medium than the one that is known; nothing was changed"),
    }
    Ok(())
}

fn forget(config: &Config, source: &Path, yes: bool) -> Result<(), Box<dyn Error>> {
    let disk = disk_of(config, source)?;
    let shown = source.display();
    if yes {
        disk.forget().map_err(|error| match error {
            ProtectError::Lock(error) => format!("{shown} is being protected; stop the agent first: {error}").into(),
            error => Box::<dyn Error>::from(error),
        })?;
        println!("{shown} is no longer protected");
        return Ok(());
    }
    let (_, pins) = disk.known()?;
    println!("would remove the tracking in {} and the state in {}", pins.display(), disk.state.display());
    println!(
        "stop the agent, then say --yes to do it; the next protection of this disk begins anew, with a new target"
    );
    Ok(())
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
