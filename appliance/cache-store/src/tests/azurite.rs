//! The Azure backend against Azurite: the contract, and what goes wrong with remote services.

use super::contract;
use crate::{CacheStore, Retries, StoreErrorKind, StoreOptions, open};
use bytes::Bytes;
use sluice_test_support::Azurite;
use std::sync::Arc;
use std::time::Duration;

fn options(azurite: &Azurite) -> StoreOptions {
    let settings = azurite.settings().map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let quick = Retries { count_max: 1, wait_first: Duration::from_millis(50), ..Retries::default() };
    StoreOptions { settings, environment: false, retries: quick, ..StoreOptions::default() }
}

fn open_at(azurite: &Azurite, prefix: &str) -> Arc<dyn CacheStore> {
    open(&format!("{}{prefix}", azurite.url()), &options(azurite)).unwrap()
}

#[tokio::test]
async fn azurite_keeps_the_contract() {
    let azurite = Azurite::start();
    contract::check(&*open_at(&azurite, "")).await;

    let prefixed = open_at(&azurite, "/one/two");
    contract::check(&*prefixed).await;
    prefixed.put("x", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(open_at(&azurite, "").list("").await.unwrap()[0].key, "one/two/x");
    assert_eq!(open_at(&azurite, "/one/t").list("").await.unwrap(), [], "a neighbour's prefix is another store");
}

#[tokio::test]
async fn a_wrong_key_is_denied_and_not_shown() {
    let azurite = Azurite::start();
    let mut wrong = options(&azurite);
    let secret = "d3Jvbmcta2V5LXdyb25nLWtleQ==";
    wrong.settings.insert("access_key".to_owned(), secret.to_owned());
    let error = open(&azurite.url(), &wrong).unwrap().check().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error:?}");
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("check the credentials"), "{error}");
    assert!(!format!("{error:?}").contains(secret));
}

#[tokio::test]
async fn a_missing_container_is_named() {
    let azurite = Azurite::start();
    let store = open("az://nowhere", &options(&azurite)).unwrap();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound);
    assert!(error.to_string().contains("container nowhere") && error.to_string().contains("created first"), "{error}");
}

#[tokio::test]
async fn an_outage_is_retryable_and_what_was_put_is_there_afterwards() {
    let mut azurite = Azurite::start();
    let store = open_at(&azurite, "");
    store.put("before", Bytes::from_static(b"b")).await.unwrap();
    azurite.stop();
    for error in [
        store.put("during", Bytes::new()).await.unwrap_err(),
        store.put_new("during", Bytes::new()).await.unwrap_err(),
        store.get("before", 1).await.unwrap_err(),
        store.head("before").await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.delete("before").await.unwrap_err(),
    ] {
        assert!(error.is_retryable(), "{error:?}");
    }
    azurite.start_again();
    assert_eq!(store.get("before", 1).await.unwrap(), "b");
    store.put_new("during", Bytes::from_static(b"d")).await.unwrap();
}
