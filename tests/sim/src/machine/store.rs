//! The cache store as one process sees it: the product's store in memory, which keeps the contract of all stores, and what goes
//! wrong on the way there.

use super::{Odds, flip};
use crate::life::Life;
use crate::rng::Rng;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_cache_store::{CacheStore, Listed, MemoryStore, StoreError, StoreErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What a service answers that has no time just now, is broken, or is not to be reached behind its balancer.
const REFUSALS: [u16; 3] = [429, 500, 503];

/// The cache store as one process sees it.
pub struct SimStore {
    /// The objects, which survive crashes.
    pub objects: Arc<MemoryStore>,
    /// The process.
    pub life: Life,
    /// Chance.
    pub rng: Rng,
    /// How often.
    pub odds: Arc<Mutex<Odds>>,
}

impl SimStore {
    async fn arrive(&self, what: &str) -> Result<(), StoreError> {
        self.life.or_never().await;
        tokio::time::sleep(self.rng.pause(8)).await;
        let odds = *self.odds.lock();
        if self.rng.once_in(odds.store_stalls) {
            tokio::time::sleep(Duration::from_secs(70)).await;
            return Err(StoreError::new(StoreErrorKind::Unavailable, format!("{what}: simulated time-out")));
        }
        if self.rng.once_in(odds.store_refuses) {
            let status = REFUSALS[self.rng.below(REFUSALS.len() as u64) as usize];
            return Err(StoreError::new(StoreErrorKind::of_status(status), format!("{what}: simulated {status}")));
        }
        if self.rng.once_in(odds.store_fails) {
            let kind = if self.rng.once_in(2) { StoreErrorKind::Denied } else { StoreErrorKind::Other };
            return Err(StoreError::new(kind, format!("{what}: simulated")));
        }
        Ok(())
    }

    /// Does what a write does to the objects, with the process's life at stake.
    async fn change(&self, change: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let odds = *self.odds.lock();
        if self.rng.once_in(odds.store_full) {
            return Err(StoreError::new(StoreErrorKind::Full, "simulated full store"));
        }
        let result = self.life.carry_out(change).await;
        if result.is_ok() && self.rng.once_in(odds.store_answer_lost) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "simulated: the answer was lost"));
        }
        result
    }

    fn once(&self, odds: impl Fn(&Odds) -> u64, bytes: Bytes) -> Bytes {
        match self.rng.once_in(odds(&self.odds.lock())) && !bytes.is_empty() {
            true => flip(&bytes, &self.rng),
            false => bytes,
        }
    }
}

#[async_trait]
impl CacheStore for SimStore {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.arrive("put").await?;
        let bytes = self.once(|odds| odds.rot, bytes);
        self.change(self.objects.put(key, bytes)).await
    }
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.arrive("put").await?;
        self.change(self.objects.put_new(key, bytes)).await
    }
    async fn get(&self, key: &str, len_max: u64) -> Result<Bytes, StoreError> {
        self.arrive("get").await?;
        Ok(self.once(|odds| odds.read_flips, self.objects.get(key, len_max).await?))
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.arrive("get").await?;
        Ok(self.once(|odds| odds.read_flips, self.objects.get_range(key, range).await?))
    }
    async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.arrive("head").await?;
        self.objects.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.arrive("list").await?;
        self.objects.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.arrive("delete").await?;
        self.change(self.objects.delete(key)).await
    }
    fn is_local(&self) -> bool {
        self.objects.is_local()
    }
    fn describe(&self) -> String {
        "sim".into()
    }
}
