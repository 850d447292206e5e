//! The disks that are protected, mounted and written to.

use crate::stress::Stress;
use sluice_crash::Noise;
use sluice_test_support::devices::Loop;
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};
use std::path::Path;

/// What writes.
#[derive(Debug)]
enum Writer {
    /// fio and chores.
    Load(Load),
    /// Random operations.
    Stress(Stress),
}

/// A mounted disk under load.
#[derive(Debug)]
pub struct Source {
    // Dropped in this order: stopped, unmounted, detached.
    writer: Option<Writer>,
    mount: Option<Mount>,
    /// The disk.
    pub disk: Loop,
}

impl Source {
    /// An ext4 under fio and chores.
    pub fn ext4(folder: &Path) -> Self {
        let disk = Loop::new(folder, "ext4", 192 << 20, 512);
        let mount = Mount::format(disk.path(), FileSystem::Ext4);
        let load = Load::start(mount.path(), Intensity { fio_rate: "1m", ..Intensity::default() });
        load.wait_rounds(1);
        Self { writer: Some(Writer::Load(load)), mount: Some(mount), disk }
    }

    /// An XFS under random operations.
    pub fn xfs(folder: &Path, noise: &mut Noise) -> Self {
        let disk = Loop::new(folder, "xfs", 304 << 20, 512);
        let mount = Mount::format(disk.path(), FileSystem::Xfs);
        let stress = Stress::start(mount.path(), noise.next_number());
        Self { writer: Some(Writer::Stress(stress)), mount: Some(mount), disk }
    }

    /// Stops the writers and unmounts. Panics if they did nothing, or failed.
    pub fn rest(&mut self) {
        let done = match self.writer.take() {
            Some(Writer::Load(load)) => load.stop(),
            Some(Writer::Stress(stress)) => stress.stop(),
            None => return,
        };
        assert!(done > 0, "nothing was written to {}", self.disk.path().display());
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
    }
}
