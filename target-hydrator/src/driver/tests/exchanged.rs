//! Block devices whose names lead elsewhere than before, as after the machine's next start.

use super::*;
use sluice_proto::SectorCount;
use sluice_test_support::devices::Loop;

const DEVICE: u64 = 12 << 20;

/// Two devices and a name that leads to one of them.
struct Pair {
    folder: tempfile::TempDir,
    devices: [Loop; 2],
    source: Source,
    api: Arc<FakeApi>,
    /// Whether the kernel tells which is which.
    told: bool,
    overwrite: bool,
}

impl Pair {
    /// `None` where there are no devices to be had.
    fn new(seed: u64, second: u64, told: bool) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: no loop device to be had, nothing was tested");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let devices = [DEVICE, second].map(|size| {
            let name = format!("disk{}", folder.path().read_dir().map_or(0, Iterator::count));
            Loop::new(folder.path(), &name, size, 512)
        });
        std::fs::write(devices[1].path(), vec![0xaa; second as usize]).expect("written");
        let source = Source::new(SIZE, seed, Arc::new(MemoryStore::new()));
        Some(Self { folder, devices, source, api: Arc::default(), told, overwrite: true })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sdb")
    }

    fn lead_to(&self, device: usize) {
        drop(std::fs::remove_file(self.path()));
        std::os::unix::fs::symlink(self.devices[device].path(), self.path()).expect("a link");
    }

    fn environment(&self) -> Environment {
        let state = Some(self.folder.path().join("state"));
        let place = Place { state, overwrite: self.overwrite, ..place(self.path(), Format::Raw) };
        let mut targets = LocalTargets::one(place, Arc::new(SystemClock), Arc::new(OsEntropy::new()));
        let (told, second) = (self.told, self.devices[1].path().to_path_buf());
        targets.medium_of = Arc::new(move |path: &Path| {
            let is_second = path.canonicalize()? == second;
            let names = if is_second { r#"{"wwid":"naa.2"}"# } else { r#"{"wwid":"naa.1"}"# };
            Ok(serde_json::from_str(if told { names } else { "{}" }).expect("a medium's names"))
        });
        environment(&self.source, Arc::new(targets))
    }

    /// A first copy, verified.
    async fn first(&mut self) -> CycleRef {
        self.lead_to(0);
        let running = Running::start(self.environment(), &self.api);
        let plan = self.source.full();
        let first = self.source.ship(CycleKind::Initial, 1, plan, None).await;
        let last = verified(&self.api, &first).await;
        running.end().await;
        last
    }

    /// Gives this work to a new hydrator, which must refuse the device in these words and leave it as it is.
    async fn refused(&self, work: Work, word: &str) {
        let before = self.api.verdicts().len();
        let environment = self.environment();
        let mut troubles = environment.progress.troubles();
        let running = Running::start(environment, &self.api);
        self.api.give(work);
        let trouble = troubles.wait_for(|disks| !disks.is_empty());
        let trouble =
            tokio::time::timeout(Duration::from_secs(60), trouble).await.expect("refused").expect("it goes on");
        let why = trouble.values().next().map(|trouble| trouble.why.clone()).unwrap_or_default();
        drop(trouble);
        assert!(why.contains(word) && why.contains("/dev/disk/by-id"), "{why}");
        running.end().await;
        assert_eq!(self.api.verdicts().len(), before, "nothing was decided");
        let bytes = std::fs::read(self.devices[1].path()).expect("the other device");
        assert!(bytes.iter().all(|byte| *byte == 0xaa), "the other device was written to");
    }

    fn comparison(&self, last: CycleRef) -> Work {
        let mut work = self.source.work(CycleKind::Resync, 2, SectorCount(0), Some(last));
        work.digests_wanted = true;
        work
    }
}

#[tokio::test]
async fn another_disk_under_the_target_s_name_is_left_alone() {
    let Some(mut pair) = Pair::new(140, DEVICE, true) else { return };
    let last = pair.first().await;
    pair.lead_to(1);
    let plan = pair.source.scribble(&[Extent::new(1, 1)]);
    let delta = pair.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    // Neither a cycle nor a comparison, though all may be overwritten that is not ours.
    pair.refused(delta.work.clone(), "wwid naa.2 now, and the target is wwid naa.1").await;
    pair.refused(pair.comparison(last), "wwid naa.2").await;
    // The right one again: nothing was lost.
    pair.lead_to(0);
    let running = Running::start(pair.environment(), &pair.api);
    verified(&pair.api, &delta).await;
    running.end().await;
    assert_equal(&pair.source, pair.devices[0].path(), Format::Raw).await;
}

#[tokio::test]
async fn another_disk_is_left_alone_where_a_cycle_was_cut_short() {
    let Some(mut pair) = Pair::new(141, DEVICE, true) else { return };
    let last = pair.first().await;
    let plan = pair.source.scribble(&[Extent::new(1, 1)]);
    let delta = pair.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    // As a crash leaves it: a device bears no mark, and without a fingerprint nothing else would tell.
    let state = pair.folder.path().join("state/ledger");
    let mut ledger = crate::ledger::Ledger::decode(&std::fs::read(&state).expect("there")).expect("a ledger");
    ledger.state = crate::ledger::State::Applying { cycle: delta.reference() };
    ledger.fingerprint = None;
    std::fs::write(&state, ledger.encode()).expect("written");
    pair.lead_to(1);
    pair.refused(delta.work, "wwid naa.1").await;
}

#[tokio::test]
async fn what_tells_a_disk_apart_is_noted_when_it_is_first_known() {
    let Some(mut pair) = Pair::new(142, DEVICE, false) else { return };
    let last = pair.first().await;
    pair.told = true;
    let plan = pair.source.scribble(&[Extent::new(1, 1)]);
    let delta = pair.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    let running = Running::start(pair.environment(), &pair.api);
    let last = verified(&pair.api, &delta).await;
    running.end().await;
    pair.lead_to(1);
    let plan = pair.source.scribble(&[Extent::new(1, 1)]);
    let delta = pair.source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    pair.refused(delta.work, "wwid naa.2").await;
}

#[tokio::test]
async fn a_device_of_another_size_is_overwritten_only_where_that_was_said() {
    let Some(mut pair) = Pair::new(143, DEVICE + (1 << 20), false) else { return };
    let last = pair.first().await;
    pair.lead_to(1);
    pair.overwrite = false;
    let comparison = pair.comparison(last);
    pair.refused(comparison.clone(), "overwrite = true").await;
    pair.overwrite = true;
    let running = Running::start(pair.environment(), &pair.api);
    pair.api.give(comparison.clone());
    pair.api.part_of(comparison.disk, comparison.cycle, 0).await;
    running.end().await;
}
