//! Everything that can be refused before anything is made.

use super::Args;
use super::settings::Origin;
use crate::outcome::Refusal;
use sluice_hydrator::formats::{Format, Layout};
use sluice_hydrator::targets::{Place, preview, state_folder};
use sluice_platform::device::{DeviceFacts, is_block_device};
use sluice_platform::durable;
use sluice_platform::lock::StateLock;
use sluice_platform::system::{OsEntropy, SystemClock};
use sluice_proto::DISK_SECTORS_MAX;
use sluice_proto::env::Clock;
use std::path::{Path, PathBuf};

/// A run that may begin.
pub struct Prepared {
    /// The source, with all links followed.
    pub source: PathBuf,
    /// Where the copy goes.
    pub place: Place,
    /// The state folder; it is there.
    pub state: PathBuf,
    /// What the operator may want to know.
    pub remarks: Vec<String>,
    /// Held as long as the run lasts.
    pub lock: StateLock,
}

/// Looks at source, target and state; makes the state folder last.
pub fn prepare(args: &Args) -> Result<Prepared, Refusal> {
    let facts = source_facts(&args.source)?;
    let (place, state) = place(args, &facts)?;
    Layout::create(place.format, facts.size, &OsEntropy::new(), SystemClock.unix_ms())
        .map_err(|e| Refusal::at(format_args!("source {}", args.source.display()), e))?;
    let origin = Origin::new(&facts.path, args.cache.as_deref());
    check_origin(args, &state, &origin)?;
    let plan = preview(&place, facts.size).map_err(Refusal::of)?;
    durable::create_folder(&state).map_err(Refusal::of)?;
    let lock = StateLock::take(&state).map_err(Refusal::of)?;
    origin.save(&state)?;
    Ok(Prepared { source: facts.path, place, state, remarks: plan.warnings, lock })
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

/// The state folder of another source, or of a cycle that waits in another cache, is not to be gone on with in silence.
fn check_origin(args: &Args, state: &Path, now: &Origin) -> Result<(), Refusal> {
    let Some(then) = Origin::load(state)? else { return Ok(()) };
    if then.source != now.source && !args.yes {
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
    Ok(())
}
