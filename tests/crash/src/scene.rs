//! A disk under three processes, and death.

use crate::Noise;
use sluice_e2e::{Format, assert_equal};
use sluice_proto::DiskId;
use sluice_proto::cycle::State;
use sluice_proto::wire::CycleView;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::devices::Loop;
use sluice_test_support::program::PATIENCE;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Cycles begin on order only: the schedule's own would take an hour.
const NEVER_MS: u64 = 3_600_000;
/// What a round writes: a dozen segments, so that there is a middle to be hit.
const ROUND_BYTES: usize = 48 << 20;
/// How often a state that lasts for milliseconds may be missed before it counts as one that never comes.
const MISSES_MAX: u32 = 20;

/// A raw disk of 96 MiB, protected by a cluster, with its initial cycle and first delta behind it.
#[derive(Debug)]
pub struct Scene {
    cluster: Cluster,
    disk: DiskId,
    source: Loop,
    noise: Noise,
    // Deleted when nothing uses it any more.
    _folder: TempDir,
}

impl Scene {
    /// Sets the scene, in which the disk is in step.
    pub fn in_step(test: &str) -> Self {
        let scene = Self::begin(test, None);
        scene.cluster.operator().wait_verified(scene.disk, 0);
        // The first delta follows at once, and the rest on order.
        let first = scene.cluster.operator().wait_verified(scene.disk, 1);
        assert_eq!(first.cycle.0, 2, "{first:?}");
        scene.judge();
        scene
    }

    /// Sets the scene in which the initial cycle has begun, under a limit.
    pub fn begin(test: &str, limit: Option<&str>) -> Self {
        let mut noise = Noise::announced(test);
        let folder = TempDir::new().expect("a temporary folder");
        let source = Loop::new(folder.path(), "disk", 96 << 20, 512);
        write(&source, 0, &noise.bytes(64 << 20));
        let mut cluster = Cluster::prepare(Setup::of(source.path()));
        cluster.start_part(Part::Appliance);
        cluster.operator().wait_ready();
        cluster.operator().set_policy(NEVER_MS, limit);
        cluster.start_part(Part::Hydrator);
        cluster.start_part(Part::Agent);
        let disk = cluster.operator().only_disk();
        Self { cluster, disk, source, noise, _folder: folder }
    }

    /// The three processes.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The disk.
    pub fn disk(&self) -> DiskId {
        self.disk
    }

    /// Writes a round's bytes somewhere and orders a cycle; its number.
    pub fn order_cycle(&mut self) -> u64 {
        let last = self.newest().cycle.0;
        self.scribble(ROUND_BYTES);
        self.cluster.operator().sync_now(self.disk);
        last + 1
    }

    /// Writes `bytes` that don't compress somewhere on the source; they are on it when this returns.
    pub fn scribble(&mut self, bytes: usize) {
        let room = (96 << 20) - bytes as u64;
        let at = self.noise.below(room / 512) * 512;
        let bytes = self.noise.bytes(bytes);
        write(&self.source, at, &bytes);
    }

    /// The newest cycle.
    pub fn newest(&self) -> CycleView {
        self.cluster.operator().wait_cycle(self.disk, "there is a cycle", |view| Some(view.clone()))
    }

    /// Puts a limit in force.
    pub fn limit(&self, limit: Option<&str>) {
        self.cluster.operator().set_policy(NEVER_MS, limit);
    }

    /// Waits until `cycle` is in `state`.
    pub fn wait_state(&self, cycle: u64, state: State) {
        let what = format!("cycle {cycle} is {state:?}");
        self.cluster.operator().wait_cycle(self.disk, &what, |view| {
            assert!(view.cycle.0 <= cycle && !view.state.is_end() || view.cycle.0 < cycle, "passed by: {view:?}");
            (view.cycle.0 == cycle && view.state == state).then_some(())
        });
    }

    /// Orders cycles until one is seen while it is applied; its number. Applying takes a fraction of a second, and may be
    /// over before a look falls into it; then there is a next cycle.
    pub fn catch_applying(&mut self) -> u64 {
        for _ in 0..MISSES_MAX {
            let cycle = self.order_cycle();
            let what = format!("cycle {cycle} is applied");
            let caught = self.cluster.operator().wait_cycle(self.disk, &what, |view| {
                assert_ne!(view.state, State::Failed, "{view:?}");
                let there = view.cycle.0 == cycle && matches!(view.state, State::Applying | State::Verified);
                there.then_some(view.state == State::Applying)
            });
            if caught {
                return cycle;
            }
        }
        panic!("no cycle was ever seen while it was applied");
    }

    /// Waits until the hydrator has proven `cycle`, by its own ledger.
    pub fn wait_proven(&self, cycle: u64) {
        let target = self.cluster.target(self.disk);
        let ledger = std::path::PathBuf::from(format!("{}.sluice/ledger", target.display()));
        let end = Instant::now() + PATIENCE;
        while proven(&ledger) != Some(cycle) {
            assert!(Instant::now() < end, "{} does not name cycle {cycle}", ledger.display());
            std::thread::yield_now();
        }
    }

    /// After a death: what was dead lives again, cycle `cycle` is verified, nothing that was written meanwhile is missed,
    /// and the disks are equal.
    pub fn revive(&mut self, dead: &[Part], cycle: u64) {
        // The kernel goes on tracking while no agent lives.
        self.scribble(1 << 20);
        dead.iter().for_each(|part| self.cluster.start_part(*part));
        self.limit(None);
        let finished = self.cluster.operator().wait_verified(self.disk, cycle - 1);
        assert_eq!(finished.cycle.0, cycle, "it was this cycle that was finished: {finished:?}");
        self.cluster.operator().sync_now(self.disk);
        let next = self.cluster.operator().wait_verified(self.disk, cycle);
        assert_eq!(next.kind, sluice_proto::cycle::CycleKind::Delta, "tracking was unbroken: {next:?}");
        self.judge();
    }

    /// Panics unless the disks are equal. Nothing writes, and every cycle that was begun is verified.
    pub fn judge(&self) {
        assert_equal(self.source.path(), &self.cluster.target(self.disk), Format::Vhd);
    }
}

/// The last cycle that a ledger says is proven; `None` while it can't be read, as when it is just being replaced.
fn proven(ledger: &std::path::Path) -> Option<u64> {
    let bytes = std::fs::read(ledger).ok()?;
    let json = bytes.get(16..bytes.len().checked_sub(8)?)?;
    let ledger: serde_json::Value = serde_json::from_slice(json).ok()?;
    ledger["verified"]["cycle"]["cycle"].as_u64()
}

fn write(disk: &Loop, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(disk.path());
    let written = file.and_then(|file| file.write_all_at(bytes, at).and_then(|()| file.sync_all()));
    written.unwrap_or_else(|e| panic!("{}: {e}", disk.path().display()));
}

/// How long something may run before it is killed: a time below `max`.
pub fn moment(noise: &mut Noise, max: Duration) -> Duration {
    Duration::from_millis(noise.below(max.as_millis() as u64))
}
