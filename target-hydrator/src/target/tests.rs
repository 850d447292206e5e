//! Real targets on real files.

use super::plan::{Action, TargetPlan, TargetSpec, plan};
use super::*;
use crate::formats::Format;
use sluice_platform::system::{OsEntropy, SystemClock};
use sluice_proto::ByteCount;
use std::path::Path;
use std::sync::Arc;

/// Not a whole MiB, and not a whole number of sectors.
const SIZE: u64 = (5 << 20) + 3 * 512 + 100;

fn spec(path: &Path, format: Format) -> TargetSpec {
    TargetSpec { path: path.to_path_buf(), format, size: ByteCount(SIZE), source: None, overwrite: false }
}

async fn carry_out(plan: &TargetPlan) -> Arc<dyn Target> {
    plan.carry_out(&SystemClock, Arc::new(OsEntropy::new())).await.expect("a target")
}

async fn read(target: &dyn Target, extent: Extent) -> Vec<u8> {
    target.read(extent, AlignedBuf::new(extent.bytes().0 as usize)).await.expect("read").to_vec()
}

/// Writes, zeroes, flushes and opens again, beside a plain array that does the same.
async fn behaves_like_a_disk(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    let created = plan(spec(&path, format), false, false).expect("allowed");
    assert_eq!(created.action, Action::Create);
    let mut target = carry_out(&created).await;
    let sectors = ByteCount(SIZE).sectors_ceil().0;
    assert!(target.sectors().0 >= sectors);
    let mut model = vec![0u8; (target.sectors().0 * 512) as usize];
    let mut random = 12345u64;
    for round in 0..200u64 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let start = (random >> 20) % (sectors - 1);
        let len = ((random >> 5) % 300 + 1).min(sectors - start);
        let extent = Extent::new(start, len);
        let range = extent.start.offset() as usize..extent.end().offset() as usize;
        if round % 3 == 0 {
            target.zero(extent).await.expect("zeroed");
            model[range].fill(0);
        } else {
            let bytes: Vec<u8> = (0..extent.bytes().0).map(|n| (n + round) as u8).collect();
            target.write(extent.start, AlignedBuf::from_slice(&bytes)).await.expect("written");
            model[range].copy_from_slice(&bytes);
        }
        // What a raw image's partial last sector can't hold is not there.
        let behind = if format == Format::Raw { SIZE as usize } else { model.len() };
        model[behind..].fill(0);
        if round % 40 == 0 {
            target.sync().await.expect("flushed");
            drop(target);
            target = carry_out(&plan(spec(&path, format), true, false).expect("ours")).await;
        }
    }
    target.sync().await.expect("flushed");
    let whole = Extent::new(0, target.sectors().0);
    assert_eq!(read(&*target, whole).await, model);
    // Every sector that holds something is where the target says there is data.
    let mut covered = vec![false; whole.len.0 as usize];
    let mut at = Sector(0);
    while let Some(data) = target.next_data(at).await.expect("asked") {
        assert!(data.start >= at && !data.is_empty());
        covered[data.start.0 as usize..data.end().0 as usize].fill(true);
        at = data.end();
    }
    for (number, sector) in model.chunks(512).enumerate() {
        assert!(covered[number] || sector.iter().all(|b| *b == 0), "sector {number}");
    }
    let noted = target.fingerprint().await.expect("asked");
    assert_eq!(target.fingerprint().await.expect("asked"), noted);
    target.write(Sector(0), AlignedBuf::from_slice(&[1; 512])).await.expect("written");
    target.sync().await.expect("flushed");
    assert_ne!(target.fingerprint().await.expect("asked"), noted);
    let beyond = Extent::new(target.sectors().0, 1);
    assert_eq!(target.zero(beyond).await.expect_err("refused").kind(), TargetErrorKind::TooSmall);
}

#[tokio::test]
async fn raw_behaves_like_a_disk() {
    behaves_like_a_disk(Format::Raw).await;
}

#[tokio::test]
async fn fixed_vhd_behaves_like_a_disk() {
    behaves_like_a_disk(Format::Vhd).await;
}

#[tokio::test]
async fn dynamic_vhd_behaves_like_a_disk() {
    behaves_like_a_disk(Format::VhdDynamic).await;
}

