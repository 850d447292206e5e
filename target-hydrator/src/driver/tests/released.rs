//! Block devices once they were cut over, and between two runs of the hydrator.

use super::*;
use sluice_test_support::devices::Loop;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// A device with a first copy on it, and its hydrator.
struct Held {
    folder: tempfile::TempDir,
    device: Loop,
    source: Source,
    api: Arc<FakeApi>,
    last: CycleRef,
}

impl Held {
    fn environment(&self) -> Environment {
        let place = Place {
            state: Some(self.folder.path().join("state")),
            overwrite: true,
            ..place(self.device.path().to_path_buf(), Format::Raw)
        };
        Environment { compute: Compute::Inline, ..environment(&self.source, local(place)) }
    }

    async fn new(seed: u64) -> Option<(Self, Running)> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: no loop device to be had, nothing was tested");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let device = Loop::new(folder.path(), "disk", 12 << 20, 512);
        let mut source = Source::new(SIZE, seed, Arc::new(MemoryStore::new()));
        let plan = source.full();
        let first = source.ship(CycleKind::Initial, 1, plan, None).await;
        let held = Self { folder, device, source, api: Arc::default(), last: first.reference() };
        let running = Running::start(held.environment(), &held.api);
        verified(&held.api, &first).await;
        Some((held, running))
    }

    /// As mount(2), LVM and md open it.
    fn open(&self) -> std::io::Result<std::fs::File> {
        std::fs::File::options().write(true).custom_flags(nix::libc::O_EXCL).open(self.device.path())
    }

    async fn released(&self) -> std::fs::File {
        for _ in 0..3600 {
            match self.open() {
                Ok(file) => return file,
                Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::EBUSY)),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it is held for ever");
    }

    async fn delta(&mut self, cycle: u64) -> Shipped {
        let plan = self.source.scribble(&[Extent::new(cycle, 3)]);
        self.source.ship(CycleKind::Delta, cycle, plan, Some(self.last)).await
    }
}

#[tokio::test]
async fn a_device_that_was_cut_over_is_let_go_at_once() {
    let Some((mut held, running)) = Held::new(150).await else { return };
    held.open().expect_err("it is held between cycles");
    let end = held.source.ship(CycleKind::Final, 2, sluice_proto::SectorBitmap::new(), Some(held.last)).await;
    verified(&held.api, &end).await;
    let file = tokio::time::timeout(Duration::from_secs(60), held.released()).await.expect("let go");
    // Whoever boots from it writes to it.
    file.write_all_at(b"booted", 4096).expect("written");
    drop(file);
    // An appliance that was put back knows nothing of that.
    held.last = end.reference();
    let delta = held.delta(3).await;
    let verdict = verdict(&held.api, &delta).await;
    assert!(matches!(verdict.outcome, Outcome::Failed { reason: FailReason::TargetChanged, .. }), "{verdict:?}");
    running.end().await;
}

#[tokio::test]
async fn what_is_written_to_a_device_between_two_runs_is_noticed() {
    let Some((mut held, running)) = Held::new(152).await else { return };
    running.end().await;
    // Nobody has written to it.
    let running = Running::start(held.environment(), &held.api);
    let delta = held.delta(2).await;
    held.last = verified(&held.api, &delta).await;
    running.end().await;
    let file = held.open().expect("nobody holds it");
    file.write_all_at(b"not yours", 1 << 20).and_then(|()| file.sync_all()).expect("written");
    drop(file);
    let running = Running::start(held.environment(), &held.api);
    let delta = held.delta(3).await;
    let verdict = verdict(&held.api, &delta).await;
    let Outcome::Failed { reason, detail, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert_eq!(reason, FailReason::TargetChanged);
    assert!(detail.contains("somebody changed the target"), "{detail}");
    running.end().await;
}
