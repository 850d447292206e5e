//! All the disks of a machine, each by itself: what befalls one never stops the others.

use crate::disk::DiskError;
use crate::protect::{ProtectError, Protection};
use crate::workers::Workers;
use sluice_client::AgentApi;
use sluice_platform::durable;
use sluice_platform::system::OsEntropy;
use sluice_proto::env::Entropy;
use sluice_proto::keys::SigningKey;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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

/// Protects every disk until told to stop.
pub async fn run(
    disks: impl IntoIterator<Item = Protection>,
    api: Arc<dyn AgentApi>,
    signer: SigningKey,
    stop: watch::Receiver<bool>,
) {
    let (workers, signer) = (Workers::per_processor(), Arc::new(signer));
    let mut tasks = tokio::task::JoinSet::new();
    for disk in disks {
        tasks.spawn(keep_protecting(disk, api.clone(), workers.clone(), signer.clone(), stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a disk's task ended by itself; restart the agent to protect it again");
        }
    }
}

/// Protects one disk; where that fails, tries again after a while.
async fn keep_protecting(
    disk: Protection,
    api: Arc<dyn AgentApi>,
    workers: Workers,
    signer: Arc<SigningKey>,
    mut stop: watch::Receiver<bool>,
) {
    let source = disk.source.display().to_string();
    while !*stop.borrow() {
        let result = protect(&disk, &api, &workers, &signer, &stop).await;
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

async fn protect(
    disk: &Protection,
    api: &Arc<dyn AgentApi>,
    workers: &Workers,
    signer: &SigningKey,
    stop: &watch::Receiver<bool>,
) -> Result<(), ProtectError> {
    let protected = disk.start(api.clone(), workers.clone(), Arc::new(OsEntropy::new()), signer, stop.clone())?;
    if let Some(remark) = &protected.remark {
        tracing::warn!("{remark}");
    }
    tracing::info!(source = %disk.source.display(), disk = %protected.disk, tracker = %protected.tracker, "protected");
    Ok(protected.agent.run().await?)
}
