//! What every store must do, whatever it is made of.

use crate::{CacheStore, Listed, StoreErrorKind};
use bytes::Bytes;

pub(super) async fn check(store: &dyn CacheStore) {
    store.check().await.unwrap();
    puts_and_gets(store).await;
    creates_once(store).await;
    lists_by_folder(store).await;
    refuses_keys_that_reach_out(store).await;
    carries_large_objects(store).await;
}

async fn puts_and_gets(store: &dyn CacheStore) {
    assert_eq!(store.head("a/x").await.unwrap(), None);
    assert_eq!(store.get("a/x", 10).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert_eq!(store.get_range("a/x", 0..1).await.unwrap_err().kind(), StoreErrorKind::NotFound);

    store.put("a/x", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.head("a/x").await.unwrap(), Some(10));
    assert_eq!(store.get("a/x", 10).await.unwrap(), "0123456789");
    assert_eq!(store.get("a/x", 9).await.unwrap_err().kind(), StoreErrorKind::Corrupt);

    assert_eq!(store.get_range("a/x", 2..5).await.unwrap(), "234");
    assert_eq!(store.get_range("a/x", 4..4).await.unwrap(), "");
    for range in [5..11, 10..12, 90..91] {
        assert_eq!(store.get_range("a/x", range).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    }

    store.put("a/x", Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(store.get("a/x", 10).await.unwrap(), "other");
    store.put("a/empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("a/empty", 0).await.unwrap(), "");

    for key in ["a/x", "a/empty"] {
        store.delete(key).await.unwrap();
        store.delete(key).await.unwrap();
        assert_eq!(store.head(key).await.unwrap(), None);
    }
}

async fn creates_once(store: &dyn CacheStore) {
    let first = Bytes::from_static(b"manifest one");
    store.put_new("m/manifest", first.clone()).await.unwrap();
    // Its answer was lost, so it comes again.
    store.put_new("m/manifest", first.clone()).await.unwrap();
    for other in ["manifest two", "longer than the first"] {
        let error = store.put_new("m/manifest", Bytes::from_static(other.as_bytes())).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::AlreadyExists, "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(store.get("m/manifest", 100).await.unwrap(), first);
    store.delete("m/manifest").await.unwrap();
}

async fn lists_by_folder(store: &dyn CacheStore) {
    let keys = ["d/g00000001/c00000001/manifest", "d/g00000001/c00000001/s0-a.seg", "d/g00000001/c000000010/s", "e"];
    for key in keys.iter().rev() {
        store.put(key, Bytes::copy_from_slice(key.as_bytes())).await.unwrap();
    }
    let listed = |keys: &[&str]| -> Vec<Listed> {
        keys.iter().map(|key| Listed { key: (*key).to_owned(), len: key.len() as u64 }).collect()
    };
    assert_eq!(store.list("").await.unwrap(), listed(&keys));
    assert_eq!(store.list("d/g00000001/c00000001").await.unwrap(), listed(&keys[..2]));
    assert_eq!(store.list("d").await.unwrap(), listed(&keys[..3]));
    assert_eq!(store.list("nothing").await.unwrap(), []);
    for key in keys {
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap(), []);
}

async fn refuses_keys_that_reach_out(store: &dyn CacheStore) {
    let long = "x".repeat(513);
    let bad = ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.hidden", "a b", "a#1", "a%2e", "ä", "a\\b", &long];
    for key in bad {
        let error = store.put(key, Bytes::new()).await.unwrap_err();
        assert!(error.to_string().contains("not a key"), "{key:?}: {error}");
        assert!(store.get(key, 1).await.is_err());
        assert!(store.put_new(key, Bytes::new()).await.is_err());
        assert!(store.delete(key).await.is_err());
        assert!(store.head(key).await.is_err());
        assert!(store.get_range(key, 0..1).await.is_err());
        assert!(key.is_empty() || store.list(key).await.is_err());
    }
}

/// Large enough to go in parts, the last of them short.
async fn carries_large_objects(store: &dyn CacheStore) {
    let large: Bytes = (0..crate::object::MULTIPART_FROM + 12_345).map(|i| ((i * 31) >> 7) as u8).collect();
    store.put("large", large.clone()).await.unwrap();
    assert_eq!(store.head("large").await.unwrap(), Some(large.len() as u64));
    assert!(store.get("large", large.len() as u64).await.unwrap() == large);
    let seam = (8 << 20) - 5..(8 << 20) + 5u64;
    assert_eq!(store.get_range("large", seam.clone()).await.unwrap(), large[seam.start as usize..seam.end as usize]);
    store.put_new("large", large).await.unwrap();
    store.delete("large").await.unwrap();
}
