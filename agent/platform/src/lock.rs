//! One process at a time in a state folder.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const NAME: &str = "lock";

/// The sole right to a state folder; let go when dropped, or by the kernel when the process ends in whatever way.
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
    folder: PathBuf,
}

/// A state folder could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("another sluice ({holder}) is using {}: stop it, or give this one a state folder of its own", folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// What the holder wrote about itself: its process id and name.
        holder: String,
    },
    /// The lock file can't be opened or locked.
    #[error("cannot lock {}: {error}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl StateLock {
    /// Locks the folder, which must exist. Never waits.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Io { folder: folder.to_path_buf(), error };
        let path = folder.join(NAME);
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = match Flock::lock(open.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, nix::Error::EWOULDBLOCK)) => {
                return Err(LockError::Held { folder: folder.to_path_buf(), holder: holder(&file) });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "pid {}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file, folder: folder.to_path_buf() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What the holder wrote about itself; it may not have come to it yet.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(64).read_to_string(&mut text);
    let text: String = text.trim().chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    if read.is_err() || text.is_empty() { "pid unknown".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_taker_is_told_who_holds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = StateLock::take(folder.path()).expect("free");
        let error = StateLock::take(folder.path()).expect_err("held");
        let expected = format!(
            "another sluice (pid {}) is using {}: stop it, or give this one a state folder of its own",
            std::process::id(),
            folder.path().display()
        );
        assert_eq!(error.to_string(), expected);
        drop(lock);
        StateLock::take(folder.path()).expect("free again");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = StateLock::take(&folder.path().join("none")).expect_err("not there");
        assert!(error.to_string().starts_with("cannot lock "), "{error}");
    }
}
