//! Deciding about a target, and only then making it: plan, show, carry out.

use super::dynamic::{Metadata, run};
use super::flush::warn_if_cached;
use super::{DynamicTarget, LinearTarget, Target, TargetError, TargetErrorKind, writer};
use crate::formats::{Format, Layout, LiveImage, check_growth, grow, open_as};
use sluice_platform::device::{DeviceFacts, is_block_device, same_storage};
use sluice_platform::{OpenOptions, durable};
use sluice_proto::ByteCount;
use sluice_proto::env::{Clock, Entropy};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which target is wanted.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// The image's file or the block device.
    pub path: PathBuf,
    /// The image's format; raw for a block device.
    pub format: Format,
    /// The source's size.
    pub size: ByteCount,
    /// The source's path, where it is on this machine: the target must not lie on it.
    pub source: Option<PathBuf>,
    /// Whether a target that exists and is not ours may be overwritten.
    pub overwrite: bool,
}

/// What will be done to have a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is ours already.
    Open,
    /// A new file is made.
    Create,
    /// A file that is there is made anew: what is in it is lost.
    Overwrite,
    /// A block device becomes the target: what is on it is lost.
    TakeDevice,
}

/// A decision about a target, not yet carried out.
#[derive(Clone, Debug)]
pub struct TargetPlan {
    /// Which target.
    pub spec: TargetSpec,
    /// What will be done.
    pub action: Action,
    /// What an operator may want to know before.
    pub warnings: Vec<String>,
}

/// Decides about a target. `ours` says that the ledger knows it: a target that the ledger began to make and did not
/// finish is not `ours` yet, but `begun`, and is made again over its beginning.
///
/// # Errors
/// The target may not or cannot be used; nothing was changed.
pub fn plan(spec: TargetSpec, ours: bool, begun: bool) -> Result<TargetPlan, TargetError> {
    let shown = spec.path.display().to_string();
    let device = is_block_device(&spec.path);
    let exists = device || spec.path.symlink_metadata().is_ok();
    check_source(&spec, &shown)?;
    if ours {
        return match exists {
            true => Ok(TargetPlan { spec, action: Action::Open, warnings: Vec::new() }),
            false => Err(TargetError::new(
                TargetErrorKind::NotOurs,
                format!(
                    "target {shown} is gone: put it back, or remove its state folder to begin with a new target \
                     (the whole source is sent again)"
                ),
            )),
        };
    }
    if !exists && names_device(&spec.path) {
        let text = format!("target device {shown} is not there: attach it; no file is made in its place");
        return Err(TargetError::new(TargetErrorKind::NotOurs, text));
    }
    let allowed = spec.overwrite || begun;
    if exists && !allowed {
        return Err(TargetError::new(
            TargetErrorKind::Exists,
            format!("target {shown} exists and was not made by Sluice: name another, or say --yes to overwrite it"),
        ));
    }
    let warnings = if device { check_device(&spec, &shown)? } else { free_space(&spec, &shown) };
    let action = match (device, exists) {
        (true, _) => Action::TakeDevice,
        (false, true) => Action::Overwrite,
        (false, false) => Action::Create,
    };
    Ok(TargetPlan { spec, action, warnings })
}

/// True where the path is a block device, or could only be one: what else is put into `/dev` is gone when the machine starts
/// again.
pub fn names_device(path: &Path) -> bool {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    is_block_device(path) || (whole.starts_with("/dev") && !whole.starts_with("/dev/shm"))
}

fn check_source(spec: &TargetSpec, shown: &str) -> Result<(), TargetError> {
    let Some(source) = &spec.source else { return Ok(()) };
    if same_storage(source, &spec.path)?.is_some() {
        let text = format!(
            "target {shown} lies on the source {} or the other way round: writing one would change the other; \
             put the target on another disk",
            source.display()
        );
        return Err(TargetError::new(TargetErrorKind::OnSource, text));
    }
    Ok(())
}

fn check_device(spec: &TargetSpec, shown: &str) -> Result<Vec<String>, TargetError> {
    if spec.format != Format::Raw {
        let text = format!("target {shown} is a block device, which holds no {} image: say --format raw", spec.format);
        return Err(TargetError::new(TargetErrorKind::NotOurs, text));
    }
    let facts = DeviceFacts::of(&spec.path)?;
    check_device_size(facts.size, spec.size, shown)?;
    if facts.is_in_use() {
        let text = format!("target device {shown} is in use: unmount it or stop its user first");
        return Err(TargetError::new(TargetErrorKind::Busy, text));
    }
    Ok(Vec::new())
}

fn check_device_size(has: ByteCount, needs: ByteCount, shown: &str) -> Result<(), TargetError> {
    if has >= needs {
        return Ok(());
    }
    let text = format!(
        "target device {shown} has {has} bytes, the source {needs}: take a device that is at least as large, or enlarge \
         this one to {needs} bytes"
    );
    Err(TargetError::new(TargetErrorKind::TooSmall, text))
}

