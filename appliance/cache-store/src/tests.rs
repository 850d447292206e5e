//! Every backend keeps the same promises; then what is special about each.

mod azurite;
mod contract;
mod folder;
mod settings;

use crate::{CacheStore, MemoryStore, StoreOptions, open};
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

fn open_folder(dir: &std::path::Path) -> Arc<dyn CacheStore> {
    open(&format!("file://{}", dir.display()), &StoreOptions::default()).unwrap()
}
