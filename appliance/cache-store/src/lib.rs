//! The cache store: where sealed segments wait between appliance and hydrator.
//!
//! Objects are opaque here: everything in them is authenticated end to end by `sluice-proto`'s formats, so a store that
//! lies is found out by whoever reads. What a store must give is durability once it was asked for, and creation that succeeds
//! once only, which is what a manifest's commit stands on.
#![forbid(unsafe_code)]

mod config;
mod error;
mod folder;
mod key;
mod memory;
mod object;
mod open;
#[cfg(test)]
mod tests;
mod window;

pub use config::wrong_at;
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use open::{Retries, StoreOptions, open};
pub use window::WindowStore;

use async_trait::async_trait;
use bytes::Bytes;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Duration;

/// A store of whole objects under keys such as `disk/g00000001/c00000001/manifest`.
///
/// Keys are parts of letters, digits and `-_.=` joined by `/`, at most 512 bytes; any other key is refused before the
/// store is asked, so that nobody's name can reach outside the store's folder or prefix.
#[async_trait]
pub trait CacheStore: Send + Sync {
    /// Stores `bytes` under `key`, over what may be there. Once it answers the object is seen whole, also after a crash of
    /// this process; a power cut may take it until [`CacheStore::sync`].
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes these objects last over a power cut. One that isn't there is no error. Nothing to do where puts last at once.
    async fn sync(&self, keys: &[String]) -> Result<(), StoreError> {
        let _ = keys;
        Ok(())
    }

    /// Stores `bytes` under a key that must be new, durably. The very same bytes being there already counts as success, so that a
    /// put whose answer was lost can be made again; other bytes give [`StoreErrorKind::AlreadyExists`].
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// The whole object. One longer than `len_max` bytes is [`StoreErrorKind::Corrupt`] and is not read.
    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError>;

    /// Exactly the bytes of `range`; an object that ends before the range does is [`StoreErrorKind::Corrupt`].
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The object's length in bytes; `None` where there is no such object.
    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// All objects below the folder `prefix` (the whole store for an empty one), by key. `a/b` does not list `a/bc`.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// Deletes the object; one that isn't there is no error.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Removes what puts left behind that a crash cut short, where the store is one that keeps such things; gives their
    /// number. Only leavings older than `age_min` go, because another process may be in the middle of a put.
    async fn sweep_unfinished(&self, age_min: Duration) -> Result<u64, StoreError> {
        let _ = age_min;
        Ok(0)
    }

    /// Puts, reads, deletes and creates a small object, so that a wrong key, a full disk, or a store that can't create an
    /// object only where there is none, which every commit needs, shows at the start, not in a cycle.
    async fn check(&self) -> Result<(), StoreError> {
        const BYTES: &[u8] = b"sluice: this object may be deleted\n";
        const OTHERS: &[u8] = b"sluice: this object must not be here\n";
        // Appliance and hydrator may start, and check, at the same time: each has an object of its own.
        let key = format!("sluice-store-check-{:016x}", RandomState::new().hash_one(std::process::id()));
        self.put(&key, Bytes::from_static(BYTES)).await?;
        let back = self.get(&key, BYTES.len() as u64).await?;
        if back != BYTES {
            let context = format!("{} gave back other bytes than were put", self.describe());
            return Err(StoreError::new(StoreErrorKind::Corrupt, context));
        }
        self.delete(&key).await?;
        let created = self.put_new(&key, Bytes::from_static(BYTES)).await;
        let again = self.put_new(&key, Bytes::from_static(OTHERS)).await;
        self.delete(&key).await?;
        creates_once(created, again, &self.describe())
    }

    /// True where reading is as cheap as a local file, so that a reader need not spool.
    fn is_local(&self) -> bool;

    /// What and where the store is, for people; never holds a secret.
    fn describe(&self) -> String;
}

/// What two creations of one object say of a store: that the first succeeded and the second did not.
fn creates_once(first: Result<(), StoreError>, second: Result<(), StoreError>, place: &str) -> Result<(), StoreError> {
    use StoreErrorKind::{AlreadyExists, BadSettings, Full, Unavailable};
    let context = format!(
        "{place} must be able to create an object only where there is none: a bucket needs conditional puts \
         (conditional_put), a folder a file system with hard links"
    );
    match (first, second) {
        (Err(error), _) | (Ok(()), Err(error)) if matches!(error.kind(), Full | Unavailable) => Err(error),
        (Ok(()), Err(error)) if error.kind() == AlreadyExists => Ok(()),
        (Err(error), _) | (Ok(()), Err(error)) => Err(StoreError::new(BadSettings, context).with_source(error)),
        (Ok(()), Ok(())) => Err(StoreError::new(BadSettings, context)),
    }
}

/// Checks the store at the start of a process. One that is full or away is said so and is no error: whoever empties a full
/// store must not wait for room in it, and one that is away comes back.
///
/// # Errors
/// What only a person can mend: credentials, settings, a store that gives back other bytes.
pub async fn check_at_start(store: &dyn CacheStore) -> Result<(), StoreError> {
    match store.check().await {
        Err(error) if matches!(error.kind(), StoreErrorKind::Full | StoreErrorKind::Unavailable) => {
            tracing::warn!(%error, "not to be had for now; going on");
            Ok(())
        }
        result => result,
    }
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The object's key.
    pub key: String,
    /// Its length in bytes.
    pub len: u64,
}
