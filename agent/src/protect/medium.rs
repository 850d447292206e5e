//! Whether the medium under a source's name is the one that is protected, and its state where its name has changed.

use super::{ProtectError, Protection, facts_of};
use crate::journal::{FolderRecords, Journal, JournalError, identity_in};
use sluice_platform::device::Medium;
use sluice_platform::durable;
use sluice_platform::lock::StateLock;
use sluice_proto::ByteCount;
use std::fmt;
use std::path::{Path, PathBuf};

/// Another medium is where the protected one was: the kernel gave its name to another, or it was exchanged.
#[derive(Debug)]
pub struct OtherMedium {
    /// The source, as it is named.
    pub path: PathBuf,
    /// The medium that is protected.
    pub known: Medium,
    /// The one that is there.
    pub found: Medium,
    /// Where the protected one is now, if anywhere.
    pub at: Option<PathBuf>,
}

impl std::error::Error for OtherMedium {}

impl fmt::Display for OtherMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, known, found, at } = self;
        let source = path.display();
        write!(
            f,
            "{source}: it is another disk than the one that is protected under this name ({known}; found: {found}). "
        )?;
        match at {
            Some(at) => {
                write!(f, "That one is {} now: name it so as the source, and its protection goes on", at.display())?
            }
            None => {
                write!(f, "That one is not there: attach it, and name it as the source by its link in /dev/disk/by-id")?
            }
        }
        write!(
            f,
            ". Or, if this one takes its place: sluice-agent adopt --config FILE.toml --source {source}, and the target becomes its copy"
        )
    }
}

impl Protection {
    /// Refuses another medium than the one that is known. Nothing but the record is looked at.
    pub(super) fn check_medium(&self, found: &Medium) -> Result<(), ProtectError> {
        let Some(identity) = identity_in(&self.state)? else { return Ok(()) };
        let known = identity.medium;
        if !known.differs(found) {
            return Ok(());
        }
        let (path, found, at) = (self.source.clone(), found.clone(), known.find());
        Err(Box::new(OtherMedium { path, known, found, at }).into())
    }

    /// Takes the medium that is there for the disk's own from now on: source and target are compared, and the target becomes
    /// its copy. Tells which it was and which it is; `None`, and nothing is changed, where it is not surely another one. No
    /// agent may be running for the disk.
    ///
    /// # Errors
    /// [`ProtectError`]; a disk that was never protected from here.
    pub fn adopt(&self) -> Result<Option<(Medium, Medium)>, ProtectError> {
        let facts = facts_of(&self.source)?;
        self.adopt_medium(facts.medium, facts.size)
    }

    pub(super) fn adopt_medium(
        &self,
        found: Medium,
        size: ByteCount,
    ) -> Result<Option<(Medium, Medium)>, ProtectError> {
        let (_lock, identity) = self.take_known()?;
        let known = identity.medium;
        if !known.differs(&found) {
            return Ok(None);
        }
        if size < identity.size {
            return Err(JournalError(format!(
                "{}: it has {size} bytes, and the target was made for {}: a target never shrinks. Protect it as a new disk with a \
                 new target",
                self.source.display(),
                identity.size
            ))
            .into());
        }
        let Ok(mut journal) = Journal::open(Box::new(FolderRecords::open(&self.state)?))? else {
            return Err(self.never_protected().into());
        };
        // What was planned of the other medium must not be finished from this one.
        journal.cut_plan()?;
        journal.update(|identity| {
            let doubt = format!("another medium took the place of the one that was protected ({known}): {found}");
            (identity.doubt, identity.medium) = (Some(doubt), found.clone());
        })?;
        Ok(Some((known, found)))
    }

    /// The lock on the disk's state, and its identity.
    pub(super) fn take_known(&self) -> Result<(StateLock, crate::journal::Identity), ProtectError> {
        // Only looked at before the lock, so that no folder is made for a disk that was never protected.
        identity_in(&self.state)?.ok_or_else(|| self.never_protected())?;
        let lock = StateLock::take(&self.state)?;
        let identity = identity_in(&self.state)?.ok_or_else(|| self.never_protected())?;
        Ok((lock, identity))
    }

    pub(super) fn never_protected(&self) -> JournalError {
        JournalError(format!("{} was never protected from here", self.source.display()))
    }

    /// Where the medium was protected under a name that the configuration has no more, its state comes along.
    pub(super) fn bring_state(&self, found: &Medium, size: ByteCount) -> Result<(), ProtectError> {
        if !found.is_known() || identity_in(&self.state)?.is_some() {
            return Ok(());
        }
        // What can't be read there belongs to nobody who is known.
        let known = |folder: &&PathBuf| identity_in(folder).ok().flatten();
        // A disk may have grown while nobody looked; one of another size under an old name is more likely another.
        let is_it = |known: &crate::journal::Identity| known.medium.is_same(found) && known.size == size;
        let same: Vec<_> = self.unnamed.iter().filter(|folder| known(folder).as_ref().is_some_and(is_it)).collect();
        match same[..] {
            [] => Ok(()),
            [folder] => self.move_state(folder),
            [one, other, ..] => Err(JournalError(format!(
                "{}: it was protected under several other names: remove the state that is not to be gone on with, {} or {}",
                self.source.display(),
                one.display(),
                other.display()
            ))
            .into()),
        }
    }

    fn move_state(&self, from: &Path) -> Result<(), ProtectError> {
        let failed = |error: &dyn fmt::Display| JournalError(format!("{}: {error}", from.display()));
        let _lock = StateLock::take(from)?;
        if self.state.is_dir() {
            // What an attempt under this name left that came to nothing: a lock and no more.
            let _lock = StateLock::take(&self.state)?;
            durable::unlink(&self.state.join("lock")).map_err(|e| failed(&e))?;
            std::fs::remove_dir(&self.state).map_err(|e| failed(&e))?;
        }
        durable::rename_file(from, &self.state).map_err(|e| failed(&e))?;
        tracing::info!(source = %self.source.display(), from = %from.display(), "known by its medium: its state came along");
        Ok(())
    }
}
