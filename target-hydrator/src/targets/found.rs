//! The target of a disk in the folder of all targets, whatever the disk was called when it was made.

use super::state_folder;
use crate::ledger::LEDGER_NAME;
use sluice_proto::DiskId;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The image that is there for the disk, or whose state is: its name bears the disk's id. Of several, which a version that went
/// by the disk's present name may have left, that whose ledger was written last; without any ledger the one with the `present`
/// name comes first.
pub(super) fn of(folder: &Path, disk: DiskId, present: &Path) -> Option<PathBuf> {
    // Not what somebody has put aside under a name of his own.
    let ends = ["vhd", "vhdx", "raw"].map(|suffix| format!("-{disk}.{suffix}"));
    let entries = folder.read_dir().ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let images = names.map(|name| name.strip_suffix(".sluice").map_or(name.clone(), str::to_owned));
    let ours = images.filter(|name| ends.iter().any(|end| name.ends_with(end)));
    let found: BTreeSet<PathBuf> = ours.map(|name| folder.join(name)).collect();
    let best = found.iter().max_by_key(|path| (noted(path), path.as_path() == present)).cloned();
    if let Some(best) = best.as_ref().filter(|_| found.len() > 1) {
        let (others, best) = (found.len() - 1, best.display());
        tracing::warn!(%disk, others, "{best} is kept up to date; remove the disk's other targets, which are not");
    }
    best
}

/// When the target's ledger was written last; none before all others.
fn noted(path: &Path) -> Option<SystemTime> {
    state_folder(path).ok()?.join(LEDGER_NAME).metadata().ok()?.modified().ok()
}
