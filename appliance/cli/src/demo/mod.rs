//! `sluice demo`: the whole of Sluice at work on a disk that keeps changing.

mod cluster;
mod judge;
mod stage;
mod watch;
mod writers;

use crate::outcome::{Outcome, Refusal};
use crate::progress::say;
use crate::report;
use crate::signals::Signals;
use crate::units;
use cluster::Cluster;
use stage::Stage;
use std::path::Path;
use watch::Watch;
use writers::Writers;

const AFTER: &str = "\
What it does: makes a disk in a temporary folder, fills it, and starts agent, appliance and hydrator as three processes
that speak TLS over the loopback. The agent replicates the disk to a fixed VHD, through an appliance that is throttled
and a cache folder, while files on the disk are written, cut short and deleted. After each cycle bitmaps and BLAKE3
digests of both sides are compared. Before the last one the disk is unmounted; in the end all of both disks is compared,
by Sluice and, where it is installed, by qemu-img.

As root with BPF the disk is an ext4 on a loop device and writes are tracked in the kernel (ebpf); else it is an image
file that is compared (scan). It needs room for about 0.6 times --size where $TMPDIR is.

Examples:
  sluice demo
  sluice demo --size 512M --rounds 8
  sluice demo --keep

Exit codes:
  0  every cycle was verified, and the disks are equal
  1  a cycle failed, or the disks differ
  2  it could not be run; the last line says why
  3  interrupted";

/// Shows the whole of Sluice at work: three processes replicate a disk that keeps changing.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// Keeps disk, target, logs and state, and says where.
    #[arg(long)]
    pub keep: bool,
    /// The disk's size, such as 512M or 2G; 64M at least.
    #[arg(long, default_value = "2G", value_parser = disk_size)]
    pub size: u64,
    /// Cycles: the first is the initial copy, the last the final cycle.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub rounds: u64,
}

/// The least that ext4 and the files that are written into it need.
const SIZE_MIN: u64 = 64 << 20;

fn disk_size(text: &str) -> Result<u64, String> {
    match units::size(text)? {
        size if size < SIZE_MIN => Err(format!("the disk must have {} at least", units::bytes(SIZE_MIN))),
        size if size % 512 != 0 => Err("a disk has whole sectors of 512 bytes".to_owned()),
        size => Ok(size),
    }
}

/// Sets the stage, plays, judges, and takes everything down again, however it ends.
pub async fn run(args: &Args) -> Result<Outcome, Refusal> {
    let mut signals = Signals::new()?;
    let mut stage = Stage::set(args)?;
    let result = tokio::select! {
        biased;
        () = signals.next() => {
            say("interrupted: taking everything down");
            Ok(Outcome::Interrupted)
        }
        result = play(args, &mut stage) => result,
    };
    if result.is_err() {
        stage.show_logs();
    }
    stage.take_down();
    result
}

async fn play(args: &Args, stage: &mut Stage) -> Result<Outcome, Refusal> {
    introduce(args, stage);
    let writers = Writers::begin(stage.playground(), args.size)?;
    let mut cluster = Cluster::start(stage).await?;
    say(format!("three processes: {}", cluster.describe()));
    let mut watch = Watch::new(&mut cluster, args.rounds);
    watch.until_rest().await?;
    let written = writers.end()?;
    say(format!("{} changes were made meanwhile, {} written", written.changes, units::bytes(written.bytes)));
    stage.rest()?;
    say("the source is at rest: the final cycle compares whole disks");
    let cycles = watch.finish().await?;
    drop(cluster);
    print_line!("{}", report::table(&cycles).trim_end());
    let all_verified =
        cycles.iter().all(|c| c.verified && c.bitmaps_equal == Some(true) && c.digests_equal() == Some(true));
    let equal = judge::judge(stage.source(), &stage.target()?).await?;
    let good = all_verified && equal;
    print_line!("{}", if good { "all verified" } else { "NOT all verified" });
    Ok(if good { Outcome::Good } else { Outcome::Bad })
}

fn introduce(args: &Args, stage: &Stage) {
    let size = units::bytes(args.size);
    let source = stage.source().display();
    match stage.why_scan() {
        None => say(format!("a disk of {size}: ext4 on {source}, mounted; its writes are tracked by ebpf")),
        Some(why) => say(format!("a disk of {size}: the image file {source}, compared (scan), as {why}")),
    }
    say(format!("in {}", shown(stage.folder(), args.keep)));
}

fn shown(folder: &Path, keep: bool) -> String {
    let fate = if keep { "kept" } else { "removed at the end" };
    format!("{} ({fate})", folder.display())
}
