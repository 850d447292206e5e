//! Targets that are no plain new files, or not the hydrator's alone.

use super::*;
use crate::targets::preview;
use sluice_test_support::devices::Loop;

#[tokio::test]
async fn a_disk_in_trouble_does_not_stop_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(MemoryStore::new());
    let (mut good, mut bad) = (Source::new(SIZE, 81, store.clone()), Source::new(SIZE, 82, store));
    bad.hydrator = good.hydrator.clone();
    let precious = folder.path().join("precious.raw");
    std::fs::write(&precious, b"precious").expect("written");
    let path = folder.path().join("good.raw");
    let named = [(bad.disk, place(precious.clone(), Format::Raw)), (good.disk, place(path.clone(), Format::Raw))];
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy::new()));
    let targets = LocalTargets {
        named: named.into(),
        any: None,
        folder: None,
        clock,
        entropy,
        medium_of: crate::targets::asks_the_kernel(),
    };
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&good, Arc::new(targets)), &api);
    let plan = bad.full();
    let trouble = bad.ship(CycleKind::Initial, 1, plan, None).await;
    api.give(trouble.work.clone());
    let plan = good.full();
    let fine = good.ship(CycleKind::Initial, 1, plan, None).await;
    verified(&api, &fine).await;
    let verdict = verdict(&api, &trouble).await;
    let Outcome::Failed { reason, detail, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert_eq!(reason, FailReason::TargetWrite);
    assert!(detail.contains("exists and was not made by Sluice"), "{detail}");
    assert_eq!(std::fs::read(&precious).expect("there"), b"precious");
    running.end().await;
}

#[tokio::test]
async fn two_hydrators_never_share_a_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target.raw");
    let mut source = Source::new(SIZE, 83, Arc::new(MemoryStore::new()));
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let targets = || local(place(path.clone(), Format::Raw));
    let _owner = crate::apply::Session::open(environment(&source, targets()), &first.work).await.expect("the first");
    let error = crate::apply::Session::open(environment(&source, targets()), &first.work).await.err();
    let error = error.expect("refused").to_string();
    assert!(error.contains("another sluice"), "{error}");
}

