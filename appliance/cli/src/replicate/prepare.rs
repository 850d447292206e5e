//! Everything that can be refused before anything is made.

use super::Args;
use super::settings::Origin;
use crate::outcome::Refusal;
use sluice_agent::journal::identity_in;
use sluice_hydrator::formats::{Format, Layout, open};
use sluice_hydrator::targets::{Place, preview, state_folder};
use sluice_platform::device::{DeviceFacts, Medium, is_block_device};
use sluice_platform::durable;
use sluice_platform::lock::StateLock;
use sluice_platform::system::{OsEntropy, SystemClock};
use sluice_proto::DISK_SECTORS_MAX;
use sluice_proto::env::Clock;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A run that may begin.
pub struct Prepared {
    /// The source, with all links followed.
    pub source: PathBuf,
    /// Where the copy goes.
    pub place: Place,
    /// The state folder; it is there.
    pub state: PathBuf,
    /// The source is another medium than that of the last run, and is to take its place.
    pub is_other_medium: bool,
    /// What the operator may want to know.
    pub remarks: Vec<String>,
    /// Held as long as the run lasts.
    pub lock: StateLock,
}

/// Looks at source, target and state; makes the state folder last.
pub fn prepare(args: &Args) -> Result<Prepared, Refusal> {
    let facts = source_facts(&args.source)?;
    check_no_image(&args.source, &facts)?;
    let (place, state) = place(args, &facts)?;
    Layout::create(place.format, facts.size, &OsEntropy::new(), SystemClock.unix_ms())
        .map_err(|e| Refusal::at(format_args!("source {}", args.source.display()), e))?;
    let origin = Origin::new(&facts.path, args.cache.as_deref());
    let is_other_medium = check_origin(args, &state, &origin, &facts.medium)?;
    let plan = preview(&place, facts.size).map_err(Refusal::of)?;
    durable::create_folder(&state).map_err(Refusal::of)?;
    let lock = StateLock::take(&state).map_err(Refusal::of)?;
    origin.save(&state)?;
    Ok(Prepared { source: facts.path, place, state, is_other_medium, remarks: plan.warnings, lock })
}

/// What the source is, or why it can't be one.
fn source_facts(path: &Path) -> Result<DeviceFacts, Refusal> {
    let facts = DeviceFacts::of(path).map_err(|e| Refusal::at(format_args!("source {}", path.display()), e))?;
    let shown = path.display();
    if facts.size.0 == 0 {
        return Err(Refusal::new(format!("source {shown} is empty: there is nothing to copy")));
    }
    if facts.size.sectors_ceil().0 > DISK_SECTORS_MAX {
        let text = format!("source {shown} has {} bytes, more than the 64 TiB that a disk may have", facts.size);
        return Err(Refusal::new(format!("{text}: replicate its partitions one by one")));
    }
    Ok(facts)
}

/// An image's file is not the disk that is in it: its bytes as they are would boot nowhere.
fn check_no_image(source: &Path, facts: &DeviceFacts) -> Result<(), Refusal> {
    if is_block_device(&facts.path) || matches!(Format::from_suffix(source), Ok(Format::Raw)) {
        return Ok(());
    }
    let shown = source.display();
    let file = File::open(&facts.path).map_err(|e| Refusal::at(format_args!("source {shown}"), e))?;
    // One that is damaged is an image all the same.
    let format = match open(&file, facts.size) {
        Ok(image) => Some(image.format).filter(|format| *format != Format::Raw).map(Format::name),
        Err(_) => Some("damaged or unknown"),
    };
    match format {
        None => Ok(()),
        Some(format) => Err(Refusal::new(format!(
            "source {shown} is a disk image ({format}): a source's bytes are copied as they are, and not the disk that is in it. \
             Attach it as a device first, or make it raw (qemu-img convert -O raw); if its bytes are meant, let its name end in .raw"
        ))),
    }
}

/// The target and the state folder.
fn place(args: &Args, facts: &DeviceFacts) -> Result<(Place, PathBuf), Refusal> {
    let format = match args.format {
        Some(format) => format,
        None if is_block_device(&args.target) => Format::Raw,
        None => Format::from_suffix(&args.target).map_err(Refusal::of)?,
    };
    let path = std::path::absolute(&args.target).map_err(|e| Refusal::at(args.target.display(), e))?;
    let state = args.state.clone().map_or_else(|| state_folder(&path), Ok).map_err(Refusal::of)?;
    let source = Some(facts.path.clone());
    Ok((Place { path, format, state: Some(state.join("hydrator")), overwrite: args.yes, source }, state))
}

