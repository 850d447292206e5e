//! Which disk goes to which target on this machine.

mod found;
mod medium;
mod place;

pub use medium::{MediumOf, asks_the_kernel};
pub use place::{Place, state_folder};

use crate::apply::TargetFactory;
use crate::formats::Format;
use crate::ledger::{LEDGER_BYTES_MAX, LEDGER_NAME, Ledger, TargetRecord};
use crate::state::{StateError, StateFolder, StateStore};
use crate::target::plan::{TargetPlan, TargetSpec, plan};
use crate::target::{Target, TargetError, TargetErrorKind};
use async_trait::async_trait;
use sluice_platform::durable::read_file_if_exists;
use sluice_proto::env::{Clock, Entropy};
use sluice_proto::wire::Work;
use sluice_proto::{ByteCount, DiskId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Targets as files and devices of this machine.
pub struct LocalTargets {
    /// Targets by disk.
    pub named: BTreeMap<DiskId, Place>,
    /// The target of a disk that is not named, as `replicate` has it: one disk, one target.
    pub any: Option<Place>,
    /// Where the targets of disks that are not named are made, and their format.
    pub folder: Option<(PathBuf, Format)>,
    /// Dates new images.
    pub clock: Arc<dyn Clock>,
    /// Makes their ids.
    pub entropy: Arc<dyn Entropy>,
    /// Tells which medium a block device is.
    pub medium_of: MediumOf,
}

impl LocalTargets {
    /// A factory for one disk, whichever it is.
    pub fn one(place: Place, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { named: BTreeMap::new(), any: Some(place), folder: None, clock, entropy, medium_of: asks_the_kernel() }
    }

    /// The place that the configuration names for the disk.
    fn named(&self, disk: DiskId) -> Option<&Place> {
        self.named.get(&disk).or(self.any.as_ref())
    }

    fn place(&self, work: &Work) -> Option<Place> {
        if let Some(place) = self.named(work.disk) {
            return Some(place.clone());
        }
        let (folder, format) = self.folder.as_ref()?;
        let suffix = match format {
            Format::Vhd | Format::VhdDynamic => "vhd",
            Format::Vhdx | Format::VhdxDynamic => "vhdx",
            Format::Raw => "raw",
        };
        // The agent chose the name: only what can't lead out of the folder is kept of it.
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
        let name: String = work.name.chars().take(64).map(plain).collect();
        let path = folder.join(format!("{}-{}.{suffix}", name.trim_matches('-'), work.disk));
        // It may be another name than when the target was made.
        let path = found::of(folder, work.disk, &path).unwrap_or(path);
        Some(Place { path, format: *format, state: None, overwrite: false, source: None })
    }

    fn spec(&self, work: &Work, record: &TargetRecord) -> Result<TargetSpec, TargetError> {
        let place = self.place(work);
        let format = record.format.parse().map_err(|e: crate::formats::BadFormat| {
            TargetError::new(TargetErrorKind::NotOurs, format!("the ledger of target {}: {e}", record.path))
        })?;
        let (source, overwrite) = place.map_or((None, false), |place| (place.source, place.overwrite));
        Ok(TargetSpec { path: PathBuf::from(&record.path), format, size: work.size, source, overwrite })
    }

    /// The target of ours in the size that it is to have.
    fn resized(&self, work: &Work, record: &TargetRecord, to: ByteCount) -> Result<TargetPlan, TargetError> {
        plan(TargetSpec { size: to, ..self.spec(work, record)? }, true, false)
    }
}

/// What would be done to have this target, without doing any of it: for a refusal before anything was sent, and to be
/// shown before something is lost. Looks into the state that is there.
///
/// # Errors
/// The target may not be used, or its state can't be read.
pub fn preview(place: &Place, size: ByteCount) -> Result<TargetPlan, TargetError> {
    let folder = place.state_folder().map_err(|e| TargetError::new(TargetErrorKind::NotOurs, e.to_string()))?;
    let unreadable =
        |text: String| TargetError::new(TargetErrorKind::NotOurs, format!("state in {}: {text}", folder.display()));
    let bytes = read_file_if_exists(&folder.join(LEDGER_NAME), LEDGER_BYTES_MAX);
    let ledger = match bytes.map_err(|e| unreadable(e.to_string()))? {
        Some(bytes) => Some(Ledger::decode(&bytes).map_err(unreadable)?),
        None => None,
    };
    let record = ledger.as_ref().and_then(|ledger| ledger.target.as_ref());
    medium::device_of(place, ledger.as_ref(), &asks_the_kernel())?;
    if let Some(ledger) = ledger.as_ref().filter(|l| size < l.size_to_be() && record.is_some()) {
        let text = format!(
            "the source has {size} bytes now, target {} was made for {}, and a target never shrinks: make the source as \
             large as it was, or name a new target (the whole source is sent to it)",
            place.path.display(),
            ledger.size_to_be()
        );
        return Err(TargetError::new(TargetErrorKind::SizeChanged, text));
    }
    let made = ledger.as_ref().is_some_and(Ledger::target_is_made);
    let from = ledger.as_ref().filter(|_| made).map(|ledger| ledger.source_size);
    let begun = record.is_some_and(|r| !r.made && Path::new(&r.path) == place.path);
    let Place { path, format, overwrite, source, .. } = place.clone();
    let plan = plan(TargetSpec { path, format, size, source, overwrite }, made, begun)?;
    from.map_or(Ok(()), |from| plan.check_growth(from))?;
    Ok(plan)
}

#[async_trait]
impl TargetFactory for LocalTargets {
    async fn state(&self, work: &Work) -> Result<Arc<dyn StateStore>, StateError> {
        let place = self.place(work).ok_or_else(|| {
            let text = format!(
                "disk {} ({:?}) has no target: add a [[target]] for it, or [targets] with a folder",
                work.disk, work.name
            );
            StateError::new(text)
        })?;
        Ok(Arc::new(StateFolder::open(&place.state_folder()?)?))
    }

    async fn choose(&self, work: &Work, ledger: &Ledger) -> Result<TargetRecord, TargetError> {
        let place = self.place(work).ok_or_else(|| {
            TargetError::new(TargetErrorKind::NotOurs, format!("disk {} has no target in the configuration", work.disk))
        })?;
        let device = medium::device_of(&place, Some(ledger), &self.medium_of)?;
        let path = place.path.display().to_string();
        if let Some(record) = ledger.target.clone().filter(|r| r.made) {
            // The ledger goes with the target, which may have been moved together with it; the format can't change.
            // For the targets' folder what it says is that of new ones.
            if record.format != place.format.name() && self.named(work.disk).is_some() {
                let text = format!(
                    "target {} was made as {}, {} is asked for now: keep the format, or begin a new target",
                    record.path, record.format, place.format
                );
                return Err(TargetError::new(TargetErrorKind::NotOurs, text));
            }
            return Ok(TargetRecord { path, device, ..record });
        }
        let begun = ledger.target.as_ref().is_some_and(|r| Path::new(&r.path) == place.path);
        let record = TargetRecord { path, format: place.format.name().into(), made: false, device };
        let plan = plan(self.spec(work, &record)?, false, begun)?;
        for warning in plan.warnings {
            tracing::warn!(disk = %work.disk, "{warning}");
        }
        Ok(record)
    }

    async fn make(&self, work: &Work, record: &TargetRecord) -> Result<(), TargetError> {
        medium::check_again(record, &self.medium_of)?;
        let plan = plan(self.spec(work, record)?, false, true)?;
        plan.carry_out(&*self.clock, self.entropy.clone()).await.map(drop)
    }

    async fn open(&self, work: &Work, record: &TargetRecord) -> Result<Arc<dyn Target>, TargetError> {
        let plan = plan(self.spec(work, record)?, true, false)?;
        let target = plan.carry_out(&*self.clock, self.entropy.clone()).await?;
        // What is open by now stays what it is.
        medium::check_again(record, &self.medium_of)?;
        Ok(target)
    }

    async fn check_growth(
        &self,
        work: &Work,
        record: &TargetRecord,
        from: ByteCount,
        to: ByteCount,
    ) -> Result<(), TargetError> {
        self.resized(work, record, to)?.check_growth(from)
    }

    async fn grow(
        &self,
        work: &Work,
        record: &TargetRecord,
        from: ByteCount,
        to: ByteCount,
    ) -> Result<(), TargetError> {
        self.resized(work, record, to)?.grow(from, self.entropy.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Source;
    use sluice_cache_store::MemoryStore;
    use sluice_platform::system::{OsEntropy, SystemClock};
    use sluice_proto::SectorCount;
    use sluice_proto::cycle::CycleKind;

    #[test]
    fn no_name_leads_out_of_the_folder_of_targets() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = Source::new(4096, 93, Arc::new(MemoryStore::new()));
        let named = |name: &str| {
            let place =
                Place { path: PathBuf::new(), format: Format::Vhd, state: None, overwrite: false, source: None };
            let local = LocalTargets::one(place, Arc::new(SystemClock), Arc::new(OsEntropy::new()));
            let local = LocalTargets { any: None, folder: Some((folder.path().into(), Format::Vhd)), ..local };
            let work = source.work(CycleKind::Initial, 1, SectorCount(8), None);
            local.place(&Work { name: name.to_owned(), ..work }).expect("a place").path
        };
        assert_eq!(named("web-1 /dev/sda"), folder.path().join(format!("web-1--dev-sda-{}.vhd", source.disk)));
        let long = "x/".repeat(500);
        for name in ["../../escaped", "/etc/passwd", "a/../../b", ".", "..", "", "\0", "a\nb", "\u{202e}gpj.exe", &long]
        {
            let path = named(name);
            assert_eq!(path.parent(), Some(folder.path()), "{name:?}: {path:?}");
            let file = path.file_name().and_then(|file| file.to_str()).expect("a name");
            assert!(file.len() <= 128 && file.ends_with(&format!("{}.vhd", source.disk)), "{name:?}: {file}");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            assert!(file.chars().all(plain) && !file.starts_with('.'), "{name:?}: {file}");
        }
    }
}
