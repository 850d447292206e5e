//! Where segments come from: the cache store, or, where that is far away, a local copy of what was found right there.
//!
//! A cycle is written only after all of it was checked; without a copy a remote store would be asked for everything
//! twice, and one that stops answering in between would leave the target torn.

use crate::apply::Stop;
use crate::state::StateError;
use bytes::Bytes;
use sluice_cache_store::{CacheStore, StoreError, StoreErrorKind};
use sluice_proto::Digest;
use sluice_proto::cycle::FailReason;
use std::path::Path;
use std::sync::Arc;

/// The cache store and the local folder that stands before it.
#[derive(Clone)]
pub struct Spool {
    store: Arc<dyn CacheStore>,
    local: Option<Arc<dyn CacheStore>>,
}

impl Spool {
    /// Reads from `store`, by way of `local` where the store is not local itself.
    pub fn new(store: Arc<dyn CacheStore>, local: Option<Arc<dyn CacheStore>>) -> Self {
        let local = local.filter(|_| !store.is_local());
        Self { store, local }
    }

    /// As [`Spool::new`] with a folder, which is made where it is needed.
    ///
    /// # Errors
    /// The folder can't be used.
    pub fn open(store: Arc<dyn CacheStore>, folder: &Path) -> Result<Self, StateError> {
        let local = if store.is_local() { None } else { Some(spool_folder(folder)?) };
        Ok(Self::new(store, local))
    }

    /// The object, from wherever it is nearest. A local copy counts only where it has the right hash.
    pub(crate) async fn get(&self, key: &str, len_max: u64, hash: Digest, wrong: FailReason) -> Result<Bytes, Stop> {
        self.read(key, len_max, hash).await.map_err(|e| Stop::store(&e, wrong))
    }

    /// The same for an object that may be gone.
    pub(crate) async fn find(
        &self,
        key: &str,
        len_max: u64,
        hash: Digest,
        wrong: FailReason,
    ) -> Result<Option<Bytes>, Stop> {
        match self.read(key, len_max, hash).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(Stop::store(&error, wrong)),
        }
    }

    async fn read(&self, key: &str, len_max: u64, hash: Digest) -> Result<Bytes, StoreError> {
        if let Some(local) = &self.local
            && let Ok(bytes) = local.get(key, len_max).await
            && Digest::of(&bytes) == hash
        {
            return Ok(bytes);
        }
        self.store.get(key, len_max).await
    }

    /// Keeps a copy of an object that was found right.
    pub(crate) async fn keep(&self, key: &str, bytes: Bytes) -> Result<(), Stop> {
        let Some(local) = &self.local else { return Ok(()) };
        local.put(key, bytes).await.map_err(|e| match e.kind() {
            StoreErrorKind::Full => Stop::Later(format!("the hydrator's spool folder is full: {e}")),
            _ => Stop::Later(format!("the hydrator's spool folder: {e}")),
        })
    }

    /// Removes the copies below the disk's folder, but those in `keep`. What can't be removed now is removed later.
    pub(crate) async fn tidy(&self, disk: &str, keep: Option<&str>) {
        let Some(local) = &self.local else { return };
        let Ok(listed) = local.list(disk).await else { return };
        for object in listed {
            let kept = keep.is_some_and(|folder| object.key.strip_prefix(folder).is_some_and(|r| r.starts_with('/')));
            if !kept && let Err(error) = local.delete(&object.key).await {
                tracing::debug!(%error, key = object.key, "a spooled segment could not be removed yet");
            }
        }
    }
}

fn spool_folder(folder: &Path) -> Result<Arc<dyn CacheStore>, StateError> {
    sluice_platform::durable::create_folder(folder)?;
    let failed = |e: &dyn std::fmt::Display| StateError::new(format!("spool folder {}: {e}", folder.display()));
    let whole = std::path::absolute(folder).map_err(|e| failed(&e))?;
    let url = url_of(&whole);
    sluice_cache_store::open(&url, &sluice_cache_store::StoreOptions::default()).map_err(|e| failed(&e))
}

/// The folder as a `file:` URL: what a URL gives a meaning of its own is escaped.
fn url_of(folder: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let escaped = folder.as_os_str().as_bytes().iter().map(|b| match plain(*b) {
        true => char::from(*b).to_string(),
        false => format!("%{b:02X}"),
    });
    std::iter::once("file://".to_owned()).chain(escaped).collect()
}