#[tokio::test]
async fn fixed_vhdx_behaves_like_a_disk() {
    behaves_like_a_disk(Format::Vhdx).await;
}

#[tokio::test]
async fn dynamic_vhdx_behaves_like_a_disk() {
    behaves_like_a_disk(Format::VhdxDynamic).await;
}

#[tokio::test]
async fn without_direct_io_what_is_read_after_a_flush_is_what_the_medium_has() {
    use std::os::unix::fs::FileExt;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no loop device to be had, nothing was tested");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let device = sluice_test_support::devices::Loop::new(folder.path(), "disk", 1 << 20, 512);
    let options = sluice_platform::OpenOptions::new().write(true).exclusive(true).direct(false);
    let file = options.open(device.path()).expect("opens");
    let target = LinearTarget::new(file, 0, ByteCount(1 << 20), Vec::new());
    target.write(Sector(0), AlignedBuf::from_slice(&[1; 8192])).await.expect("written");
    target.sync().await.expect("flushed");
    // The medium loses a page, and the page cache of the device would not know.
    let backing = std::fs::File::options().write(true).open(device.backing()).expect("opens");
    backing.write_all_at(&[0; 4096], 4096).and_then(|()| backing.sync_all()).expect("written");
    assert_eq!(read(&target, Extent::new(0, 16)).await, [[1; 4096], [0; 4096]].concat());
}

/// A disk that loses what was written of an image's tables, and says nothing.
#[tokio::test]
async fn tables_that_are_not_on_the_medium_fail_the_flush() {
    use std::os::unix::fs::FileExt;
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        let mut target = carry_out(&plan(spec(&path, format), false, false).expect("allowed")).await;
        if format == Format::VhdxDynamic {
            target.write(Sector(8), AlignedBuf::from_slice(&[6; 512])).await.expect("written");
            target.sync().await.expect("flushed");
            drop(target);
            target = carry_out(&plan(spec(&path, format), true, false).expect("ours")).await;
        }
        target.write(Sector(8), AlignedBuf::from_slice(&[7; 512])).await.expect("written");
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("opens");
        // The footer of a dynamic VHD behind its first block, and the header of a VHDX that says that it is written.
        let at = match format {
            Format::VhdDynamic => file.metadata().expect("there").len() - 512,
            _ => newest_header(&path).0,
        };
        file.write_all_at(&[0; 512], at).and_then(|()| file.sync_all()).expect("written");
        let error = target.sync().await.expect_err("it is noticed");
        assert_eq!(error.kind(), TargetErrorKind::Mismatch, "{format}: {error}");
        assert_eq!(error.reason(), sluice_proto::cycle::FailReason::DigestMismatch);
        assert!(error.to_string().contains(&format!("(byte {at})")), "{format}: {error}");
        // Nothing is gone on with until the image was opened again.
        let again = target.write(Sector(8), AlignedBuf::from_slice(&[7; 512])).await.expect_err("refused");
        assert_eq!(again.kind(), TargetErrorKind::Mismatch);
        target.sync().await.expect_err("it is opened again");
        target.write(Sector(8), AlignedBuf::from_slice(&[8; 512])).await.expect("written");
        target.sync().await.expect("flushed");
        drop(target);
        let target = carry_out(&plan(spec(&path, format), true, false).expect("ours")).await;
        assert_eq!(read(&*target, Extent::new(8, 1)).await, [8; 512]);
    }
}

#[tokio::test]
async fn what_is_read_back_of_tables_is_what_was_written_last() {
    use super::unproven::Unproven;
    use crate::formats::Step;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let disk = sluice_platform::DirectFile::open_rw(file.path()).expect("opens");
    let mut unproven = Unproven::default();
    let steps = vec![
        Step::SetLen(1 << 20),
        Step::Write(8192, vec![1; 4096]),
        Step::Write(9216, vec![2; 512]),
        Step::Write(100 * 512, vec![3; 1024]),
        Step::SetLen(101 * 512),
        Step::Sync,
    ];
    super::dynamic::run(&disk, unproven.note(steps)).await.expect("done");
    unproven.prove(&disk).await.expect("it is there");
    let mut unproven = Unproven::default();
    unproven.note(vec![Step::Write(9216, vec![1; 512])]);
    assert_eq!(unproven.prove(&disk).await.expect_err("it is not").kind(), TargetErrorKind::Mismatch);
}

