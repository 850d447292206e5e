use super::*;
use crate::formats::Layout;
use sluice_platform::system::OsEntropy;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

struct Disks {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Disks {
    /// Ten MiB and a bit: data, a hole, data.
    fn new() -> Self {
        let mut bytes: Vec<u8> = vec![0; (10 << 20) + 512 * 5];
        for (at, byte) in bytes.iter_mut().enumerate().filter(|(at, _)| !(3 << 20..9 << 20).contains(at)) {
            *byte = (at / 700) as u8;
        }
        Self { folder: tempfile::tempdir().expect("a folder"), bytes }
    }

    fn raw(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        let file = File::create(&path).expect("made");
        file.set_len(bytes.len() as u64).expect("sized");
        for (number, chunk) in bytes.chunks(65536).enumerate().filter(|(_, c)| c.iter().any(|b| *b != 0)) {
            file.write_all_at(chunk, number as u64 * 65536).expect("written");
        }
        path
    }

    fn image(&self, format: Format) -> PathBuf {
        let path = self.folder.path().join(format.name());
        let layout =
            Layout::create(format, ByteCount(self.bytes.len() as u64), &OsEntropy::new(), 0).expect("a layout");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).expect("made");
        crate::formats::run_steps(&mut file, layout.steps()).expect("laid out");
        file.write_all_at(&self.bytes, layout.linear_start.expect("a fixed format")).expect("written");
        path
    }
}

async fn compare_files(source: &Path, target: &Path) -> Comparison {
    compare((source, None), (target, None), |_, _| {}).await.expect("compared")
}

#[tokio::test]
async fn equal_disks_in_any_format() {
    let disks = Disks::new();
    let source = disks.raw("source", &disks.bytes);
    for format in [Format::Vhd, Format::Vhdx] {
        let result = compare_files(&source, &disks.image(format)).await;
        assert!(result.equal && result.differing.is_empty(), "{result:?}");
        assert_eq!(result.source_digest, Digest::of(&disks.bytes));
        assert_eq!(result.target_digest, result.source_digest);
        assert_eq!(result.bytes, ByteCount(11 << 20));
    }
}

#[tokio::test]
async fn differing_extents_are_listed_and_joined_over_blocks() {
    let disks = Disks::new();
    let mut other = disks.bytes.clone();
    other[1024..1536].fill(0xee);
    let edge = BLOCK_SECTORS as usize * 512;
    other[edge - 512..edge + 512].fill(0xee);
    *other.last_mut().expect("a byte") ^= 1;
    let result = compare_files(&disks.raw("a", &disks.bytes), &disks.raw("b", &other)).await;
    let last = disks.bytes.len() as u64 / 512 - 1;
    assert_eq!(result.differing, [Extent::new(2, 1), Extent::new(BLOCK_SECTORS - 1, 2), Extent::new(last, 1)]);
    assert_eq!((result.equal, result.differing_extents, result.differing_sectors), (false, 3, SectorCount(4)));
    assert_eq!(result.target_digest, Digest::of(&other));
}

#[tokio::test]
async fn many_differences_are_counted_beyond_the_list() {
    let disks = Disks::new();
    let mut other = disks.bytes.clone();
    for sector in (0..6000).step_by(2) {
        other[sector * 512] ^= 1;
    }
    let result = compare_files(&disks.raw("a", &disks.bytes), &disks.raw("b", &other)).await;
    assert_eq!(result.differing.len(), LISTED_MAX);
    assert_eq!((result.differing_extents, result.differing_sectors), (3000, SectorCount(3000)));
}

#[tokio::test]
async fn a_longer_side_must_be_zeros() {
    let disks = Disks::new();
    let mut longer = disks.bytes.clone();
    longer.resize(12 << 20, 0);
    let (short, zeros) = (disks.raw("short", &disks.bytes), disks.raw("zeros", &longer));
    longer[(12 << 20) - 1] = 1;
    let other = disks.raw("other", &longer);
    assert!(compare_files(&short, &zeros).await.equal);
    assert!(compare_files(&zeros, &short).await.equal);
    let result = compare_files(&short, &other).await;
    assert_eq!(result.differing, [Extent::new((12 << 11) - 1, 1)]);
    assert_eq!(result.source_digest, result.target_digest, "the digests are of what the source has");
    assert!(!compare_files(&other, &short).await.equal);
}

#[tokio::test]
async fn a_size_that_is_no_whole_sector() {
    let disks = Disks::new();
    let odd = &disks.bytes[..(10 << 20) + 700];
    let result = compare_files(&disks.raw("a", odd), &disks.raw("b", odd)).await;
    let mut padded = odd.to_vec();
    padded.resize((10 << 20) + 1024, 0);
    assert!(result.equal);
    assert_eq!(result.source_digest, Digest::of(&padded));
}

#[tokio::test]
async fn what_cannot_be_compared_is_an_error() {
    let disks = Disks::new();
    let source = disks.raw("source", &disks.bytes);
    let missing = disks.folder.path().join("missing");
    let error = compare((&source, None), (&missing, None), |_, _| {}).await.expect_err("missing").to_string();
    assert!(error.contains("missing"), "{error}");
    let error = compare((&source, None), (&source, Some(Format::Vhdx)), |_, _| {}).await.expect_err("no VHDX");
    assert!(error.to_string().contains("source"), "{error}");
}

#[tokio::test]
async fn an_image_that_lost_its_footer_is_not_taken_for_a_raw_disk() {
    let disks = Disks::new();
    let (source, copy) = (disks.raw("source", &disks.bytes), disks.raw("copy.VHD", &disks.bytes));
    let refusal = compare((&source, None), (&copy, None), |_, _| {}).await.expect_err("equal as a raw disk");
    assert!(refusal.to_string().contains("its name says so"), "{refusal}");
    assert!(compare((&source, None), (&copy, Some(Format::Raw)), |_, _| {}).await.expect("compared").equal);
}