#[tokio::test]
async fn a_full_file_system_fails_the_cycle_and_loses_nothing() {
    let Some(small) = sluice_test_support::SmallFs::mount(8 << 20) else {
        eprintln!("not root: a small file system can't be mounted, nothing was tested");
        return;
    };
    let path = small.path().join("target.raw");
    let mut source = Source::new(SIZE + (4 << 20), 84, Arc::new(MemoryStore::new()));
    source.bytes.fill(0);
    let api = Arc::new(FakeApi::default());
    let mut place = place(path.clone(), Format::Raw);
    let states = tempfile::tempdir().expect("a folder");
    place.state = Some(states.path().join("state"));
    let running = Running::start(environment(&source, local(place)), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    let fill = |source: &mut Source, sectors| source.scribble(&[Extent::new(0, sectors)]);
    let mut plan = fill(&mut source, 22 << 10);
    let delta = source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    let verdict = verdict(&api, &delta).await;
    let Outcome::Failed { reason, detail, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert_eq!(reason, FailReason::TargetFull, "{detail}");
    // The source shrank in the meantime; the next cycle brings the same sectors and fits.
    source.bytes.fill(0);
    plan.union_with(&fill(&mut source, 100));
    let delta = source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    verified(&api, &delta).await;
    assert_equal(&source, &path, Format::Raw).await;
    running.end().await;
}

#[tokio::test]
async fn another_file_under_the_name_of_the_target_is_noticed_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target.raw");
    let mut source = Source::new(SIZE, 88, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&source, local(place(path.clone(), Format::Raw))), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    // A copy with the same bytes and times, renamed over it: only the inode tells.
    let copied = std::process::Command::new("cp").arg("-p").arg(&path).arg(folder.path().join("copy")).status();
    assert!(copied.expect("cp runs").success());
    let moved = std::process::Command::new("mv").arg(folder.path().join("copy")).arg(&path).status();
    assert!(moved.expect("mv runs").success());
    let plan = source.scribble(&[Extent::new(1, 1)]);
    let delta = source.ship(CycleKind::Delta, 2, plan.clone(), Some(last)).await;
    let before = std::fs::read(&path).expect("there");
    let verdict = verdict(&api, &delta).await;
    assert!(matches!(verdict.outcome, Outcome::Failed { reason: FailReason::TargetChanged, .. }), "{verdict:?}");
    assert_eq!(std::fs::read(&path).expect("there"), before);
    running.end().await;
}

#[tokio::test]
async fn a_block_device_follows_its_source() {
    for sector in [512, 4096] {
        a_device_follows_its_source(sector).await;
    }
}

async fn a_device_follows_its_source(sector: u32) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no loop device to be had, nothing was tested");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let device = Loop::new(folder.path(), "disk", 12 << 20, sector);
    // Something else was on it before.
    std::fs::write(device.path(), vec![0xaa; 12 << 20]).expect("written");
    let states = tempfile::tempdir().expect("a folder");
    let mut source = Source::new(SIZE, 89, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let mut place = place(device.path().to_path_buf(), Format::Raw);
    place.state = Some(states.path().join("state"));
    let error = preview(&place, sluice_proto::ByteCount(SIZE)).expect_err("it is not ours").to_string();
    assert!(error.contains("--yes"), "{error}");
    place.overwrite = true;
    let running = Running::start(environment(&source, local(place.clone())), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    assert_equal(&source, device.path(), Format::Raw).await;
    let plan = source.scribble(&[Extent::new(1, 1), Extent::new(source.sectors().0 - 1, 1)]);
    let delta = source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    verified(&api, &delta).await;
    assert_equal(&source, device.path(), Format::Raw).await;
    running.end().await;
    let too_large =
        preview(&Place { state: Some(states.path().join("none")), ..place }, sluice_proto::ByteCount(13 << 20))
            .expect_err("too small");
    assert!(too_large.to_string().contains("at least as large"), "{too_large}");
}

#[tokio::test]
async fn a_preview_tells_what_would_be_done() {
    use crate::target::plan::Action;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target.raw");
    let place = place(path.clone(), Format::Raw);
    let size = sluice_proto::ByteCount(SIZE);
    assert_eq!(preview(&place, size).expect("new").action, Action::Create);
    assert!(!path.exists() && !crate::targets::state_folder(&path).expect("beside").exists());
    let mut source = Source::new(SIZE, 90, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&source, local(place.clone())), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    verified(&api, &first).await;
    running.end().await;
    assert_eq!(preview(&place, size).expect("ours").action, Action::Open);
    let error = preview(&place, sluice_proto::ByteCount(SIZE - 512)).expect_err("it shrank").to_string();
    assert!(error.contains("name a new target"), "{error}");
    assert_eq!(preview(&place, sluice_proto::ByteCount(SIZE + 512)).expect("it grew").action, Action::Open);
    std::fs::remove_file(&path).expect("removed");
    assert!(preview(&place, size).expect_err("gone").to_string().contains("is gone"));
    std::fs::write(folder.path().join("target.raw.sluice/ledger"), b"SLUICLED\x09\0").expect("written");
    assert!(preview(&place, size).expect_err("damaged").to_string().contains("ledger"));
}

#[tokio::test]
async fn a_disk_that_is_renamed_keeps_its_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let targets = |format| {
        let place = place(PathBuf::new(), Format::Raw);
        let local = LocalTargets::one(place, Arc::new(SystemClock), Arc::new(OsEntropy::new()));
        Arc::new(LocalTargets { any: None, folder: Some((folder.path().to_path_buf(), format)), ..local })
    };
    let names = || {
        let mut names: Vec<_> =
            folder.path().read_dir().expect("there").map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let mut source = Source::new(SIZE, 92, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&source, targets(Format::Vhd)), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    running.end().await;
    let before = names();
    // Under another name, and where new targets are made in another format.
    let plan = source.scribble(&[Extent::new(1, 1)]);
    let mut delta = source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    delta.work.name = "renamed".to_owned();
    let running = Running::start(environment(&source, targets(Format::Vhdx)), &api);
    let last = verified(&api, &delta).await;
    running.end().await;
    assert_eq!(names(), before);
    let path = folder.path().join(format!("host-sda-{}.vhd", source.disk));
    assert_equal(&source, &path, Format::Vhd).await;
    // What an earlier version made beside it under the new name has no newer ledger.
    let stale = folder.path().join(format!("renamed-{}.vhd", source.disk));
    std::fs::write(&stale, b"older").expect("written");
    let plan = source.scribble(&[Extent::new(2, 1)]);
    let mut delta = source.ship(CycleKind::Delta, 3, plan, Some(last)).await;
    delta.work.name = "renamed".to_owned();
    let running = Running::start(environment(&source, targets(Format::Vhd)), &api);
    verified(&api, &delta).await;
    running.end().await;
    assert_equal(&source, &path, Format::Vhd).await;
    // An image that is gone is not made anew under the new name.
    std::fs::remove_file(&stale).and_then(|()| std::fs::remove_file(&path)).expect("removed");
    let plan = source.scribble(&[Extent::new(3, 1)]);
    let mut delta = source.ship(CycleKind::Delta, 4, plan, Some(delta.reference())).await;
    delta.work.name = "renamed again".to_owned();
    let running = Running::start(environment(&source, targets(Format::Vhd)), &api);
    let verdict = verdict(&api, &delta).await;
    let Outcome::Failed { detail, .. } = verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert!(detail.contains("is gone") && detail.contains("host-sda"), "{detail}");
    running.end().await;
}
