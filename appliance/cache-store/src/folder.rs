//! What a folder as cache store needs beyond `object_store`.
//!
//! `object_store` writes `KEY#1`, syncs it, links or renames it to `KEY` and syncs the folder. A process that is killed
//! in between leaves `KEY#1` behind: hidden from listings, but it holds space until somebody removes it.

use crate::StoreError;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder that holds a store.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Creates the folder where it is missing, with its parents, and makes that durable.
    pub(crate) fn create(root: &Path) -> Result<Self, StoreError> {
        let failed = |e| StoreError::from_io(e, format!("creating folder {}", root.display()));
        let missing: Vec<&Path> = root.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(root).map_err(failed)?;
        for parent in missing.iter().filter_map(|dir| dir.parent()) {
            sync_dir(parent).map_err(failed)?;
        }
        let root = root.canonicalize().map_err(failed)?;
        if !root.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Makes sure that the entry of `key` is on the disk. For a retried creation that found its own work done, because
    /// the process that did it may have been killed before its sync.
    pub(crate) async fn sync_parent_of(&self, key: &str) -> Result<(), StoreError> {
        let path = self.root.join(key);
        let dir = path.parent().unwrap_or(&self.root).to_owned();
        let shown = dir.display().to_string();
        blocking(move || sync_dir(&dir)).await.map_err(|e| StoreError::from_io(e, format!("syncing folder {shown}")))
    }

    /// Flushes these objects, then the folders that they are in.
    pub(crate) async fn sync(&self, keys: &[String]) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = keys.iter().map(|key| self.root.join(key)).collect();
        let shown = self.root.display().to_string();
        blocking(move || sync_files(&paths))
            .await
            .map_err(|e| StoreError::from_io(e, format!("flushing objects in {shown}")))
    }

    /// Removes leavings of puts that were cut short more than `age_min` ago; gives their number.
    pub(crate) async fn sweep(&self, age_min: Duration) -> Result<u64, StoreError> {
        let root = self.root.clone();
        let shown = root.display().to_string();
        let swept = blocking(move || {
            let mut removed = 0;
            sweep_dir(&root, &root, age_min, &mut removed)?;
            Ok(removed)
        });
        swept.await.map_err(|e| StoreError::from_io(e, format!("sweeping folder {shown}")))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn sync_files(paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        match File::open(path) {
            Ok(file) => file.sync_data()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    // The folder's own entry too: it may be as new as its first object.
    let parents: BTreeSet<&Path> = paths.iter().flat_map(|path| path.ancestors().skip(1).take(4)).collect();
    parents.into_iter().try_for_each(|dir| if dir.is_dir() { sync_dir(dir) } else { Ok(()) })
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// Age is told by the file system's own clock, from the change time of a file made just now: the host's may be another
/// (a network file system) and may have jumped.
fn sweep_dir(root: &Path, dir: &Path, age_min: Duration, removed: &mut u64) -> io::Result<()> {
    let mut now = None;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep_dir(root, &entry.path(), age_min, removed)?;
        } else if kind.is_file() && is_unfinished(&entry.file_name().to_string_lossy()) {
            let now = match now {
                Some(now) => now,
                None => *now.insert(file_system_now(root)?),
            };
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let age = modified.map(|then| now.duration_since(then).unwrap_or_default());
            match age.and_then(|age| if age >= age_min { fs::remove_file(entry.path()).map(|()| 1) } else { Ok(0) }) {
                Ok(count) => *removed += count,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn file_system_now(root: &Path) -> io::Result<std::time::SystemTime> {
    let probe = root.join(format!(".sluice-sweep-{}", std::process::id()));
    let made = File::create(&probe).and_then(|file| file.metadata()?.modified());
    let _ = fs::remove_file(&probe);
    made
}

fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
