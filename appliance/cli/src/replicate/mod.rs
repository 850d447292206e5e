//! `sluice replicate`: agent, appliance and hydrator in one process, for one disk.

mod drive;
mod parts;
mod prepare;
mod settings;
mod show;
mod turnstile;

use crate::outcome::{Outcome, Refusal};
use crate::{progress, units};
use sluice_agent::protect::TrackerChoice;
use sluice_hydrator::formats::Format;
use std::path::PathBuf;
use std::time::Duration;

const AFTER: &str = "\
The first run copies the whole source; each later one what was written since: by the tracker where tracking was unbroken
since the last run, else by comparing. Without --follow it ends after one verified cycle that began in this run; a cycle
that was cut short is finished first. A cycle that fails is told, and tried again up to three times where that can help.

A source that has grown is compared with its target in the new size, and what differs is copied; the target grows in place.
A source that shrank is refused: a target never shrinks.

Trackers: `ebpf` (root, block devices) notes each write in the kernel, and goes on with that after sluice has ended, so
that the next run costs what changed; to end it, remove the disk's folder below /sys/fs/bpf/sluice. `scan` reads all of
the source every time and leaves nothing behind. `auto` takes ebpf where it can be had, and says so where not.

Without --cache no byte leaves this process, so cycles are neither compressed nor encrypted: they wait in memory, and
what does not fit into 192 MiB in the state folder, until they are verified. With --cache they are compressed by zstd and sealed by AES-256-GCM.

SIGTERM or SIGINT lets the running cycle end if it can within 15 seconds, else leaves it to be taken up by the next run;
a second signal ends at once.

Examples:
  sluice replicate /dev/vdb /srv/images/vdb.vhd
  sluice replicate disk.img copy.vhdx --format vhdx-dynamic --tracker scan
  sluice replicate /dev/vdb vdb.vhd --follow --min-interval 1m --max-interval 10m --limit 200Mbit/s
  sluice replicate /dev/vdb vdb.vhd --cache file:///mnt/cache --json

Exit codes:
  0  the target is verified; with --follow also: ended by a signal
  1  the last cycle failed, or the cache or the state is full; nothing is lost, and the next run goes on from there
  2  nothing could be done: the command line, the source or the target is at fault; the last line says what to do
  3  ended by a signal before the target was verified; the next run goes on from there";

/// Copies one disk to a target on this machine, or brings the target up to date.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The block device or raw disk file to copy.
    pub source: PathBuf,
    /// The image file or block device to be its copy.
    pub target: PathBuf,
    /// The target's format: vhd, vhd-dynamic, vhdx, vhdx-dynamic or raw; by the target's suffix if none is given.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// How changed sectors are found: auto, ebpf or scan.
    #[arg(long, value_name = "TRACKER", default_value = "auto")]
    pub tracker: Tracker,
    /// A cache store for segments between source and target: file:///folder, az://container or s3://bucket.
    #[arg(long, value_name = "URL")]
    pub cache: Option<String>,
    /// The folder for state [default: TARGET.sluice; for a block device one below /var/lib/sluice].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Goes on with cycle after cycle, until it is told to end.
    #[arg(long)]
    pub follow: bool,
    /// The shortest pause between two cycles, such as 1s, 5m or 1h [default: 1h].
    #[arg(long, value_name = "DUR", value_parser = units::duration)]
    pub min_interval: Option<Duration>,
    /// The longest, for disks whose cycles take long [default: 12h].
    #[arg(long, value_name = "DUR", value_parser = units::duration)]
    pub max_interval: Option<Duration>,
    /// How much may be sent: 200Mbit/s, 50MB/s.
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub limit: Option<String>,
    /// Prints one JSON object a cycle on stdout.
    #[arg(long)]
    pub json: bool,
    /// Takes a target that exists and is not ours, and a source that is not the one of the last run.
    #[arg(long)]
    pub yes: bool,
}

/// The tracker that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Tracker(TrackerChoice);

impl std::str::FromStr for Tracker {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

/// Checks, assembles, and runs it.
pub async fn run(args: &Args) -> Result<Outcome, Refusal> {
    let policy = settings::policy(args)?;
    loop {
        let prepared = prepare::prepare(args)?;
        prepared.remarks.iter().for_each(progress::say);
        let parts = parts::assemble(args, prepared, policy.clone()).await?;
        if let drive::Ended::Done(outcome) = drive::drive(args, parts).await? {
            return Ok(outcome);
        }
    }
}
