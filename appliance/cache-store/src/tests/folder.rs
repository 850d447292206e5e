//! A folder as store: full disks, leavings of crashes, wrong places.

use super::open_folder;
use crate::{StoreErrorKind, StoreOptions, open};
use bytes::Bytes;
use std::time::Duration;

#[tokio::test]
async fn a_full_disk_says_so_and_leaves_nothing_half() {
    let Some(fs) = sluice_test_support::SmallFs::mount(1 << 20) else {
        eprintln!("not root: a small file system can't be mounted, nothing was tested");
        return;
    };
    let store = open_folder(&fs.path().join("cache"));
    store.put("d/kept", vec![1; 512 << 10].into()).await.unwrap();

    let large = Bytes::from(vec![2; 700 << 10]);
    let error = store.put("d/large", large.clone()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full);
    let text = error.to_string();
    let folder = fs.path().join("cache").display().to_string();
    assert!(text.contains(&folder) && text.contains("d/large") && text.contains("free some space"), "{text}");
    assert_eq!(store.put_new("d/manifest", large.clone()).await.unwrap_err().kind(), StoreErrorKind::Full);

    let on_disk: Vec<_> =
        std::fs::read_dir(fs.path().join("cache/d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(on_disk, ["kept"]);

    store.delete("d/kept").await.unwrap();
    store.put("d/large", large).await.unwrap();
}

#[tokio::test]
async fn leavings_of_a_crash_are_swept_and_objects_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_folder(dir.path());
    store.put("d/c/whole", Bytes::from_static(b"whole")).await.unwrap();
    let unfinished = dir.path().join("d/c/half#1");
    std::fs::write(&unfinished, b"ha").unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 1, "a half object must not be listed");

    assert_eq!(store.sweep_unfinished(Duration::from_secs(3600)).await.unwrap(), 0);
    assert!(unfinished.exists(), "another process may still be writing it");
    assert_eq!(store.sweep_unfinished(Duration::ZERO).await.unwrap(), 1);
    assert!(!unfinished.exists());
    assert_eq!(store.get("d/c/whole", 10).await.unwrap(), "whole");
}

#[tokio::test]
async fn a_folder_is_made_with_its_parents_and_outlives_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("not/there yet");
    let url = format!("file://{}", deep.display().to_string().replace(' ', "%20"));
    open(&url, &StoreOptions::default()).unwrap().put("a/b", Bytes::from_static(b"b")).await.unwrap();
    assert_eq!(std::fs::read(deep.join("a/b")).unwrap(), b"b");
    let again = open(&url, &StoreOptions::default()).unwrap();
    assert_eq!(again.get("a/b", 1).await.unwrap(), "b");
    assert!(again.is_local());
    assert_eq!(again.describe(), format!("folder {}", deep.canonicalize().unwrap().display()));
}

#[tokio::test]
async fn a_file_where_the_folder_should_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    let error = open(&format!("file://{}", file.display()), &StoreOptions::default()).err().unwrap();
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(std::fs::read(file).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_processes_may_check_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_folder(dir.path());
    let checks: Vec<_> = (0..32)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.check().await })
        })
        .collect();
    for check in checks {
        check.await.unwrap().unwrap();
    }
    assert_eq!(store.list("").await.unwrap(), [], "nothing is left");
}