/// Where a VHDX's header in force lies, and its ids of its file's and its data's last writer (MS-VHDX 2.2.2).
fn newest_header(path: &Path) -> (u64, [u128; 2]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path).expect("there");
    let headers = [64 << 10, 128 << 10].map(|at| {
        let mut header = [0; 48];
        file.read_exact_at(&mut header, at).expect("a header");
        let number = |at: usize| u128::from_le_bytes(*header[at..].first_chunk().expect("sixteen bytes"));
        (number(8) as u64, at, [number(16), number(32)])
    });
    let (_, at, ids) = headers.into_iter().max().expect("two");
    (at, ids)
}

#[tokio::test]
async fn a_vhdx_says_once_an_opening_that_it_is_written() {
    for format in [Format::Vhdx, Format::VhdxDynamic] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        drop(carry_out(&plan(spec(&path, format), false, false).expect("allowed")).await);
        let opened = async || carry_out(&plan(spec(&path, format), true, false).expect("ours")).await;
        for round in 0..2 {
            let before = newest_header(&path).1;
            let target = opened().await;
            read(&*target, Extent::new(0, 8)).await;
            target.sync().await.expect("flushed");
            assert_eq!(newest_header(&path).1, before, "{format}: it was only read");
            match round {
                0 => target.write(Sector(8), AlignedBuf::from_slice(&[7; 512])).await.expect("written"),
                _ => target.zero(Extent::new(8, 1)).await.expect("zeroed"),
            }
            let after = newest_header(&path).1;
            assert!(after[0] != before[0] && after[1] != before[1], "{format}: {before:x?} {after:x?}");
            target.write_parts(&[Extent::new(9, 1)], AlignedBuf::from_slice(&[8; 512])).await.expect("written");
            target.sync().await.expect("flushed");
            assert_eq!(newest_header(&path).1, after, "{format}: once");
            drop(target);
            assert_eq!(read(&*opened().await, Extent::new(9, 1)).await, [8; 512]);
        }
    }
}

#[tokio::test]
async fn a_target_bears_the_mark_of_its_last_writer() {
    // Not where folders are made otherwise: that may be a tmpfs, which keeps attributes since Linux 6.6.
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    for format in [Format::Raw, Format::VhdxDynamic] {
        let path = folder.path().join(format.name());
        let mut target = carry_out(&plan(spec(&path, format), false, false).expect("allowed")).await;
        assert_eq!(target.marked_by().await.expect("asked"), Some(WriterMark::NOBODY));
        for mark in [WriterMark(7), WriterMark(u64::MAX)] {
            let before = target.fingerprint().await.expect("asked");
            assert!(target.mark(mark).await.expect("marked"));
            assert_ne!(target.fingerprint().await.expect("asked"), before);
            drop(target);
            target = carry_out(&plan(spec(&path, format), true, false).expect("ours")).await;
            assert_eq!(target.marked_by().await.expect("asked"), Some(mark));
        }
        for foreign in ["7", "no mark", &"f".repeat(99)] {
            let none = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, WRITER_ATTRIBUTE, foreign.as_bytes(), none).expect("set");
            assert_eq!(target.marked_by().await.expect("asked"), Some(WriterMark::NOBODY), "{foreign}");
        }
        assert!(target.mark(WriterMark(7)).await.expect("marked"));
        drop(target);
        let anew = plan(TargetSpec { overwrite: true, ..spec(&path, format) }, false, false).expect("allowed");
        let mark = carry_out(&anew).await.marked_by().await.expect("asked");
        assert_eq!(mark, Some(WriterMark::NOBODY), "whoever wrote before it was made anew");
    }
}

