//! A store that holds what is read again at once in memory, in front of one that lasts.
//!
//! For a process that is agent, appliance and hydrator in one: what waits between them would be written to a disk and read
//! back from it only to be deleted. Objects that must last (those put by [`CacheStore::put_new`]) go behind the window.
//! What is in the window is lost with the process: the next run finds segments missing and ships them again.

use crate::{CacheStore, Listed, MemoryStore, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long room is waited for while nobody makes any. After that objects go behind the window, until somebody does.
const PATIENCE: Duration = Duration::from_secs(1);

/// The window. Its capacity is a bound on memory, but for objects that are being put right now.
pub struct WindowStore {
    memory: MemoryStore,
    behind: Arc<dyn CacheStore>,
    bytes_max: u64,
    room: Mutex<Room>,
    made: Notify,
}

#[derive(Default)]
struct Room {
    used: u64,
    /// Nobody made room within [`PATIENCE`]: a cycle that is read only as a whole, and is larger than the window.
    stuck: bool,
}

impl WindowStore {
    /// A window of `bytes_max` bytes before `behind`.
    pub fn new(behind: Arc<dyn CacheStore>, bytes_max: u64) -> Self {
        Self { memory: MemoryStore::new(), behind, bytes_max, room: Mutex::default(), made: Notify::new() }
    }

    /// Puts all that is in memory behind the window, so that it outlives the process.
    ///
    /// # Errors
    /// The store behind does not take it; what was not put yet is still in memory.
    pub async fn settle(&self) -> Result<(), StoreError> {
        for Listed { key, len } in self.memory.list("").await? {
            let bytes = self.memory.get(&key, len).await?;
            self.behind.put(&key, bytes).await?;
            self.forget(&key).await?;
        }
        Ok(())
    }

    /// Takes room for an object, or says that there is none.
    async fn enter(&self, len: u64) -> bool {
        loop {
            let made = self.made.notified();
            {
                let mut room = self.room.lock();
                if room.used + len <= self.bytes_max {
                    room.used += len;
                    return true;
                }
                if room.stuck || len > self.bytes_max {
                    return false;
                }
            }
            if timeout(PATIENCE, made).await.is_err() {
                self.room.lock().stuck = true;
            }
        }
    }

    async fn forget(&self, key: &str) -> Result<(), StoreError> {
        let Some(len) = self.memory.head(key).await? else { return Ok(()) };
        self.memory.delete(key).await?;
        {
            let mut room = self.room.lock();
            room.used = room.used.saturating_sub(len);
            room.stuck = false;
        }
        self.made.notify_waiters();
        Ok(())
    }
}

#[async_trait]
impl CacheStore for WindowStore {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.forget(key).await?;
        match self.enter(bytes.len() as u64).await {
            true => self.memory.put(key, bytes).await,
            false => self.behind.put(key, bytes).await,
        }
    }

    async fn sync(&self, keys: &[String]) -> Result<(), StoreError> {
        self.behind.sync(keys).await
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.behind.put_new(key, bytes).await
    }

    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        match self.memory.head(key).await? {
            Some(_) => self.memory.get(key, len_max).await,
            None => self.behind.get(key, len_max).await,
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self.memory.head(key).await? {
            Some(_) => self.memory.get_range(key, range).await,
            None => self.behind.get_range(key, range).await,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.memory.head(key).await? {
            Some(len) => Ok(Some(len)),
            None => self.behind.head(key).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.behind.list(prefix).await?;
        listed.extend(self.memory.list(prefix).await?);
        listed.sort_unstable();
        listed.dedup_by(|a, b| a.key == b.key);
        Ok(listed)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.forget(key).await?;
        self.behind.delete(key).await
    }

    async fn sweep_unfinished(&self, age_min: Duration) -> Result<u64, StoreError> {
        self.behind.sweep_unfinished(age_min).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.behind.check().await
    }

    fn is_local(&self) -> bool {
        self.behind.is_local()
    }

    fn describe(&self) -> String {
        self.behind.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn window(bytes_max: u64) -> (WindowStore, Arc<MemoryStore>) {
        let behind = Arc::new(MemoryStore::new());
        (WindowStore::new(behind.clone(), bytes_max), behind)
    }

    async fn keys(store: &dyn CacheStore) -> Vec<String> {
        store.list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_fits_stays_in_memory_and_a_manifest_does_not() {
        let (window, behind) = window(10);
        window.put("d/a", Bytes::from_static(b"12345678")).await.unwrap();
        window.put_new("d/manifest", Bytes::from_static(b"m")).await.unwrap();
        assert_eq!(keys(&*behind).await, ["d/manifest"]);
        assert_eq!(keys(&window).await, ["d/a", "d/manifest"]);
        assert_eq!(window.get("d/a", 8).await.unwrap(), "12345678");
        assert_eq!(window.get_range("d/a", 2..4).await.unwrap(), "34");
        assert_eq!(window.head("d/manifest").await.unwrap(), Some(1));
        window.put("d/a", Bytes::from_static(b"another")).await.unwrap();
        assert_eq!(window.get("d/a", 8).await.unwrap(), "another");
        window.delete("d/a").await.unwrap();
        assert_eq!(window.head("d/a").await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_while_somebody_makes_some() {
        let (window, behind) = window(10);
        window.put("a", Bytes::from_static(b"12345678")).await.unwrap();
        let delete = async {
            tokio::time::sleep(PATIENCE / 2).await;
            window.delete("a").await.unwrap();
        };
        let (put, ()) = tokio::join!(window.put("b", Bytes::from_static(b"12345678")), delete);
        put.unwrap();
        assert!(keys(&*behind).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_objects_go_behind_and_only_the_first_one_waits() {
        let (window, behind) = window(10);
        window.put("a", Bytes::from_static(b"12345678")).await.unwrap();
        let start = Instant::now();
        for key in ["b", "c", "d"] {
            window.put(key, Bytes::from_static(b"12345678")).await.unwrap();
        }
        assert_eq!(start.elapsed(), PATIENCE);
        assert_eq!(keys(&*behind).await, ["b", "c", "d"]);
        // Room counts again once there is some.
        window.delete("a").await.unwrap();
        window.put("e", Bytes::from_static(b"12345678")).await.unwrap();
        assert_eq!(keys(&*behind).await, ["b", "c", "d"]);
        // An object that could never fit does not wait.
        window.put("f", Bytes::from_static(b"12345678901")).await.unwrap();
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_settled_outlives_the_window() {
        let (window, behind) = window(10);
        window.put("a", Bytes::from_static(b"1")).await.unwrap();
        window.settle().await.unwrap();
        assert_eq!(keys(&*behind).await, ["a"]);
        assert_eq!(window.get("a", 1).await.unwrap(), "1");
        assert_eq!(window.room.lock().used, 0);
    }
}
