//! The command line as it is typed.

use crate::{demo, inspect, replicate, verify};
use clap::{Parser, Subcommand};

const AFTER: &str = "\
Examples:
  sluice demo
  sluice replicate /dev/vdb /srv/images/vdb.vhd --follow --min-interval 5m
  sluice verify /dev/vdb /srv/images/vdb.vhd
  sluice inspect /srv/images/vdb.vhd

The parts that run on machines of their own are sluice-agent, sluice-appliance and sluice-hydrator.
SLUICE_LOG=info (or debug, or a filter such as sluice_agent=debug) shows more of what goes on, on stderr.";

/// Keeps copies of disks in step with their sources, and proves it.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the whole of Sluice at work: three processes replicate a disk that keeps changing.
    Demo(demo::Args),
    /// Copies one disk to a target on this machine, or brings the target up to date.
    Replicate(replicate::Args),
    /// Compares two whole disks.
    Verify(verify::Args),
    /// Explains a file that Sluice made, and checks what can be checked without the key.
    Inspect(inspect::Args),
}
