//! Real targets whose source grows.

use super::*;
use crate::targets::preview;
use sluice_proto::keys::DataKey;
use sluice_proto::{ByteCount, Generation, SectorCount};
use sluice_test_support::devices::Loop;
use std::os::unix::fs::FileExt;

/// The sizes that a source takes after [`SIZE`], the first within its last sector, none of them a whole number of MiB or of
/// sectors.
const SIZES: [u64; 3] = [SIZE + 100, SIZE + (2 << 20) + 77, SIZE + (300 << 20)];

/// The source grows; something in its old range and something at its end is written.
fn grow(source: &mut Source, size: u64, generation: u64) -> sluice_proto::SectorBitmap {
    let was = source.sectors().0;
    source.bytes.resize(size as usize, 0);
    source.generation = Generation(generation);
    source.key = DataKey::new([generation as u8; 32]);
    let end = source.sectors().0;
    source.scribble(&[
        Extent::new(30 + generation, 9),
        Extent::new(was - 3, 8.min(end - was + 3)),
        Extent::new(end - 1, 1),
    ])
}

/// The comparison, then the cycle that it gave, to its verdict.
async fn compared(
    api: &FakeApi,
    source: &mut Source,
    cycle: u64,
    plan: sluice_proto::SectorBitmap,
    last: CycleRef,
) -> (Shipped, VerdictRequest) {
    let mut work = source.work(CycleKind::Resync, cycle, SectorCount(0), Some(last));
    work.digests_wanted = true;
    api.give(work.clone());
    api.part_of(work.disk, work.cycle, 0).await;
    let shipped = source.ship(CycleKind::Resync, cycle, plan, Some(last)).await;
    let verdict = verdict(api, &shipped).await;
    (shipped, verdict)
}

