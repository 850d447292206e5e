//! Putting a disk under protection: source, tracker, journal and keys, made ready for [`DiskAgent`].

mod medium;

pub use medium::OtherMedium;

use crate::capture::{Capture, CaptureOptions, Counts};
use crate::compare::LocalTable;
use crate::disk::{DiskAgent, DiskError};
use crate::journal::{FolderRecords, Identity, Journal, JournalError, identity_in};
use crate::source::{DeviceSource, Rest, Source, SourceError};
use crate::tracker::ebpf::EbpfTracker;
use crate::tracker::scan::ScanTracker;
use crate::tracker::{Doubt, Tracker, TrackerError};
use crate::workers::Workers;
use sluice_client::AgentApi;
use sluice_platform::device::{DevNo, DeviceFacts, DeviceKind, Medium, same_storage};
use sluice_platform::lease::ReadLease;
use sluice_platform::{DirectFile, lock::LockError, lock::StateLock};
use sluice_proto::cycle::TrackerKind;
use sluice_proto::env::Entropy;
use sluice_proto::keys::{DataKey, KeyEnvelope, SigningKey};
use sluice_proto::{ByteCount, DISK_SECTORS_MAX, DiskId, FormatError, Generation};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Which tracker is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrackerChoice {
    /// `ebpf` where it can be had, else `scan`.
    #[default]
    Auto,
    /// This one or none.
    Only(TrackerKind),
}

/// What is to be protected, and how.
#[derive(Clone, Debug)]
pub struct Protection {
    /// The block device or raw disk file.
    pub source: PathBuf,
    /// What people call it; the path where none is given.
    pub name: Option<String>,
    /// The folder for the journal.
    pub state: PathBuf,
    /// Folders like it that are no configured source's: where the disk's journal is if it was protected under another name.
    pub unnamed: Vec<PathBuf>,
    /// Which tracker.
    pub tracker: TrackerChoice,
    /// The folder on a BPF file system under which trackers are pinned.
    pub pins: PathBuf,
    /// The hydrator's public key.
    pub hydrator: Vec<u8>,
    /// How cycles are captured.
    pub capture: CaptureOptions,
}

