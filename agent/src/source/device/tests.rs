use super::*;
use crate::testing::Dice;
use sluice_test_support::devices::Loop;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An image of bytes that do not repeat, and the bytes.
fn image(folder: &Path, size: usize) -> (PathBuf, Vec<u8>) {
    let mut bytes = vec![0; size];
    Dice::new(size as u64).fill(&mut bytes);
    let path = folder.join("image");
    std::fs::write(&path, &bytes).expect("written");
    (path, bytes)
}

fn source(path: &Path, sector: u32) -> DeviceSource {
    let file = DirectFile::open(path).expect("opens");
    DeviceSource::new(file, "disk under test".into(), sector, Rest::Unknown).expect("a source")
}

fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped, needs root: {what}");
    }
    root
}

/// Reads whole and in pieces; what lies behind the end is zeros.
async fn check(source: &DeviceSource, bytes: &[u8]) {
    let sectors = source.size().sectors_ceil();
    let mut padded = bytes.to_vec();
    padded.resize(sectors.bytes().0 as usize, 0);
    let range = |e: &Extent| e.start.offset() as usize..e.end().offset() as usize;
    let scattered: Vec<Extent> = (0..sectors.0).step_by(5).map(|at| Extent::new(at, 1)).collect();
    let uneven = vec![Extent::new(0, 3), Extent::new(9, 130), Extent::new(sectors.0 - 2, 2)];
    let mut reads = vec![vec![Extent::new(0, sectors.0)], scattered, vec![Extent::new(sectors.0 - 1, 1)]];
    if sectors.0 > 200 {
        reads.push(uneven);
    }
    for extents in reads {
        let buf = AlignedBuf::new(2 << 20);
        let (buf, result) = source.read(&extents, buf).await;
        result.expect("can be read");
        let expected: Vec<u8> = extents.iter().flat_map(|e| padded[range(e)].to_vec()).collect();
        assert!(buf[..] == expected[..], "{} extents of {} bytes", extents.len(), bytes.len());
    }
}

#[tokio::test]
async fn a_file_is_read_to_its_last_byte() {
    let folder = tempfile::tempdir().unwrap();
    for size in [(1 << 20) + 700, 1 << 20, (1 << 20) + 512, 4 << 10, 2000] {
        let (path, bytes) = image(folder.path(), size);
        let source = source(&path, 512);
        assert_eq!((source.size().0, source.current_size().await.unwrap().0), (size as u64, size as u64));
        check(&source, &bytes).await;
    }
}

#[tokio::test]
async fn holes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let file = File::create_new(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&[1; 4096], 32 << 20).unwrap();
    let source = source(&path, 512);
    let data = source.next_data(0).await.unwrap().expect("there is data");
    assert!(data.start <= 32 << 20 && data.end > 32 << 20, "{data:?}");
    assert!(source.next_data(63 << 20).await.unwrap().is_none_or(|data| data.start >= 63 << 20));
    assert!(!source.proven_at_rest());
}

#[tokio::test]
async fn an_empty_source_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = image(folder.path(), 0);
    let file = DirectFile::open(&path).expect("opens");
    let error = DeviceSource::new(file, "nothing".into(), 512, Rest::Unknown).err().expect("refused");
    assert!(error.to_string().contains("nothing: the source is empty"), "{error}");
}

#[tokio::test]
async fn a_file_that_shrank_is_noticed_and_its_sectors_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = image(folder.path(), 1 << 20);
    let source = source(&path, 512);
    File::options().write(true).open(&path).unwrap().set_len(512 << 10).unwrap();
    assert_eq!(source.current_size().await.unwrap().0, 512 << 10);
    let (_, result) = source.read(&[Extent::new(1500, 9)], AlignedBuf::new(8192)).await;
    let error = result.expect_err("there is nothing to read");
    assert_eq!(error.reason, FailReason::SourceRead);
    assert!(error.detail.starts_with("disk under test: sectors 1500..1509 can't be read"), "{error}");
    let (buf, result) = source.read(&[Extent::new(3, 9)], AlignedBuf::new(8192)).await;
    result.expect("what is left can be read");
    assert!(buf[..] == bytes[3 * 512..12 * 512]);
}

#[tokio::test]
async fn loop_devices_of_both_sector_sizes_are_read_to_their_last_sector() {
    if !is_root("a loop device") {
        return;
    }
    for (sector, size) in [(512, (1 << 20) + 3 * 512), (4096, (1 << 20) + 3 * 4096)] {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = image(folder.path(), size);
        let device = Loop::over(&path, sector);
        let source = source(device.path(), sector);
        assert_eq!((source.size().0, source.logical_sector()), (size as u64, sector));
        check(&source, &bytes).await;
        assert_eq!(source.next_data(5).await.unwrap(), Some(5..size as u64), "a device can't tell");
    }
}

#[tokio::test]
async fn a_device_that_vanishes_is_noticed() {
    if !is_root("a loop device") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = image(folder.path(), 2 << 20);
    let device = Loop::over(&path, 512);
    let source = source(device.path(), 512);
    device.resize(1 << 20);
    assert_eq!(source.current_size().await.unwrap().0, 1 << 20, "shrunk");
    let (_, result) = source.read(&[Extent::new(3000, 9)], AlignedBuf::new(8192)).await;
    assert!(result.expect_err("beyond its end").detail.contains("sectors 3000..3009"));
    device.resize(3 << 20);
    assert_eq!(source.current_size().await.unwrap().0, 3 << 20, "grown");
    assert_eq!(source.size().0, 2 << 20, "the size that it was opened with stays");
    device.resize(0);
    assert_eq!(source.current_size().await.map(|size| size.0).unwrap_or(0), 0, "gone");
}