async fn a_target_grows_with_its_source(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target");
    let mut source = Source::new(SIZE, 120 + format as u64, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let targets = || local(place(path.clone(), format));
    let mut running = Running::start(environment(&source, targets()), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let mut last = verified(&api, &first).await;
    for (number, size) in (1..).zip(SIZES) {
        let plan = grow(&mut source, size, number + 1);
        let (shipped, verdict) = compared(&api, &mut source, number * 10, plan, last).await;
        assert!(matches!(verdict.outcome, Outcome::Verified { .. }), "{verdict:?}");
        assert_equal(&source, &path, format).await;
        let plan = source.scribble(&[Extent::new(1, 1), Extent::new(source.sectors().0 - 2, 2)]);
        let delta = source.ship(CycleKind::Delta, number * 10 + 1, plan, Some(shipped.reference())).await;
        last = verified(&api, &delta).await;
        running.end().await;
        running = Running::start(environment(&source, targets()), &api);
    }
    let end = source.ship(CycleKind::Final, 50, sluice_proto::SectorBitmap::new(), Some(last)).await;
    let Outcome::Verified { whole_disk, .. } = verdict(&api, &end).await.outcome else { panic!("not verified") };
    assert_eq!(whole_disk, Some(Digest::of(&source.padded())));
    assert_equal(&source, &path, format).await;
    running.end().await;
}

/// The hydrator's state is that of before the target grew for the first time, when its source grows again.
async fn a_clone_goes_on_with_what_another_has_grown(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target");
    let (state, kept) = (folder.path().join("state"), folder.path().join("kept"));
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).expect("made");
        for entry in std::fs::read_dir(from).expect("listed").flatten() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    };
    let mut source = Source::new(SIZE, 130 + format as u64, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let targets = || local(Place { state: Some(state.clone()), ..place(path.clone(), format) });
    let running = Running::start(environment(&source, targets()), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    running.end().await;
    copy(&state, &kept);
    let running = Running::start(environment(&source, targets()), &api);
    let plan = grow(&mut source, SIZES[1], 2);
    let (shipped, verdict) = compared(&api, &mut source, 2, plan, last).await;
    assert!(matches!(verdict.outcome, Outcome::Verified { .. }), "{verdict:?}");
    running.end().await;
    copy(&kept, &state);
    let running = Running::start(environment(&source, targets()), &api);
    let plan = grow(&mut source, SIZES[2], 3);
    let (_, verdict) = compared(&api, &mut source, 3, plan, shipped.reference()).await;
    assert!(matches!(verdict.outcome, Outcome::Verified { .. }), "{verdict:?}");
    running.end().await;
    assert_equal(&source, &path, format).await;
}

#[tokio::test]
async fn what_another_has_grown_is_grown_from_where_it_is() {
    for format in [Format::Raw, Format::Vhd, Format::VhdDynamic, Format::Vhdx, Format::VhdxDynamic] {
        a_clone_goes_on_with_what_another_has_grown(format).await;
    }
}

#[tokio::test]
async fn a_raw_image_grows_with_its_source() {
    a_target_grows_with_its_source(Format::Raw).await;
}

#[tokio::test]
async fn a_fixed_vhd_grows_with_its_source() {
    a_target_grows_with_its_source(Format::Vhd).await;
}

#[tokio::test]
async fn a_dynamic_vhd_grows_with_its_source() {
    a_target_grows_with_its_source(Format::VhdDynamic).await;
}

#[tokio::test]
async fn a_fixed_vhdx_grows_with_its_source() {
    a_target_grows_with_its_source(Format::Vhdx).await;
}

#[tokio::test]
async fn a_dynamic_vhdx_grows_with_its_source() {
    a_target_grows_with_its_source(Format::VhdxDynamic).await;
}

#[tokio::test]
async fn a_target_that_was_not_made_yet_is_made_in_the_size_to_which_its_source_has_grown() {
    let folder = tempfile::tempdir().expect("a folder");
    let away = folder.path().join("away");
    let place = Place { state: Some(folder.path().join("state")), ..place(away.join("target"), Format::Raw) };
    let mut source = Source::new(SIZE, 127, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&source, local(place.clone())), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let refused = verdict(&api, &first).await;
    assert!(matches!(refused.outcome, Outcome::Failed { .. }), "there is no folder to make it in: {refused:?}");
    running.end().await;

    std::fs::create_dir(&away).expect("made");
    grow(&mut source, SIZES[1], 2);
    let mut work = source.work(CycleKind::Resync, 2, SectorCount(0), None);
    work.digests_wanted = true;
    let mut session =
        crate::apply::Session::open(environment(&source, local(place.clone())), &work).await.expect("opens");
    let alone = Arc::new(FakeApi::default());
    session.digests(&work, &Claim::of(&alone, &work)).await.expect("it is made for that");
    drop(session);
    let running = Running::start(environment(&source, local(place.clone())), &api);
    let plan = source.full();
    let shipped = source.ship(CycleKind::Resync, 2, plan, None).await;
    verified(&api, &shipped).await;
    running.end().await;
    assert_equal(&source, &place.path, Format::Raw).await;
}

#[tokio::test]
async fn a_block_device_must_be_enlarged_before_its_source_fits() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no loop device to be had, nothing was tested");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let device = Loop::new(folder.path(), "disk", 12 << 20, 512);
    let states = tempfile::tempdir().expect("a folder");
    let place = Place {
        state: Some(states.path().join("state")),
        overwrite: true,
        ..place(device.path().to_path_buf(), Format::Raw)
    };
    let mut source = Source::new(SIZE, 126, Arc::new(MemoryStore::new()));
    let api = Arc::new(FakeApi::default());
    let running = Running::start(environment(&source, local(place.clone())), &api);
    let plan = source.full();
    let first = source.ship(CycleKind::Initial, 1, plan, None).await;
    let last = verified(&api, &first).await;
    let size = 13 << 20;
    let error = preview(&place, ByteCount(size)).expect_err("too small").to_string();
    assert!(error.contains("enlarge") && error.contains(&size.to_string()), "{error}");

    let plan = grow(&mut source, size, 2);
    let mut work = source.work(CycleKind::Resync, 2, SectorCount(0), Some(last));
    work.digests_wanted = true;
    running.end().await;
    let mut session =
        crate::apply::Session::open(environment(&source, local(place.clone())), &work).await.expect("opens");
    let refused = session.digests(&work, &Claim::of(&api, &work)).await.expect_err("too small");
    assert!(format!("{refused:?}").contains("enlarge"), "before anything is read or sent: {refused:?}");

    // It comes with something on it, behind the source's new end too: that is compared, but for what lies behind the end.
    let mut plan = plan;
    plan.set(Extent::new((12 << 20) / 512, (1 << 20) / 512));
    device.resize(14 << 20);
    std::fs::File::options()
        .write(true)
        .open(device.path())
        .and_then(|file| file.write_all_at(&[0xaa; 2 << 20], 12 << 20).and_then(|()| file.sync_all()))
        .expect("written");
    // It is still open as it was.
    session.digests(&work, &Claim::of(&api, &work)).await.expect("it is large enough now");
    drop(session);
    let part = api.part_of(work.disk, work.cycle, 0).await;
    let (_, digests) = open_part(&part, &source.key, 0, source.sectors()).expect("a part");
    assert_eq!(digests[(12 << 20) / GRAIN_BYTES as usize], grain_digest(&[0xaa; GRAIN_BYTES as usize]));
    let running = Running::start(environment(&source, local(place)), &api);
    let shipped = source.ship(CycleKind::Resync, 2, plan, Some(last)).await;
    verified(&api, &shipped).await;
    running.end().await;
    assert_equal(&source, device.path(), Format::Raw).await;
}
