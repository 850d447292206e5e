//! A store that is far away, and counts what it is asked for.

use async_trait::async_trait;
use bytes::Bytes;
use sluice_cache_store::{CacheStore, Listed, MemoryStore, StoreError};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What somebody does when an object is read, which is named.
type Deed = Box<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Remote {
    inner: Arc<MemoryStore>,
    gets: AtomicU64,
    at_get: Option<Deed>,
    /// How long a read takes.
    takes: Duration,
}

impl Remote {
    pub fn new(inner: Arc<MemoryStore>) -> Self {
        Self { inner, gets: AtomicU64::new(0), at_get: None, takes: Duration::ZERO }
    }
    /// Somebody does this whenever an object is read, which is named.
    pub fn meanwhile(inner: Arc<MemoryStore>, deed: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { at_get: Some(Box::new(deed)), ..Self::new(inner) }
    }
    /// Each read takes this long.
    pub fn slow(inner: Arc<MemoryStore>, takes: Duration) -> Self {
        Self { takes, ..Self::new(inner) }
    }
    pub fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl CacheStore for Remote {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes).await
    }
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put_new(key, bytes).await
    }
    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        if let Some(deed) = &self.at_get {
            deed(key);
        }
        // sleep: simulated time.
        tokio::time::sleep(self.takes).await;
        self.inner.get(key, len_max).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }
    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.inner.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    fn is_local(&self) -> bool {
        false
    }
    fn describe(&self) -> String {
        "far away".to_owned()
    }
}
