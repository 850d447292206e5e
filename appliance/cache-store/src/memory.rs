//! A store in memory, for tests and simulation: no clock, no threads, the same order every time.

use crate::{CacheStore, Listed, StoreError, StoreErrorKind, key};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;

/// A [`CacheStore`] that forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, key: &str) -> Result<Bytes, StoreError> {
        key::check(key)?;
        let missing = || StoreError::new(StoreErrorKind::NotFound, format!("{key} in {}", self.describe()));
        self.objects.lock().get(key).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl CacheStore for MemoryStore {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        key::check(key)?;
        self.objects.lock().insert(key.to_owned(), bytes);
        Ok(())
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        key::check(key)?;
        let mut objects = self.objects.lock();
        match objects.get(key) {
            Some(there) if *there == bytes => Ok(()),
            Some(_) => Err(StoreError::new(StoreErrorKind::AlreadyExists, format!("creating {key} in memory"))),
            None => {
                objects.insert(key.to_owned(), bytes);
                Ok(())
            }
        }
    }

    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        let bytes = self.find(key)?;
        if bytes.len() as u64 > len_max {
            return Err(StoreError::too_long(key, bytes.len() as u64, len_max, &self.describe()));
        }
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.find(key)?;
        if range.start > range.end || range.end > bytes.len() as u64 {
            return Err(StoreError::too_short(key, &range, &self.describe()));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        key::check(key)?;
        Ok(self.objects.lock().get(key).map(|bytes| bytes.len() as u64))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        key::check_prefix(prefix)?;
        let below = |key: &str| prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        let objects = self.objects.lock();
        let listed = objects.iter().filter(|(key, _)| below(key));
        Ok(listed.map(|(key, bytes)| Listed { key: key.clone(), len: bytes.len() as u64 }).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        key::check(key)?;
        self.objects.lock().remove(key);
        Ok(())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
