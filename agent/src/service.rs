//! All the disks of a machine, each by itself: what befalls one never stops the others.

use crate::disk::DiskError;
use crate::protect::{ProtectError, Protected, Protection};
use crate::tracker::ebpf::KernelTypes;
use crate::workers::Workers;
use sluice_client::AgentApi;
use sluice_platform::durable;
use sluice_platform::system::OsEntropy;
use sluice_proto::env::Entropy;
use sluice_proto::keys::SigningKey;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinError;
use tokio::time::timeout;

/// The pause before a disk that could not be protected is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The pause before a disk that has grown is opened anew: whoever enlarges disks may do it in several steps.
const GROWN: Duration = Duration::from_secs(1);

/// The agent's signing key: kept in `state`, made there at the first start.
///
/// # Errors
/// A file that can't be read or written, or that holds something else.
pub fn signing_key(state: &Path, entropy: &dyn Entropy) -> Result<SigningKey, String> {
    let path = state.join("signing.key");
    durable::create_folder(state).map_err(|e| e.to_string())?;
    if let Some(bytes) = durable::read_file_if_exists(&path, 4096).map_err(|e| e.to_string())? {
        let seed = <[u8; 32]>::try_from(&bytes[..])
            .map_err(|_| format!("{}: not a signing key; put the right one back", path.display()))?;
        return Ok(SigningKey::from_seed(&seed));
    }
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    durable::write_file(&path, &seed, durable::Access::Owner).map_err(|e| e.to_string())?;
    Ok(SigningKey::from_seed(&seed))
}

/// How long a disk waits for the one before it to be opened: one that hangs holds up nobody for long.
const TURN: Duration = Duration::from_secs(5);

/// Disks are opened one after the other: what is open is shipped while the next is opened, which takes some flushes and keeps
/// the kernel's verifier busy.
#[derive(Clone, Default)]
struct Opening(Arc<Turns>);

#[derive(Default)]
struct Turns {
    turn: Mutex<()>,
    /// How many have ended.
    ended: AtomicU64,
}

impl Opening {
    async fn open<T: Send + 'static>(&self, open: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = self.wait().await;
        let opened = tokio::task::spawn_blocking(open).await;
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        drop(turn);
        match opened.map_err(JoinError::try_into_panic) {
            Ok(opened) => opened,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is shutting down and this task with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// Waits for its turn; none where nobody's has ended for so long.
    async fn wait(&self) -> Option<MutexGuard<'_, ()>> {
        loop {
            let ended = self.0.ended.load(Ordering::Relaxed);
            if let Ok(turn) = timeout(TURN, self.0.turn.lock()).await {
                return Some(turn);
            }
            if ended == self.0.ended.load(Ordering::Relaxed) {
                return None;
            }
        }
    }
}

/// Protects every disk until told to stop.
pub async fn run(
    disks: impl IntoIterator<Item = Protection>,
    api: Arc<dyn AgentApi>,
    signer: SigningKey,
    stop: watch::Receiver<bool>,
) {
    let machine =
        Machine { api, workers: Workers::per_processor(), signer: Arc::new(signer), opening: Opening::default() };
    // Until each disk was opened, or could not be.
    let types = Arc::new(KernelTypes::keep());
    let mut tasks = tokio::task::JoinSet::new();
    for disk in disks {
        tasks.spawn(keep_protecting(Arc::new(disk), machine.clone(), types.clone(), stop.clone()));
    }
    drop(types);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a disk's task ended by itself; restart the agent to protect it again");
        }
    }
}

/// What all disks of a machine share.
#[derive(Clone)]
struct Machine {
    api: Arc<dyn AgentApi>,
    workers: Workers,
    signer: Arc<SigningKey>,
    opening: Opening,
}

/// Protects one disk; where that fails, tries again after a while.
async fn keep_protecting(
    disk: Arc<Protection>,
    machine: Machine,
    types: Arc<KernelTypes>,
    mut stop: watch::Receiver<bool>,
) {
    let source = disk.source.display().to_string();
    let mut types = Some(types);
    while !*stop.borrow() {
        let word = stop.clone();
        let opened = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            opened = machine.open(&disk, &word) => opened,
        };
        let result = match opened {
            Ok(protected) => {
                drop(types.take());
                protected.agent.run().await.map_err(ProtectError::from)
            }
            Err(error) => Err(error),
        };
        drop(types.take());
        let Err(error) = result else { return };
        let pause = match &error {
            ProtectError::Disk(DiskError::Grown { detail, .. }) => {
                tracing::info!(source, "{detail}");
                GROWN
            }
            error => {
                tracing::error!(source, %error, "not protected; trying again in {} s", RETRY.as_secs());
                RETRY
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Machine {
    async fn open(&self, disk: &Arc<Protection>, stop: &watch::Receiver<bool>) -> Result<Protected, ProtectError> {
        let (one, this, stop) = (disk.clone(), self.clone(), stop.clone());
        let start = move || one.start(this.api, this.workers, Arc::new(OsEntropy::new()), &this.signer, stop);
        let protected = self.opening.open(start).await?;
        for remark in &protected.remarks {
            tracing::warn!("{remark}");
        }
        tracing::info!(source = %disk.source.display(), disk = %protected.disk, tracker = %protected.tracker, "protected");
        Ok(protected)
    }
}
