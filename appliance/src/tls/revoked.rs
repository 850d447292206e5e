//! The list of revoked certificates: a text file that an operator can edit, in force as soon as it is saved.

use super::TlsError;
use crate::identity::Fingerprint;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The largest list that is read, in bytes: 60,000 certificates.
const LEN_MAX: u64 = 4 << 20;

/// The list, read again when the file has changed. A change that can't be read keeps the last good list in force and is
/// logged as an error: a slip of an editor must neither let a revoked peer in nor stop the honest ones.
#[derive(Debug)]
pub(super) struct Revoked {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the file looked like when it was last read, well or not. `None`: it could not be found.
    stamp: Option<Stamp>,
    list: BTreeSet<Fingerprint>,
}

/// Device, inode, length and both times of a file: any edit changes one of them.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Revoked {
    pub(super) fn open(file: &Path) -> Result<Self, TlsError> {
        let failed = |reason: String| TlsError::Revoked { file: file.to_owned(), reason };
        let meta = fs::metadata(file).map_err(|e| failed(format!("{e}; an empty file is an empty list")))?;
        let list = read(file, &meta).map_err(failed)?;
        Ok(Self { file: file.to_owned(), state: Mutex::new(State { stamp: Some(stamp(&meta)), list }) })
    }

    /// True where the certificate is on the list as it stands now. Costs one stat where the file has not changed.
    pub(super) fn holds(&self, fingerprint: &Fingerprint) -> bool {
        let meta = fs::metadata(&self.file);
        let mut state = self.state.lock();
        let now = meta.as_ref().ok().map(stamp);
        if now != state.stamp {
            state.stamp = now;
            let read = meta.map_err(|e| e.to_string()).and_then(|meta| read(&self.file, &meta));
            match read {
                Ok(list) => {
                    tracing::info!(file = %self.file.display(), certificates = list.len(), "revoked certificates: read again");
                    state.list = list;
                }
                Err(reason) => {
                    tracing::error!(file = %self.file.display(), %reason, "revoked certificates: the list as it was before stays in force; mend the file");
                }
            }
        }
        state.list.contains(fingerprint)
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    let modified = (meta.mtime(), meta.mtime_nsec());
    (meta.dev(), meta.ino(), meta.len(), modified, (meta.ctime(), meta.ctime_nsec()))
}

fn read(file: &Path, meta: &Metadata) -> Result<BTreeSet<Fingerprint>, String> {
    if meta.len() > LEN_MAX {
        return Err(format!("longer than {LEN_MAX} bytes"));
    }
    parse(&fs::read_to_string(file).map_err(|e| e.to_string())?)
}

/// The certificates that a list names: one a line, by their fingerprints; `#` begins a comment.
///
/// # Errors
/// A line that is no fingerprint, by its number: of a list that is half read nobody knows who is on it.
pub fn parse(text: &str) -> Result<BTreeSet<Fingerprint>, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let entries = lines.enumerate().filter(|(_, line)| !line.is_empty());
    entries.map(|(i, line)| line.parse().map_err(|e| format!("line {}: {e}", i + 1))).collect()
}