/// The write of a new block is given up in the middle, as when another lane's write meets a full disk.
async fn a_write_given_up_leaves_a_target_that_opens(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    let target = carry_out(&plan(spec(&path, format), false, false).expect("allowed")).await;
    tokio::select! {
        biased;
        _ = target.write(Sector(8), AlignedBuf::from_slice(&[7; 4096])) => panic!("it had to wait for the disk"),
        () = std::future::ready(()) => {}
    }
    let refused = target.write(Sector(8), AlignedBuf::from_slice(&[7; 4096])).await;
    assert_eq!(refused.expect_err("the table in memory is ahead of the file").kind(), TargetErrorKind::Io);
    target.sync().await.expect_err("what was written before may be lost");
    let part = Extent::new(0, 32);
    assert_eq!(read(&*target, part).await, [0; 32 * 512], "as if it had never been begun");
    drop(target);

    let target = carry_out(&plan(spec(&path, format), true, false).expect("it opens")).await;
    assert_eq!(read(&*target, part).await, [0; 32 * 512]);
    target.write(Sector(8), AlignedBuf::from_slice(&[9; 4096])).await.expect("written");
    target.sync().await.expect("flushed");
    assert_eq!(read(&*target, Extent::new(8, 8)).await, [9; 4096]);
}

#[tokio::test]
async fn a_write_given_up_leaves_a_dynamic_vhd_that_opens() {
    a_write_given_up_leaves_a_target_that_opens(Format::VhdDynamic).await;
}

#[tokio::test]
async fn a_write_given_up_leaves_a_dynamic_vhdx_that_opens() {
    a_write_given_up_leaves_a_target_that_opens(Format::VhdxDynamic).await;
}

#[tokio::test]
async fn a_target_that_is_not_ours_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("precious.raw");
    std::fs::write(&path, b"precious").expect("written");
    let error = plan(spec(&path, Format::Raw), false, false).expect_err("refused");
    assert_eq!(error.kind(), TargetErrorKind::Exists);
    assert!(error.to_string().contains("--yes"), "{error}");
    assert_eq!(std::fs::read(&path).expect("there"), b"precious");
    let forced = plan(TargetSpec { overwrite: true, ..spec(&path, Format::Raw) }, false, false).expect("allowed");
    assert_eq!(forced.action, Action::Overwrite);
    assert_eq!(std::fs::read(&path).expect("there"), b"precious", "a plan changes nothing");
    let target = carry_out(&forced).await;
    let whole = Extent::new(0, target.sectors().0);
    assert!(read(&*target, whole).await.iter().all(|b| *b == 0));
}

#[tokio::test]
async fn a_target_that_is_gone_or_of_another_kind_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.vhd");
    let error = plan(spec(&path, Format::Vhd), true, false).expect_err("gone");
    assert_eq!(error.kind(), TargetErrorKind::NotOurs);
    std::fs::write(&path, vec![1; 2 << 20]).expect("written");
    let opened = plan(spec(&path, Format::Vhd), true, false).expect("there");
    let error = opened.carry_out(&SystemClock, Arc::new(OsEntropy::new())).await.err().expect("no VHD");
    assert_eq!(error.kind(), TargetErrorKind::NotOurs, "{error}");
    let small = TargetSpec { size: ByteCount(1 << 20), ..spec(&folder.path().join("small"), Format::Vhdx) };
    drop(carry_out(&plan(small.clone(), false, false).expect("new")).await);
    let grown = plan(TargetSpec { size: ByteCount(2 << 20), ..small }, true, false).expect("there");
    let error = grown.carry_out(&SystemClock, Arc::new(OsEntropy::new())).await.err().expect("too small");
    assert_eq!(error.kind(), TargetErrorKind::SizeChanged, "{error}");
}

#[tokio::test]
async fn a_target_on_the_source_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.raw");
    std::fs::write(&source, vec![0; 1 << 20]).expect("written");
    let same = TargetSpec { source: Some(source.clone()), overwrite: true, ..spec(&source, Format::Raw) };
    let error = plan(same, false, false).expect_err("refused");
    assert_eq!(error.kind(), TargetErrorKind::OnSource, "{error}");
    let beside = TargetSpec { source: Some(source), ..spec(&folder.path().join("target.raw"), Format::Raw) };
    plan(beside, false, false).expect("another file beside it is another disk");
}

#[test]
fn a_vhd_has_its_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let big = TargetSpec { size: ByteCount(2041 << 30), ..spec(&folder.path().join("big.vhd"), Format::Vhd) };
    let plan = plan(big, false, false).expect("room is no more than a warning");
    assert!(plan.warnings.iter().all(|w| w.contains("MiB free")), "{:?}", plan.warnings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(plan.carry_out(&SystemClock, Arc::new(OsEntropy::new()))).err().expect("refused");
    assert!(error.to_string().contains("2040 GiB") && error.to_string().contains("vhdx"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing is left behind");
}
