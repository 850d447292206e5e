//! A small raw disk under three processes whose cycles begin on order only, for scenarios about what goes wrong.

use crate::judge::{Format, assert_equal};
use sluice_proto::DiskId;
use sluice_proto::wire::CycleView;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::devices::Loop;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// Cycles begin on order only: the schedule's own would take an hour.
pub const NEVER_MS: u64 = 3_600_000;

/// A disk of 32 MiB under a cluster of its own.
#[derive(Debug)]
pub struct Apart {
    /// The processes.
    pub cluster: Cluster,
    /// The source.
    pub source: Loop,
    // Deleted when nothing uses it any more.
    _folder: TempDir,
}

impl Apart {
    /// Its size in bytes.
    pub const BYTES: u64 = 32 << 20;

    /// Makes the disk and prepares the cluster; nothing runs yet.
    pub fn prepare(change: impl FnOnce(&mut Setup)) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let source = Loop::new(folder.path(), "disk", Self::BYTES, 512);
        let mut setup = Setup::of(source.path());
        change(&mut setup);
        let scene = Self { cluster: Cluster::prepare(setup), source, _folder: folder };
        scene.write(0, 24 << 20, 1);
        scene
    }

    /// Starts all three; the schedule's own cycles stay away. The disk's id.
    pub fn start(&mut self) -> DiskId {
        self.cluster.start_part(Part::Appliance);
        self.cluster.operator().wait_ready();
        self.cluster.operator().set_policy(NEVER_MS, None);
        self.cluster.start_part(Part::Hydrator);
        self.cluster.start_part(Part::Agent);
        self.cluster.operator().only_disk()
    }

    /// Starts all three and waits until the disk is in step, with its first delta done too.
    pub fn in_step(&mut self) -> DiskId {
        let disk = self.start();
        self.cluster.operator().wait_verified(disk, 1);
        disk
    }

    /// Writes bytes that don't compress to the source; they are on it when this returns.
    pub fn write(&self, at: u64, bytes: usize, seed: u64) {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
        };
        let noise: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect();
        let file = File::options().write(true).open(self.source.path());
        let written = file.and_then(|file| file.write_all_at(&noise, at).and_then(|()| file.sync_all()));
        written.unwrap_or_else(|e| panic!("{}: {e}", self.source.path().display()));
    }

    /// Orders a cycle; its number.
    pub fn order(&self, disk: DiskId) -> u64 {
        let last = self.newest(disk).cycle.0;
        self.cluster.operator().sync_now(disk);
        last + 1
    }

    /// The newest cycle.
    pub fn newest(&self, disk: DiskId) -> CycleView {
        self.cluster.operator().wait_cycle(disk, "there is a cycle", |view| Some(view.clone()))
    }

    /// Waits for the end of `cycle`, whichever it is.
    pub fn wait_end(&self, disk: DiskId, cycle: u64) -> CycleView {
        self.cluster.operator().wait_cycle(disk, &format!("cycle {cycle} ends"), |view| {
            (view.cycle.0 >= cycle && view.state.is_end()).then(|| view.clone())
        })
    }

    /// Orders a cycle, which must be verified, and compares the disks.
    pub fn mend(&self, disk: DiskId) -> CycleView {
        let cycle = self.order(disk);
        let view = self.cluster.operator().wait_verified(disk, cycle - 1);
        assert_equal(self.source.path(), &self.cluster.target(disk), Format::Vhd);
        view
    }

    /// The folder of a cycle in the cache, where that is a folder.
    pub fn cycle_folder(&self, disk: DiskId, cycle: u64) -> PathBuf {
        self.cluster.cache().join(format!("{disk}/g00000001/c{cycle:08}"))
    }
}