/// A disk can't be protected.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    /// The source can't be opened or is none that can be protected.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tracker that was asked for can't be had.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// The state can't be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The source is another medium than the one that is protected; nothing was written.
    #[error(transparent)]
    Medium(#[from] Box<OtherMedium>),
    /// Another agent protects it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The hydrator's public key is none.
    #[error("the hydrator's public key: {0}")]
    Key(#[from] FormatError),
    /// The source is not what the journal knows.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A tracker, what is doubtful of the time before it, and what the operator is to know of the choice.
type Chosen = (Box<dyn Tracker>, Option<Doubt>, Option<String>);

/// A disk that is ready to be protected.
pub struct Protected {
    /// Its owner, to be run.
    pub agent: DiskAgent,
    /// The disk.
    pub disk: DiskId,
    /// Its size.
    pub size: ByteCount,
    /// The tracker that was chosen.
    pub tracker: TrackerKind,
    /// What the operator is to know of the tracker that was chosen, and of where the state is.
    pub remarks: Vec<String>,
    /// What it does, while it does it.
    pub counts: Arc<Counts>,
    /// Held as long as the agent runs.
    pub lock: StateLock,
}

impl Protection {
    /// Opens source, journal and tracker.
    ///
    /// # Errors
    /// [`ProtectError`].
    pub fn start(
        &self,
        api: Arc<dyn AgentApi>,
        workers: Workers,
        entropy: Arc<dyn Entropy>,
        signer: &SigningKey,
        stop: watch::Receiver<bool>,
    ) -> Result<Protected, ProtectError> {
        self.start_on(&facts_of(&self.source)?, api, workers, entropy, signer, stop)
    }

    fn start_on(
        &self,
        facts: &DeviceFacts,
        api: Arc<dyn AgentApi>,
        workers: Workers,
        entropy: Arc<dyn Entropy>,
        signer: &SigningKey,
        stop: watch::Receiver<bool>,
    ) -> Result<Protected, ProtectError> {
        let lock = self.lock(&facts.medium, facts.size)?;
        let journal = self.journal(facts, &*entropy, signer)?;
        let (disk, expect) = (journal.identity().disk, journal.identity().epoch);
        let wants_lease = self.tracker == TrackerChoice::Only(TrackerKind::Scan) || facts.kind == DeviceKind::File;
        let (tracker, doubt, remark) = self.tracker(facts, disk, expect, &*entropy)?;
        let source: Arc<dyn Source> = Arc::new(self.open(facts, wants_lease)?);
        let capture = Capture::new(source.clone(), api, workers, entropy, self.capture.clone());
        let (counts, kind) = (capture.counts.clone(), tracker.kind());
        let table = match kind {
            TrackerKind::Scan => {
                let records = FolderRecords::open(&self.state.join("digests"))?;
                Some(LocalTable::new(Box::new(records), source.size().sectors_ceil()))
            }
            TrackerKind::Ebpf => None,
        };
        let size = source.size();
        let mut agent = DiskAgent::new(capture, tracker, doubt, journal, table, stop)?;
        let mut remarks = Vec::from_iter(remark);
        if self.keeps_state_on_source() {
            agent.state_on_source = Some(self.state.clone());
            remarks.push(format!("{}: {}", self.source.display(), crate::disk::own_state(&self.state)));
        }
        Ok(Protected { agent, disk, size, tracker: kind, remarks, counts, lock })
    }

    /// The lock on the disk's state, for this medium. Nothing else is written before it is known to be the right one.
    fn lock(&self, medium: &Medium, size: ByteCount) -> Result<StateLock, ProtectError> {
        self.bring_state(medium, size)?;
        sluice_platform::durable::create_folder(&self.state).map_err(|e| JournalError(e.to_string()))?;
        let lock = StateLock::take(&self.state)?;
        self.check_medium(medium)?;
        Ok(lock)
    }

    /// Begins a new generation of the disk, under a new data key. No agent may be running for it.
    ///
    /// # Errors
    /// [`ProtectError`]; a disk that was never protected from here.
    pub fn rotate_key(&self, entropy: &dyn Entropy, signer: &SigningKey) -> Result<Generation, ProtectError> {
        let _lock = StateLock::take(&self.state)?;
        let Ok(mut journal) = Journal::open(Box::new(FolderRecords::open(&self.state)?))? else {
            return Err(self.never_protected().into());
        };
        let (key, envelope) = self.next_key(&journal, entropy, signer)?;
        journal.rotate(&key, envelope)?;
        Ok(journal.identity().generation)
    }

    /// The disk as its state knows it, which is only looked at, and where its tracking is pinned.
    ///
    /// # Errors
    /// State that can't be read; a disk that was never protected from here.
    pub fn known(&self) -> Result<(DiskId, PathBuf), ProtectError> {
        let disk = identity_in(&self.state)?.ok_or_else(|| self.never_protected())?.disk;
        Ok((disk, self.pins.join(disk.to_string())))
    }

    /// Ends the disk's protection: its tracking is taken out of the kernel and its state is removed. No agent may be running
    /// for it.
    ///
    /// # Errors
    /// [`ProtectError`]; a disk that was never protected from here.
    pub fn forget(&self) -> Result<(), ProtectError> {
        self.known()?;
        let _lock = StateLock::take(&self.state)?;
        EbpfTracker::detach(&self.known()?.1)?;
        std::fs::remove_dir_all(&self.state)
            .map_err(|e| JournalError(format!("removing {}: {e}", self.state.display())).into())
    }

    /// The disk's journal: the one that is there, in the size that the source has grown to, or a new disk's.
    fn journal(
        &self,
        facts: &DeviceFacts,
        entropy: &dyn Entropy,
        signer: &SigningKey,
    ) -> Result<Journal, ProtectError> {
        let records = Box::new(FolderRecords::open(&self.state)?);
        match Journal::open(records)? {
            Ok(mut journal) => {
                if journal.identity().size < facts.size {
                    let (key, envelope) = self.next_key(&journal, entropy, signer)?;
                    journal.grow(facts.size, &key, envelope)?;
                }
                journal.update(|identity| identity.medium.learn(&facts.medium))?;
                Ok(journal)
            }
            Err(records) => {
                let mut id = [0; 16];
                entropy.fill(&mut id);
                let (key, envelope) = self.new_key(DiskId(id), Generation(1), entropy, signer)?;
                let identity = Identity::new(DiskId(id), facts.size, &key, envelope);
                Ok(Journal::create(records, Identity { medium: facts.medium.clone(), ..identity })?)
            }
        }
    }

    /// A data key for the generation that follows the journal's.
    fn next_key(
        &self,
        journal: &Journal,
        entropy: &dyn Entropy,
        signer: &SigningKey,
    ) -> Result<(DataKey, KeyEnvelope), ProtectError> {
        self.new_key(journal.identity().disk, journal.identity().generation.next(), entropy, signer)
    }

    /// A random data key, and the same wrapped for the hydrator.
    fn new_key(
        &self,
        disk: DiskId,
        generation: Generation,
        entropy: &dyn Entropy,
        signer: &SigningKey,
    ) -> Result<(DataKey, KeyEnvelope), ProtectError> {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        let key = DataKey::new(key);
        let envelope = KeyEnvelope::wrap(&key, disk, generation, &self.hydrator, signer)?;
        Ok((key, envelope))
    }

    fn open(&self, facts: &DeviceFacts, wants_lease: bool) -> Result<DeviceSource, SourceError> {
        let file = DirectFile::open(&self.source).map_err(|e| SourceError::read(e.to_string()))?;
        if !facts.are_of(file.file()) {
            return Err(self.exchanged());
        }
        let rest = match facts.kind {
            DeviceKind::File if wants_lease => ReadLease::on(file.file()).map_or(Rest::Unknown, Rest::Lease),
            DeviceKind::File => Rest::Unknown,
            _ if facts.read_only => Rest::ReadOnly,
            _ => Rest::Unknown,
        };
        let name = self.name.clone().unwrap_or_else(|| self.source.display().to_string());
        DeviceSource::new(file, name, facts.logical_sector, rest)
    }

    /// True where what the agent writes to its state is a write to the disk that it protects.
    fn keeps_state_on_source(&self) -> bool {
        // Where it can't be told there is nothing to warn of.
        same_storage(&self.source, &self.state).is_ok_and(|shared| shared.is_some())
    }

    fn exchanged(&self) -> SourceError {
        SourceError::read(format!(
            "{}: it became another disk while it was being opened; start again, and if this comes again name the source by \
             its link in /dev/disk/by-id",
            self.source.display()
        ))
    }

    /// The tracker that was asked for, or the best that can be had.
    fn tracker(
        &self,
        facts: &DeviceFacts,
        disk: DiskId,
        expect: Option<crate::tracker::TrackingEpoch>,
        entropy: &dyn Entropy,
    ) -> Result<Chosen, ProtectError> {
        let scan = |remark: String| Ok((Box::new(ScanTracker) as Box<dyn Tracker>, None, Some(remark)));
        let mounted = match facts.is_mounted_rw() {
            true => "; it is mounted read-write, so images are `fuzzy` until it is at rest",
            false => "",
        };
        if self.tracker == TrackerChoice::Only(TrackerKind::Scan) {
            return scan(format!("{}: tracked by scanning{mounted}", facts.name));
        }
        let expect = expect.filter(|epoch| epoch.run != [0; 16]);
        match EbpfTracker::attach(&self.source, &self.pins.join(disk.to_string()), expect, entropy) {
            // It follows the path by itself, which may lead elsewhere by now.
            Ok(attached) if !is_of(&attached.tracker, facts) => Err(self.exchanged().into()),
            Ok(attached) => Ok((Box::new(attached.tracker), attached.doubt, None)),
            Err(error) if self.tracker == TrackerChoice::Auto => {
                scan(format!("{}: tracked by scanning, as ebpf can't be had: {error}{mounted}", facts.name))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_of(tracker: &EbpfTracker, facts: &DeviceFacts) -> bool {
    let (device, disk_seq) = tracker.device();
    DevNo::from_raw(device) == facts.dev && facts.diskseq.is_none_or(|known| known == disk_seq)
}

/// The facts of a source, or why it can't be one.
fn facts_of(path: &Path) -> Result<DeviceFacts, SourceError> {
    let facts = DeviceFacts::of(path).map_err(|e| SourceError::read(e.to_string()))?;
    if facts.size.sectors_ceil().0 > DISK_SECTORS_MAX {
        return Err(SourceError::read(format!(
            "{}: {} bytes; a disk may have 64 TiB at most: protect its partitions one by one",
            path.display(),
            facts.size
        )));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests;