/// Too little room is no more than a warning: targets are sparse, and a source is seldom full.
fn free_space(spec: &TargetSpec, shown: &str) -> Vec<String> {
    let folder = spec.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(facts) = nix::sys::statvfs::statvfs(folder) else { return Vec::new() };
    let free = facts.blocks_available() as u128 * facts.fragment_size() as u128;
    if free >= u128::from(spec.size.0) {
        return Vec::new();
    }
    vec![format!(
        "the file system of target {shown} has {} MiB free, the source has {} MiB: the target will only fit while the \
         source has enough zeros",
        free >> 20,
        spec.size.0 >> 20
    )]
}

impl TargetPlan {
    /// Carries the plan out and opens the target.
    ///
    /// # Errors
    /// The target can't be made, or is not what it was.
    pub async fn carry_out(
        &self,
        clock: &dyn Clock,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<dyn Target>, TargetError> {
        match self.action {
            Action::Open => {}
            Action::Create | Action::Overwrite => self.create(clock, &*entropy).await?,
            Action::TakeDevice => self.take_device().await?,
        }
        self.open(entropy).await
    }

    async fn create(&self, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<(), TargetError> {
        let shown = self.spec.path.display().to_string();
        let layout = Layout::create(self.spec.format, self.spec.size, entropy, clock.unix_ms());
        let layout = layout.map_err(|e| TargetError::format(&shown, e))?;
        let file = OpenOptions::new().create(true).exclusive(true).open(&self.spec.path)?;
        writer::unmark(&file)?;
        file.set_len(ByteCount(0)).await?;
        run(&file, layout.steps()).await?;
        let folder = self.spec.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        durable::sync_folder(folder)
            .map_err(|e| TargetError::caused(TargetErrorKind::Io, format!("target {shown}: {e}"), e))
    }

    /// What lies behind the source's size must read as zeros, as in a new image.
    async fn take_device(&self) -> Result<(), TargetError> {
        let device = OpenOptions::new().write(true).exclusive(true).open(&self.spec.path)?;
        let size = device.size()?;
        device.punch_hole(self.spec.size.0, size.0.saturating_sub(self.spec.size.0)).await?;
        Ok(device.sync_data().await?)
    }

    /// Whether a target of ours that was made, or last grown, for a source of `from` bytes can be made as large as the plan
    /// has it. Nothing is changed.
    ///
    /// # Errors
    /// `TooSmall`: a device that must be enlarged first, or more than the format holds.
    pub fn check_growth(&self, from: ByteCount) -> Result<(), TargetError> {
        let TargetSpec { path, format, size, .. } = &self.spec;
        let shown = path.display().to_string();
        check_growth(*format, from, *size).map_err(|e| TargetError::format(&shown, e))?;
        if is_block_device(path) {
            check_device_size(DeviceFacts::of(path)?.size, self.spec.size, &shown)?;
        }
        Ok(())
    }

    /// Makes a target of ours that was made, or last grown, for a source of `from` bytes as large as the plan has it, on
    /// stable storage. What is new of an image reads as zeros; a device may hold anything there. Where it was cut short it
    /// is to be done again with the same sizes before the target is opened.
    ///
    /// # Errors
    /// Those of [`Self::check_growth`]; a target that is damaged, or that can't be written.
    pub async fn grow(&self, from: ByteCount, entropy: Arc<dyn Entropy>) -> Result<(), TargetError> {
        let TargetSpec { path, format, size, .. } = &self.spec;
        let shown = path.display().to_string();
        let file = OpenOptions::new().write(true).exclusive(true).open(path)?;
        let failed = |e| TargetError::format(&shown, e);
        if file.is_block_device() {
            return check_device_size(file.size()?, *size, &shown);
        }
        if !matches!(format, Format::Raw | Format::Vhd) {
            let image = open_as(*format, &Metadata(&file), file.size()?).map_err(failed)?;
            run(&file, LiveImage::new(image, &*entropy).1).await?;
        }
        let steps = grow(*format, &Metadata(&file), file.size()?, from, *size, &*entropy).map_err(failed)?;
        run(&file, steps).await
    }

    async fn open(&self, entropy: Arc<dyn Entropy>) -> Result<Arc<dyn Target>, TargetError> {
        let path = &self.spec.path;
        let shown = path.display().to_string();
        let file = OpenOptions::new().write(true).exclusive(true).open(path)?;
        warn_if_cached(&file);
        let file_size = file.size()?;
        if file.is_block_device() {
            return self.fits(LinearTarget::new(file, 0, file_size, Vec::new()));
        }
        let image =
            open_as(self.spec.format, &Metadata(&file), file_size).map_err(|e| TargetError::format(&shown, e))?;
        let size = image.virtual_size;
        let (mut live, recovery) = LiveImage::new(image, &*entropy);
        match live.linear_start() {
            Some(start) => {
                run(&file, recovery).await?;
                self.fits(LinearTarget::new(file, start, size, live.steps_before_data(&*entropy)))
            }
            None => self.fits(DynamicTarget::new(file, live, recovery, entropy).await?),
        }
    }

    fn fits(&self, target: impl Target + 'static) -> Result<Arc<dyn Target>, TargetError> {
        let (has, needs) = (target.sectors(), self.spec.size.sectors_ceil());
        if has < needs {
            let text = format!(
                "target {} holds {has} sectors, the source has {needs}: somebody made it smaller; put it back as it was, \
                 or begin with a new target",
                target.describe()
            );
            return Err(TargetError::new(TargetErrorKind::SizeChanged, text));
        }
        Ok(Arc::new(target))
    }
}
