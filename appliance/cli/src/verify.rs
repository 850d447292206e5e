//! `sluice verify`: two whole disks compared.

use crate::outcome::{Outcome, Refusal};
use crate::progress::Bar;
use crate::units;
use serde::Serialize;
use sluice_hydrator::formats::Format;
use sluice_hydrator::verify::{Comparison, compare};
use sluice_proto::ByteCount;
use std::path::{Path, PathBuf};

const AFTER: &str = "\
SOURCE and TARGET may be block devices or image files (raw, VHD, VHDX) in any combination. Neither should be written to
meanwhile: what is written while it is compared is a difference. A longer disk must hold zeros behind the end of the
shorter one.

Examples:
  sluice verify /dev/vdb /srv/images/vdb.vhd
  sluice verify old.vhdx new.vhd --json

Exit codes:
  0  every sector is equal
  1  they differ; the extents that differ are listed, in sectors of 512 bytes
  2  they could not be compared; the last line says why";

/// Compares two whole disks.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The disk that the other should be equal to.
    source: PathBuf,
    /// The disk to judge.
    target: PathBuf,
    /// The source's format, where neither its suffix nor its contents shall decide: vhd, vhd-dynamic, vhdx,
    /// vhdx-dynamic or raw.
    #[arg(long, value_name = "FORMAT")]
    source_format: Option<Format>,
    /// The target's format, likewise.
    #[arg(long, value_name = "FORMAT")]
    target_format: Option<Format>,
    /// Prints one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Compares and tells.
pub async fn run(args: &Args) -> Result<Outcome, Refusal> {
    let comparison = compare_disks(
        (&args.source, args.source_format.or_else(|| raw_by_suffix(&args.source))),
        (&args.target, args.target_format.or_else(|| raw_by_suffix(&args.target))),
    )
    .await?;
    match args.json {
        true => print_line!("{}", json(&comparison)),
        false => tell(&comparison),
    }
    Ok(if comparison.equal { Outcome::Good } else { Outcome::Bad })
}

/// Compares, with a bar where there is a terminal.
pub async fn compare_disks(
    source: (&Path, Option<Format>),
    target: (&Path, Option<Format>),
) -> Result<Comparison, Refusal> {
    let bar = Bar::new("comparing");
    let compared = compare(source, target, |done, whole| bar.set(done.0, whole.0)).await;
    bar.clear();
    compared.map_err(Refusal::of)
}

/// The bytes of a raw disk are its guest's, who can make them look like any image.
fn raw_by_suffix(path: &Path) -> Option<Format> {
    Format::from_suffix(path).ok().filter(|format| *format == Format::Raw)
}

fn tell(comparison: &Comparison) {
    let Comparison { bytes, seconds, .. } = comparison;
    if comparison.equal {
        print_line!("equal: {} compared in {seconds:.1} s, BLAKE3 {}", units::bytes(bytes.0), comparison.source_digest);
        return;
    }
    print_line!(
        "DIFFERENT: {} sectors in {} extents, of {} compared in {seconds:.1} s",
        comparison.differing_sectors,
        comparison.differing_extents,
        units::bytes(bytes.0)
    );
    for extent in &comparison.differing {
        print_line!("  {extent} ({} from byte {})", units::bytes(extent.bytes().0), extent.start.offset());
    }
    let more = comparison.differing_extents - comparison.differing.len() as u64;
    if more > 0 {
        print_line!("  and {more} extents more");
    }
    print_line!("BLAKE3 of the source {}\nBLAKE3 of the target {}", comparison.source_digest, comparison.target_digest);
}

#[derive(Serialize)]
struct Json<'a> {
    equal: bool,
    bytes: ByteCount,
    seconds: f64,
    source_digest: &'a sluice_proto::Digest,
    target_digest: &'a sluice_proto::Digest,
    differing_sectors: u64,
    differing_extents: u64,
    /// The first of them, as `[first sector, sectors]`.
    extents: Vec<[u64; 2]>,
}

fn json(comparison: &Comparison) -> String {
    let shown = Json {
        equal: comparison.equal,
        bytes: comparison.bytes,
        seconds: comparison.seconds,
        source_digest: &comparison.source_digest,
        target_digest: &comparison.target_digest,
        differing_sectors: comparison.differing_sectors.0,
        differing_extents: comparison.differing_extents,
        extents: comparison.differing.iter().map(|e| [e.start.0, e.len.0]).collect(),
    };
    // Plain values only: this cannot fail.
    serde_json::to_string(&shown).unwrap_or_default()
}