/// The state folder of another source, or of a cycle that waits in another cache, is not to be gone on with in silence. The
/// source is known by its medium where that has a name of its own, else by its path. True where another medium is to take its
/// place.
fn check_origin(args: &Args, state: &Path, now: &Origin, medium: &Medium) -> Result<bool, Refusal> {
    let Some(then) = Origin::load(state)? else { return Ok(false) };
    let known =
        identity_in(&state.join("agent")).map_err(Refusal::of)?.map(|identity| identity.medium).unwrap_or_default();
    let is_other = known.differs(medium);
    if is_other && !args.yes {
        return Err(other_medium(args, now, &known, medium));
    }
    // Where the one of before is there too, under the same names, they tell nothing apart.
    let still_there = then.source != now.source && Medium::at(&then.source).is_ok_and(|other| known.is_same(&other));
    if then.source != now.source && (still_there || !known.is_same(medium)) && !args.yes {
        return Err(Refusal::new(format!(
            "target {} is the copy of {}, not of {}: if they are one disk under two names say --yes (they are compared \
             then, and what differs is overwritten), else name another target",
            args.target.display(),
            then.source.display(),
            now.source.display()
        )));
    }
    let unfinished = state.join("agent/plan.json").exists();
    if then.cache != now.cache && unfinished {
        let place = then.cache.map_or("no --cache".to_owned(), |cache| format!("--cache {cache}"));
        return Err(Refusal::new(format!(
            "target {}: a cycle that was begun with {place} is not finished: run it once more with that, then change it",
            args.target.display()
        )));
    }
    Ok(is_other)
}

fn other_medium(args: &Args, now: &Origin, known: &Medium, found: &Medium) -> Refusal {
    let place = known.find().map_or("it is not there now".to_owned(), |at| format!("it is {} now", at.display()));
    Refusal::new(format!(
        "target {} is the copy of another disk than {} is now ({known}; found: {found}); {place}: name that as the source, or \
         another target; or say --yes if this disk takes its place (they are compared then, and what differs is overwritten)",
        args.target.display(),
        now.source.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use sluice_agent::journal::{FolderRecords, Identity, Journal};
    use sluice_proto::keys::DataKey;
    use sluice_proto::{ByteCount, DiskId};

    fn medium(serial: &str) -> Medium {
        serde_json::from_str(&format!(r#"{{"serial":"{serial}"}}"#)).expect("a medium")
    }

    fn args(options: &[&str]) -> Args {
        let line = [&["sluice", "replicate", "/dev/vdb", "t.vhd"], options].concat();
        let Command::Replicate(args) = Cli::try_parse_from(line).expect("well typed").command else {
            panic!("another command")
        };
        args
    }

    #[test]
    fn a_source_is_known_by_its_medium() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path();
        let origin = |path: &str| Origin::new(Path::new(path), None);
        origin("/dev/vdb").save(state).expect("saved");
        let sample = include_bytes!("../../../../proto/samples/v1-key-envelope.json");
        let envelope = serde_json::from_slice(sample).expect("the sample");
        let identity = Identity::new(DiskId([1; 16]), ByteCount(4096), &DataKey::new([2; 32]), envelope);
        let records = Box::new(FolderRecords::open(&state.join("agent")).expect("a folder"));
        Journal::create(records, Identity { medium: medium("one"), ..identity }).expect("a journal");

        let check = |options: &[&str], path: &str, found: &Medium| {
            check_origin(&args(options), state, &origin(path), found).map_err(|e| e.to_string())
        };
        assert_eq!(check(&[], "/dev/vdb", &medium("one")), Ok(false));
        assert_eq!(check(&[], "/dev/vdc", &medium("one")), Ok(false), "the kernel gave it another name");
        let error = check(&[], "/dev/vdb", &medium("two")).expect_err("another under its name");
        for word in ["serial one", "serial two", "not there now", "--yes"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert_eq!(check(&["--yes"], "/dev/vdb", &medium("two")), Ok(true), "it is to take its place");
        let nothing = Medium::default();
        assert_eq!(check(&[], "/dev/vdb", &nothing), Ok(false), "as it was before media were known");
        check(&[], "/dev/vdc", &nothing).expect_err("another path");
        assert_eq!(check(&["--yes"], "/dev/vdc", &nothing), Ok(false));
    }

    #[test]
    fn an_image_is_no_source_and_a_raw_disk_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            check_no_image(&path, &source_facts(&path).expect("facts")).map_err(|e| e.to_string()).err()
        };
        let mut vhdx = vec![0; 1 << 20];
        vhdx[..8].copy_from_slice(b"vhdxfile");
        assert!(refused("disk.vhdx", &vhdx).expect("an image").contains("qemu-img convert"));
        assert_eq!(refused("disk.img", &vhdx), None, "a guest may write what it likes into its raw disk");
        assert_eq!(refused("disk", &vec![7; 1 << 20]), None);
    }
}
