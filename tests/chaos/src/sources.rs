//! The disks that are protected, mounted and written to.

use crate::stress::Stress;
use sluice_crash::Noise;
use sluice_test_support::command::run;
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::load::{Intensity, Load};
use sluice_test_support::mounts::{FileSystem, Mount};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The most that a source grows by in all, in bytes.
pub const GROWTH_BYTES: u64 = 48 << 20;

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
    /// The sizes that it had, in bytes and in their order, and the most that it grows to.
    sizes: Vec<u64>,
    bytes_max: u64,
}

impl Source {
    /// An ext4 under fio and chores.
    pub fn ext4(folder: &Path) -> Self {
        let bytes = 192 << 20;
        let disk = Loop::new(folder, "ext4", bytes, 512);
        let mount = Mount::format(disk.path(), FileSystem::Ext4);
        let load = Load::start(mount.path(), Intensity { fio_rate: "1m", ..Intensity::default() });
        load.wait_rounds(1);
        Self::of(Writer::Load(load), mount, disk, bytes)
    }

    /// An XFS under random operations.
    pub fn xfs(folder: &Path, noise: &mut Noise) -> Self {
        let bytes = 304 << 20;
        let disk = Loop::new(folder, "xfs", bytes, 512);
        let mount = Mount::format(disk.path(), FileSystem::Xfs);
        let stress = Stress::start(mount.path(), noise.next_number());
        Self::of(Writer::Stress(stress), mount, disk, bytes)
    }

    fn of(writer: Writer, mount: Mount, disk: Loop, bytes: u64) -> Self {
        Self { writer: Some(writer), mount: Some(mount), disk, sizes: vec![bytes], bytes_max: bytes + GROWTH_BYTES }
    }

    /// The sizes that it had, in bytes and in their order.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// Makes the disk larger; `false` where it would become too large. XFS grows with it and writes what it needs there; ext4,
    /// which a container may not let grow, stays as it is, and half of what is new gets other data.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let (Some(mount), Some(&old)) = (&self.mount, self.sizes.last()) else { return false };
        let new = old + bytes;
        if new > self.bytes_max {
            return false;
        }
        self.sizes.push(new);
        self.disk.resize(new);
        match &self.writer {
            Some(Writer::Load(_)) => self.write_behind(old, bytes.div_ceil(2)),
            _ => drop(run("xfs_growfs", &["-d", text(mount.path())])),
        }
        true
    }

    fn write_behind(&self, at: u64, len: u64) {
        let noise = Noise::seeded(at).bytes(len as usize);
        let device = OpenOptions::new().write(true).open(self.disk.path());
        let written = device.and_then(|device| device.write_all_at(&noise, at).and_then(|()| device.sync_all()));
        written.unwrap_or_else(|e| panic!("{} could not be written at {at}: {e}", self.disk.path().display()));
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
