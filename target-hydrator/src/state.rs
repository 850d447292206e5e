//! Where the hydrator keeps what it must not forget of a disk.

use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_platform::durable::{self, Access};
use sluice_platform::lock::StateLock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Small named records of one disk, each replaced whole. One owner at a time.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The record, where there is one of at most `len_max` bytes.
    async fn load(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, StateError>;
    /// Replaces the record. It survives a power cut once this has returned; before, the old or the new one does.
    async fn save(&self, name: &str, bytes: Vec<u8>) -> Result<(), StateError>;
    /// The same for several, which are put in their places in this order.
    async fn save_all(&self, records: Vec<(&'static str, Vec<u8>)>) -> Result<(), StateError> {
        for (name, bytes) in records {
            self.save(name, bytes).await?;
        }
        Ok(())
    }
    /// Removes the record; one that isn't there is no error. A power cut may bring it back, until another is saved.
    async fn remove(&self, name: &str) -> Result<(), StateError>;
    /// Where it is, for people.
    fn describe(&self) -> String;
}

/// The state folder could not be used. The text says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StateError(String);

impl StateError {
    /// A failure in these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<durable::FileError> for StateError {
    fn from(error: durable::FileError) -> Self {
        Self(format!("{error}; the hydrator can't go on without its state, so nothing more is written to the target"))
    }
}

/// A folder of files, locked for as long as this lives.
#[derive(Debug)]
pub struct StateFolder {
    folder: PathBuf,
    _lock: StateLock,
}

impl StateFolder {
    /// Makes the folder where it is missing, and locks it.
    ///
    /// # Errors
    /// Another process has it, or it can't be made.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        durable::create_folder(folder)?;
        let lock = StateLock::take(folder).map_err(|e| StateError(e.to_string()))?;
        Ok(Self { folder: folder.to_path_buf(), _lock: lock })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, durable::FileError> + Send + 'static,
) -> Result<T, StateError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| StateError("writing the state was cut off by the program's end".to_owned()))??)
}

#[async_trait]
impl StateStore for StateFolder {
    async fn load(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.folder.join(name);
        blocking(move || durable::read_file_if_exists(&path, len_max)).await
    }

    async fn save(&self, name: &str, bytes: Vec<u8>) -> Result<(), StateError> {
        let path = self.folder.join(name);
        blocking(move || durable::write_file(&path, &bytes, Access::Owner)).await
    }

    async fn save_all(&self, records: Vec<(&'static str, Vec<u8>)>) -> Result<(), StateError> {
        let folder = self.folder.clone();
        blocking(move || {
            let files: Vec<(&str, &[u8])> = records.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
            durable::write_files(&folder, &files, Access::Owner)
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.folder.join(name);
        blocking(move || durable::unlink(&path).map(drop)).await
    }

    fn describe(&self) -> String {
        self.folder.display().to_string()
    }
}

/// Records in memory, for tests and simulation.
#[derive(Debug, Default)]
pub struct MemoryState(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryState {
    /// All records as they are.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().clone()
    }

    /// Puts other records in their place.
    pub fn restore(&self, records: &BTreeMap<String, Vec<u8>>) {
        self.0.lock().clone_from(records);
    }
}

#[async_trait]
impl StateStore for MemoryState {
    async fn load(&self, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, StateError> {
        let found = self.0.lock().get(name).cloned();
        match found {
            Some(bytes) if bytes.len() as u64 > len_max => Err(StateError(format!("{name} is too large"))),
            found => Ok(found),
        }
    }

    async fn save(&self, name: &str, bytes: Vec<u8>) -> Result<(), StateError> {
        self.0.lock().insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), StateError> {
        self.0.lock().remove(name);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
