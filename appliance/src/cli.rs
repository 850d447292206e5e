//! `sluice-appliance`: the command line.

use crate::config::Config;
use crate::identity::{PeerName, Role};
use crate::init::{self, Certificate, Init};
use crate::pki::ISSUED_DAYS;
use crate::run;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use std::error::Error;
use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(test)]
mod tests;

const AFTER: &str = "\
Examples:
  sluice-appliance init --dir /etc/sluice/appliance --name sluice.example --name 192.0.2.7
  sluice-appliance issue-cert --dir /etc/sluice/appliance --role agent --name web-1
  sluice-appliance issue-cert --dir /etc/sluice/appliance --role hydrator --name main
  sluice-appliance run --config /etc/sluice/appliance/appliance.toml
  sluice-appliance revoke --dir /etc/sluice/appliance web-1.pem

Environment:
  SLUICE_LOG  what is logged to stderr, such as info (the default) or sluice_appliance=debug
  AZURE_* and AWS_*  credentials of the cache store

Exit codes:
  0  done; or ended by SIGTERM or SIGINT, what was under way goes on at the next start
  1  could not go on; the last line says why
  2  the command line or the configuration is wrong; nothing was started";

/// Admits, schedules, throttles and stores what agents ship, which it can't read, until hydrators have applied it.
#[derive(Debug, Parser)]
#[command(name = "sluice-appliance", version, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves agents, hydrators and operators until it is told to end.
    #[command(after_help = "Example:\n  sluice-appliance run --config /etc/sluice/appliance/appliance.toml")]
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
    },
    /// Reads a configuration and says whether it could be run; starts nothing.
    #[command(after_help = "Example:\n  sluice-appliance check --config /etc/sluice/appliance/appliance.toml")]
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
    },
    /// Makes a certificate authority, the appliance's certificate, an operator's, and a configuration to fill in.
    #[command(after_help = "Example:\n  sluice-appliance init --dir /etc/sluice/appliance --name sluice.example")]
    Init(InitArgs),
    /// Issues a certificate for an agent, a hydrator or an operator.
    #[command(after_help = "\
Example:
  sluice-appliance issue-cert --dir /etc/sluice/appliance --role agent --name web-1

Writes ca.pem, ROLE.pem and ROLE-key.pem, which the other side's configuration names.")]
    IssueCert(IssueArgs),
    /// Issues the appliance's own certificate anew. Restart the appliance to put it in force.
    #[command(after_help = "Example:\n  sluice-appliance renew --dir /etc/sluice/appliance --name sluice.example")]
    Renew {
        /// The folder that `init` made.
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
        /// A host name or address that clients connect to; may be given several times. This host's own if none.
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// How long it is valid.
        #[arg(long, default_value_t = ISSUED_DAYS)]
        days: u32,
    },
    /// Locks a certificate out, from now on and on connections that are open.
    #[command(
        after_help = "Example:\n  sluice-appliance revoke --dir /etc/sluice/appliance issued/agent-web-1/agent.pem"
    )]
    Revoke {
        /// The folder that `init` made.
        #[arg(long, value_name = "FOLDER")]
        dir: PathBuf,
        /// The certificate's PEM file, or its SHA-256 fingerprint from a log.
        certificate: String,
    },
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The folder to make them in.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// A host name or address that clients connect to; may be given several times. This host's own if none.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, init::PORT)))]
    listen: SocketAddr,
    /// The cache store: file:///folder, az://container or s3://bucket. A folder beside the configuration if none.
    #[arg(long, value_name = "URL")]
    cache: Option<String>,
    /// Replace what is there, the authority included: every certificate that it issued is worthless then.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct IssueArgs {
    /// The folder that `init` made.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// agent, hydrator or operator.
    #[arg(long)]
    role: Role,
    /// What the holder is called, in logs and wherever rights are checked.
    #[arg(long)]
    name: PeerName,
    /// How long it is valid.
    #[arg(long, default_value_t = ISSUED_DAYS)]
    days: u32,
    /// The folder to write to; `issued/ROLE-NAME` in the other one if none.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
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
        Command::Run { config } => with_config(&config, run::run),
        Command::Check { config } => with_config(&config, |_| {
            eprintln!("{}: can be run", config.display());
            Ok(())
        }),
        Command::Init(args) => report(make(args)),
        Command::IssueCert(args) => report(issue(args)),
        Command::Renew { dir, names, days } => report(renew(&dir, &names, days)),
        Command::Revoke { dir, certificate } => report(revoke(&dir, &certificate)),
    }
}

fn with_config(file: &std::path::Path, go: impl FnOnce(&Config) -> Result<(), Box<dyn Error>>) -> ExitCode {
    match Config::load(file) {
        Ok(config) => report(go(&config)),
        Err(error) => {
            eprintln!("sluice-appliance: {error}");
            ExitCode::from(2)
        }
    }
}

fn report(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    eprintln!("sluice-appliance: {text}");
    ExitCode::from(1)
}

fn make(args: InitArgs) -> Result<(), Box<dyn Error>> {
    let InitArgs { dir, names, listen, cache, force } = args;
    let made = init::init(&Init { dir, names, listen, cache, force }, Timestamp::now())?;
    eprintln!(
        "Configuration: {} (look it through, then: sluice-appliance run --config FILE)\n\
         Clients reach the appliance as: {}\n\
         Operator's certificate: {}\n\
         The key of the authority, tls/ca-key.pem, is needed only to issue certificates; it may be kept elsewhere.\n\
         Next: sluice-appliance issue-cert --role agent --name NAME, and one with --role hydrator.",
        made.config.display(),
        made.names.join(", "),
        made.operator.folder.display()
    );
    Ok(())
}

fn issue(args: IssueArgs) -> Result<(), Box<dyn Error>> {
    let IssueArgs { dir, role, name, days, out, force } = args;
    let issued = init::issue(&dir, &Certificate { role, name, days, out, force }, Timestamp::now())?;
    println!("{}", issued.folder.display());
    eprintln!(
        "The folder above holds ca.pem, {role}.pem and {role}-key.pem for the {role}'s configuration.\n\
         Fingerprint, to revoke it by: {}",
        issued.fingerprint
    );
    Ok(())
}

fn renew(dir: &std::path::Path, names: &[String], days: u32) -> Result<(), Box<dyn Error>> {
    let names = init::issue_server(dir, names, days, Timestamp::now())?;
    eprintln!("Clients reach the appliance as: {}. Restart it to put the certificate in force.", names.join(", "));
    Ok(())
}

fn revoke(dir: &std::path::Path, certificate: &str) -> Result<(), Box<dyn Error>> {
    let fingerprint = init::revoke(dir, certificate)?;
    eprintln!("{fingerprint} is let in no more.");
    Ok(())
}
