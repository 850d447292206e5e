//! Deletes what is applied or given up, beside the work. What it leaves behind, the next start finds.

use sluice_cache_store::{CacheStore, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// How often a deletion is tried, and the pause between two tries.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(20);

enum Job {
    Folder(String),
    Objects(Vec<String>),
}

/// Takes orders; ends with its last owner.
pub(super) struct Janitor {
    jobs: mpsc::UnboundedSender<Job>,
    pending: watch::Sender<u64>,
}

impl Janitor {
    pub(super) fn start(store: Arc<dyn CacheStore>) -> Self {
        let (jobs, mut orders) = mpsc::unbounded_channel();
        let pending = watch::Sender::new(0);
        let done = pending.clone();
        tokio::spawn(async move {
            while let Some(job) = orders.recv().await {
                carry_out(&*store, &job).await;
                done.send_modify(|n| *n -= 1);
            }
        });
        Self { jobs, pending }
    }

    /// Deletes a cycle's folder.
    pub(super) fn remove(&self, folder: String) {
        self.order(Job::Folder(folder));
    }

    /// Deletes objects of a folder.
    pub(super) fn delete_all(&self, folder: &str, names: Vec<String>) {
        self.order(Job::Objects(names.into_iter().map(|name| format!("{folder}/{name}")).collect()));
    }

    fn order(&self, job: Job) {
        self.pending.send_modify(|n| *n += 1);
        if self.jobs.send(job).is_err() {
            // The task ended with its runtime; the next start tidies up.
            self.pending.send_modify(|n| *n -= 1);
        }
    }

    /// Waits until there is nothing to do.
    pub(super) async fn idle(&self) {
        // The sender lives in `self`, so this ends with zero only.
        let _ = self.pending.subscribe().wait_for(|n| *n == 0).await;
    }
}

async fn carry_out(store: &dyn CacheStore, job: &Job) {
    for attempt in 1..=TRIES {
        let done = match job {
            Job::Folder(folder) => delete_folder(store, folder).await,
            Job::Objects(keys) => delete_keys(store, keys.iter().map(String::as_str)).await,
        };
        match done {
            Ok(()) => return,
            Err(error) if attempt == TRIES => {
                tracing::warn!(%error, "objects stay in the cache store until the appliance is started again");
            }
            Err(error) => {
                tracing::debug!(%error, "deleting from the cache store is tried again");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Deletes everything below `folder`. The manifest goes last: whoever looks meanwhile sees a cycle with pieces missing, and
/// not pieces that belong to nothing.
pub(super) async fn delete_folder(store: &dyn CacheStore, folder: &str) -> Result<(), StoreError> {
    let listed = store.list(folder).await?;
    let is_manifest = |key: &str| key.ends_with(sluice_proto::manifest::MANIFEST_NAME);
    delete_keys(store, listed.iter().map(|o| o.key.as_str()).filter(|key| !is_manifest(key))).await?;
    delete_keys(store, listed.iter().map(|o| o.key.as_str()).filter(|key| is_manifest(key))).await
}

async fn delete_keys(store: &dyn CacheStore, keys: impl Iterator<Item = &str>) -> Result<(), StoreError> {
    for key in keys {
        store.delete(key).await?;
    }
    Ok(())
}
