//! Records as files in a folder.

use super::{EachEntry, Identity, JournalError, Records};
use sluice_platform::append_log::AppendLog;
use sluice_platform::durable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// No record is larger than this: the bitmap of a 64 TiB disk in tatters.
const RECORD_BYTES_MAX: u64 = 2 << 30;

/// A folder of records, readable by its owner alone.
pub struct FolderRecords {
    folder: PathBuf,
    logs: BTreeMap<String, AppendLog>,
}

impl FolderRecords {
    /// The records in `folder`, which is made if need be.
    ///
    /// # Errors
    /// A folder that can't be made.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        durable::create_folder(folder).map_err(failed)?;
        Ok(Self { folder: folder.to_path_buf(), logs: BTreeMap::new() })
    }

    fn log(&mut self, name: &str) -> Result<&mut AppendLog, JournalError> {
        if !self.logs.contains_key(name) {
            let (log, _) = AppendLog::open_each(&self.folder.join(name), |_| {}).map_err(failed)?;
            self.logs.insert(name.to_owned(), log);
        }
        self.logs.get_mut(name).ok_or_else(|| JournalError(format!("{name}: not open")))
    }
}

/// The identity of the disk whose records are in `folder`, which is only looked at; `None` where there are none.
///
/// # Errors
/// A record that can't be read, or that a newer agent wrote.
pub fn identity_in(folder: &Path) -> Result<Option<Identity>, JournalError> {
    let bytes = durable::read_file_if_exists(&folder.join(super::IDENTITY), RECORD_BYTES_MAX).map_err(failed)?;
    bytes.map(|bytes| Identity::decode(&bytes)).transpose()
}

fn failed(error: impl std::fmt::Display) -> JournalError {
    JournalError(error.to_string())
}

impl Records for FolderRecords {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        durable::read_file_if_exists(&self.folder.join(name), RECORD_BYTES_MAX).map_err(failed)
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        durable::write_file(&self.folder.join(name), bytes, durable::Access::Owner).map_err(failed)
    }

    fn save_all(&mut self, records: &[(&str, &[u8])]) -> Result<(), JournalError> {
        durable::write_files(&self.folder, records, durable::Access::Owner).map_err(failed)
    }

    fn remove(&mut self, name: &str) -> Result<(), JournalError> {
        self.logs.remove(name);
        durable::unlink(&self.folder.join(name)).map(drop).map_err(failed)
    }

    fn read_log(&mut self, name: &str, each: &mut EachEntry<'_>) -> Result<(), JournalError> {
        let mut result = Ok(());
        let show = |entry: &[u8]| {
            if result.is_ok() {
                result = each(entry);
            }
        };
        match self.logs.get(name) {
            Some(log) => log.for_each(show).map_err(failed)?,
            None => {
                let (log, _) = AppendLog::open_each(&self.folder.join(name), show).map_err(failed)?;
                self.logs.insert(name.to_owned(), log);
            }
        }
        result
    }

    fn append(&mut self, name: &str, entry: &[u8]) -> Result<(), JournalError> {
        self.log(name)?.append(entry).map_err(failed)
    }
}
