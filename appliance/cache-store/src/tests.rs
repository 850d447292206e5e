//! Every backend keeps the same promises; then what is special about each.

mod answers;
mod azurite;
mod contract;
mod folder;
mod settings;

use crate::{CacheStore, Listed, MemoryStore, StoreError, StoreErrorKind, StoreOptions, check_at_start, open};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract::check(&MemoryStore::new()).await;
}

#[tokio::test]
async fn folder_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::check(&*open_folder(dir.path())).await;
}

/// A store as some are that speak S3: they take no condition, or refuse each put that has one. Or one in which somebody
/// damages or removes what was put.
#[derive(Default)]
struct Careless {
    inner: MemoryStore,
    refusal: Option<StoreErrorKind>,
    damaged: Option<StoreErrorKind>,
}

#[async_trait]
impl CacheStore for Careless {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes).await
    }
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.refusal {
            Some(kind) => Err(StoreError::new(kind, "creating an object")),
            None => self.inner.put(key, bytes).await,
        }
    }
    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        match self.damaged {
            Some(StoreErrorKind::NotFound) => self.inner.delete(key).await?,
            Some(_) => self.inner.put(key, Bytes::from_static(b"damaged")).await?,
            None => {}
        }
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
        self.inner.is_local()
    }
    fn describe(&self) -> String {
        "a careless store".to_owned()
    }
}

#[tokio::test]
async fn a_store_that_can_t_create_an_object_once_is_refused_at_the_start() {
    for refusal in [None, Some(StoreErrorKind::Other), Some(StoreErrorKind::Denied)] {
        let store = Careless { refusal, ..Careless::default() };
        let error = check_at_start(&store).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::BadSettings, "{refusal:?}");
        assert!(error.to_string().contains("a careless store must be able to create"), "{error}");
        assert_eq!(store.list("").await.unwrap(), [], "nothing is left");
    }
    for passing in [StoreErrorKind::Full, StoreErrorKind::Unavailable] {
        let store = Careless { refusal: Some(passing), ..Careless::default() };
        check_at_start(&store).await.unwrap();
    }
}

/// By somebody who has the store's account: this is no outage, which a process would wait for.
#[tokio::test]
async fn a_store_in_which_somebody_harms_the_check_is_refused_at_the_start() {
    for (kind, words) in [(StoreErrorKind::Corrupt, "gave back other bytes"), (StoreErrorKind::NotFound, "not found")] {
        let store = Careless { damaged: Some(kind), ..Careless::default() };
        let error = check_at_start(&store).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(words), "{error}");
    }
}

fn open_folder(dir: &std::path::Path) -> Arc<dyn CacheStore> {
    open(&format!("file://{}", dir.display()), &StoreOptions::default()).unwrap()
}
