//! What trackers leave pinned in the kernel on purpose, and a test must not leave.

use std::fs;
use std::path::{Path, PathBuf};

/// Where `sluice replicate` pins trackers, a folder a disk.
const PINS: &str = "/sys/fs/bpf/sluice";

/// The pins of the disks whose journals lie in a folder; removed on drop, with which the kernel stops tracking.
#[derive(Debug)]
pub struct Pins {
    state: PathBuf,
}

impl Pins {
    /// Those of all disks whose journals lie in `state` or below when this is dropped.
    pub fn of(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// The ids of the disks.
    pub fn disks(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.state.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if entry.file_name() == "disk.json" {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                    found.extend(json["disk"].as_str().map(str::to_owned));
                }
            }
        }
        found
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for disk in self.disks() {
            let folder = Path::new(PINS).join(disk);
            // Files first: a BPF file system's folder goes only when it is empty.
            drop(fs::remove_dir_all(folder));
        }
    }
}
