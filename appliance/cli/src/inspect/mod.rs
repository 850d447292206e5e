//! `sluice inspect`: explains a file that Sluice made, and checks what can be checked without the key.

mod disks;
mod objects;
mod states;

use crate::outcome::{Outcome, Refusal};
use sluice_proto::header::ObjectKind;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const AFTER: &str = "\
FILE is a segment, a manifest or a digests object of a cache store, a disk image (VHD, VHDX), or a state file: the
agent's disk.json, plan.json, bitmaps, segments.log, the hydrator's ledger, the appliance's database. What kind of file
it is, its first bytes tell. Keys are never shown.

Examples:
  sluice inspect /srv/images/vdb.vhd
  sluice inspect /mnt/cache/0b0e2c1e-5d55-4b62-8a4b-1f1f0d7a3a11/g00000001/c00000003/manifest
  sluice inspect vdb.vhd.sluice/hydrator/ledger

Exit codes:
  0  nothing is wrong with it, as far as can be told without the key
  1  something is wrong; the lines that say WRONG say what
  2  it could not be read, or it is no file of a kind that Sluice knows";

/// Explains a file that Sluice made, and checks what can be checked without the key.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// The file.
    file: PathBuf,
}

/// What there is to say of a file.
#[derive(Debug, Default)]
pub struct Findings {
    lines: Vec<String>,
    wrong: bool,
}

impl Findings {
    /// What the file is.
    fn of(what: &str) -> Self {
        Self { lines: vec![what.to_owned()], wrong: false }
    }

    /// A fact.
    fn fact(&mut self, name: &str, value: impl std::fmt::Display) {
        self.lines.push(format!("  {name:<22} {value}"));
    }

    /// Something that was checked and found right.
    fn good(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("  ok: {what}"));
    }

    /// Something that was checked and found wrong.
    fn wrong(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("  WRONG: {what}"));
        self.wrong = true;
    }

    /// Worth knowing, and no fault.
    fn note(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("  note: {what}"));
    }
}

/// Looks and tells.
pub async fn run(args: &Args) -> Result<Outcome, Refusal> {
    let found = look(&args.file)?;
    print_line!("{}: {}", args.file.display(), found.lines.join("\n"));
    Ok(if found.wrong { Outcome::Bad } else { Outcome::Good })
}

/// Bytes that tell what a file is.
const HEAD_BYTES: u64 = 64;
/// The largest object or record that is read: a manifest of a 64 TiB disk in tatters.
const WHOLE_BYTES_MAX: u64 = 2 << 30;

fn look(path: &Path) -> Result<Findings, Refusal> {
    let failed = |e: std::io::Error| Refusal::at(path.display(), e);
    let mut file = File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if facts.is_dir() {
        return Err(Refusal::new(format!("{} is a folder: name one of its files", path.display())));
    }
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
    if let Some(kind) = ObjectKind::recognise(&head) {
        return Ok(objects::look(kind, &whole(path)?, path));
    }
    if let Some(found) = states::look(path, &head)? {
        return Ok(found);
    }
    disks::look(path)
}

/// All of a file that is no disk.
fn whole(path: &Path) -> Result<Vec<u8>, Refusal> {
    sluice_platform::durable::read_file_limited(path, WHOLE_BYTES_MAX).map_err(Refusal::of)
}
