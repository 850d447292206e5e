//! The bitmap against a naive set of sectors, on a small universe laid over the edges of containers, shards and the disk.

use super::*;
use crate::DISK_SECTORS_MAX;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The shard size that the tests lay their universes around.
const SHARD: u64 = 1 << SHARD_BITS;
/// Sectors in a universe. Two of the codec's chunks fit, so that a run can be longer than one.
const UNIVERSE: u64 = 140_000;
const BIG_DISK: SectorCount = SectorCount(DISK_SECTORS_MAX);

/// Where universes begin: the start of the disk, across an edge of containers, of shards, and the end of the largest disk.
fn bases() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(65_536 - 700),
        Just(SHARD - 70_000),
        Just(1 << 31),
        Just((1 << 32) - 50_000),
        Just(DISK_SECTORS_MAX - UNIVERSE),
    ]
}

/// An extent within a universe: mostly short and near an edge of a chunk, now and then long.
fn extents() -> impl Strategy<Value = (u64, u64)> {
    let start = prop_oneof![0..2000_u64, 65_000..66_200_u64, 69_500..70_500_u64, 0..UNIVERSE];
    let len = prop_oneof![5 => 0..20_u64, 2 => 0..600_u64, 1 => 0..UNIVERSE];
    (start, len).prop_map(|(start, len)| (start, len.min(UNIVERSE - start)))
}

#[derive(Debug, Clone)]
enum Edit {
    Set(u64, u64),
    Clear(u64, u64),
    /// Every `step`-th sector of a stretch: what fills containers with runs.
    Comb(u64, u64, u64),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => extents().prop_map(|(s, l)| Edit::Set(s, l)),
        3 => extents().prop_map(|(s, l)| Edit::Clear(s, l)),
        1 => (0..60_000_u64, 0..30_000_u64, 2..9_u64).prop_map(|(s, l, step)| Edit::Comb(s, l, step)),
    ];
    proptest::collection::vec(edit, 0..12)
}

/// The oracle: sectors, one by one.
type Naive = BTreeSet<u64>;

fn build(base: u64, edits: &[Edit]) -> (SectorBitmap, Naive) {
    let (mut bitmap, mut naive) = (SectorBitmap::new(), Naive::new());
    for edit in edits {
        match *edit {
            Edit::Set(start, len) => {
                bitmap.set(Extent::new(base + start, len));
                naive.extend(base + start..base + start + len);
            }
            Edit::Clear(start, len) => {
                bitmap.clear(Extent::new(base + start, len));
                let kept = naive.split_off(&(base + start + len));
                naive.split_off(&(base + start));
                naive.extend(kept);
            }
            Edit::Comb(start, len, step) => {
                for sector in (base + start..base + start + len).step_by(step as usize) {
                    bitmap.set(Extent::new(sector, 1));
                    naive.insert(sector);
                }
            }
        }
    }
    (bitmap, naive)
}

fn naive_runs(naive: &Naive) -> Vec<Extent> {
    let mut runs: Vec<Extent> = Vec::new();
    for sector in naive {
        match runs.last_mut() {
            Some(run) if run.end().0 == *sector => run.len.0 += 1,
            _ => runs.push(Extent::new(*sector, 1)),
        }
    }
    runs
}

fn assert_same(bitmap: &SectorBitmap, naive: &Naive) {
    assert_eq!(bitmap.runs().collect::<Vec<_>>(), naive_runs(naive));
    assert_eq!(bitmap.count().0, naive.len() as u64);
    assert_eq!(bitmap.is_empty(), naive.is_empty());
    assert_eq!(bitmap.first().map(|s| s.0), naive.first().copied());
    assert_eq!(bitmap.last().map(|s| s.0), naive.last().copied());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edits_do_what_the_oracle_does(base in bases(), edits in edits(), (start, len) in extents()) {
        let (bitmap, naive) = build(base, &edits);
        assert_same(&bitmap, &naive);
        let within = Extent::new(base + start, len);
        let part: Naive = naive.range(within.start.0..within.end().0).copied().collect();
        prop_assert_eq!(bitmap.runs_in(within).collect::<Vec<_>>(), naive_runs(&part));
        for sector in [base, base + start, base + start + len, base + UNIVERSE].into_iter().chain(part.into_iter().take(3)) {
            prop_assert_eq!(bitmap.contains(Sector(sector)), naive.contains(&sector));
        }
    }

    #[test]
    fn two_sets_meet_as_the_oracle_does(base in bases(), left in edits(), right in edits()) {
        let (left, left_naive) = build(base, &left);
        let (right, right_naive) = build(base, &right);
        let mut union = left.clone();
        union.union_with(&right);
        assert_same(&union, &left_naive.union(&right_naive).copied().collect());
        let mut rest = left.clone();
        rest.subtract(&right);
        assert_same(&rest, &left_naive.difference(&right_naive).copied().collect());
        let mut both = left.clone();
        both.intersect_with(&right);
        assert_same(&both, &left_naive.intersection(&right_naive).copied().collect());
        prop_assert_eq!(left.intersects(&right), !both.is_empty());
        prop_assert_eq!(left == right, left_naive == right_naive);
        rest.union_with(&both);
        prop_assert_eq!(&rest, &left);
        prop_assert_eq!(rest.digest(), left.digest());
        prop_assert_eq!(rest.encode(), left.encode());
    }

    #[test]
    fn truncating_and_rounding_do_what_the_oracle_does(base in bases(), edits in edits(), cut in 0..UNIVERSE) {
        let (mut bitmap, naive) = build(base, &edits);
        let disk = SectorCount(base + UNIVERSE);
        let grains: BTreeSet<u64> = naive.iter().map(|s| s / GRAIN_SECTORS).collect();
        let rounded = grains.iter().flat_map(|g| g * GRAIN_SECTORS..(g + 1) * GRAIN_SECTORS).filter(|s| *s < disk.0);
        assert_same(&bitmap.round_to_grains(disk), &rounded.collect());
        bitmap.truncate(SectorCount(base + cut));
        assert_same(&bitmap, &naive.range(..base + cut).copied().collect());
    }

    #[test]
    fn what_is_encoded_is_decoded(base in bases(), edits in edits()) {
        let (bitmap, naive) = build(base, &edits);
        let bytes = bitmap.encode();
        let decoded = SectorBitmap::decode(&bytes, BIG_DISK).unwrap();
        assert_same(&decoded, &naive);
        prop_assert_eq!(decoded.digest(), bitmap.digest());
        prop_assert!(bytes.len() as u64 <= 32 + 3 * (8192 + 9), "{} bytes for three chunks", bytes.len());
        if let Some(last) = bitmap.last() {
            let too_small = SectorCount(last.0);
            prop_assert_eq!(SectorBitmap::decode(&bytes, too_small), Err(BitmapError::BeyondDisk { disk: too_small }));
            prop_assert!(SectorBitmap::decode(&bytes, SectorCount(last.0 + 1)).is_ok());
        }
    }

    #[test]
    fn the_decoder_survives_random_records(records in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = seal(&records);
        if let Ok(bitmap) = SectorBitmap::decode(&bytes, BIG_DISK) {
            prop_assert_eq!(bitmap.encode(), bytes);
        }
    }

    #[test]
    fn the_decoder_survives_changed_records(
        base in bases(),
        edits in edits(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = build(base, &edits).0.encode();
        prop_assume!(bytes.len() > 32);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        // Without a new seal the checksum must tell; with one, only what is canonical may pass.
        let _ = SectorBitmap::decode(&bytes, BIG_DISK);
        let sealed = seal(&bytes[32..32 + cut.index(bytes.len() - 31)]);
        if let Ok(bitmap) = SectorBitmap::decode(&sealed, BIG_DISK) {
            prop_assert_eq!(bitmap.encode(), sealed);
        }
    }
}

/// A well-formed header over any records.
fn seal(records: &[u8]) -> Vec<u8> {
    let mut bytes = b"SLBM\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&(records.len() as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes).update(records);
    bytes.extend_from_slice(&hasher.finalize().as_bytes()[..16]);
    bytes.extend_from_slice(records);
    bytes
}

fn decode_records(records: &[u8], disk: u64) -> Result<SectorBitmap, BitmapError> {
    SectorBitmap::decode(&seal(records), SectorCount(disk))
}

#[test]
fn the_form_is_what_the_format_says() {
    let bitmap = SectorBitmap::from_extents([Extent::new(3, 2), Extent::new(200, 300)]);
    // gap 3, 2 sectors; gap 195, 300 sectors: both numbers take two bytes.
    assert_eq!(bitmap.encode(), seal(&[3 << 1, 2, 0x86, 0x03, 0xac, 0x02]));
    assert_eq!(SectorBitmap::new().encode(), seal(&[]));
    // A comb in chunk 2 is written as a plain bitmap; the run across its end is cut there.
    let mut comb = SectorBitmap::from_extents((0..32_768).map(|i| Extent::new(131_072 + 2 * i, 1)));
    comb.set(Extent::new(196_607, 4));
    let mut expected = vec![2 << 1 | 1];
    expected.extend_from_slice(&[0x55; 8191]);
    expected.extend_from_slice(&[0xd5, 0, 3]);
    assert_eq!(comb.encode(), seal(&expected));
    assert_eq!(SectorBitmap::decode(&comb.encode(), BIG_DISK), Ok(comb));
}

#[test]
fn a_chunk_is_plain_only_where_runs_take_more() {
    // Singles with a gap of one take two bytes each: 4096 of them as many as the plain chunk, which then is not written.
    let first_and_len = |singles| {
        let bytes = SectorBitmap::from_extents((0..singles).map(|i| Extent::new(2 * i, 1))).encode();
        (bytes[32], bytes.len() - 32)
    };
    assert_eq!(first_and_len(4096), (0, 8192));
    assert_eq!(first_and_len(4097), (1, 8193));
}

#[test]
fn what_is_not_canonical_is_refused() {
    let refused = |records: &[u8]| assert_eq!(decode_records(records, 1 << 20), Err(BitmapError::NotCanonical));
    refused(&[3 << 1, 0]); // an empty run
    refused(&[3 << 1, 2, 0, 4]); // two runs that touch
    refused(&[3 << 1, 0x82, 0]); // a leading zero
    refused(&[0xff; 12]); // a number beyond 64 bits
    let mut chunk = vec![1];
    chunk.extend_from_slice(&[0; 8192]);
    refused(&chunk); // an empty chunk
    chunk[5] = 0x10;
    refused(&chunk); // a chunk that a run would do for
    let singles: Vec<u8> = std::iter::once(0).chain(std::iter::repeat_n([1, 2], 32_767).flatten()).chain([1]).collect();
    refused(&singles); // runs where a chunk is due
    assert!(decode_records(&[3 << 1, 2], 1 << 20).is_ok());
}

#[test]
fn damage_is_named() {
    let good = SectorBitmap::from_extents([Extent::new(1000, 50)]).encode();
    let disk = SectorCount(2000);
    let decode = |bytes: &[u8]| SectorBitmap::decode(bytes, disk).unwrap_err();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            decode(&bad);
        }
        decode(&good[..at]);
    }
    assert_eq!(decode(&good[..31]), BitmapError::Truncated(31));
    assert_eq!(decode(b"not a bitmap at all, but long enough"), BitmapError::Magic);
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(decode(&newer), BitmapError::Version(2));
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(decode(&longer), BitmapError::Length { claimed: 3, found: 4 });
    let mut flipped = good.clone();
    flipped[33] ^= 1;
    assert_eq!(decode(&flipped), BitmapError::Checksum);
    assert_eq!(decode_records(&[1, 2, 3], 1 << 20), Err(BitmapError::Truncated(35)));
    assert_eq!(decode_records(&[0x80], 1 << 20), Err(BitmapError::Truncated(33)));
    let far = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x7f];
    assert_eq!(decode_records(&far, 1 << 20), Err(BitmapError::BeyondDisk { disk: SectorCount(1 << 20) }));
}

#[test]
fn a_full_disk_of_64_tib_costs_nothing() {
    let mut disk = SectorBitmap::full(BIG_DISK);
    assert_eq!(disk.count(), BIG_DISK);
    assert_eq!(disk.runs().collect::<Vec<_>>(), [Extent::new(0, DISK_SECTORS_MAX)]);
    assert!(disk.shards.values().all(|shard| shard.is_marker()));
    assert!(disk.encode().len() < 48);
    assert_eq!(SectorBitmap::decode(&disk.encode(), BIG_DISK), Ok(disk.clone()));
    // A hole brings one shard into being, and filling it makes it vanish again.
    disk.clear(Extent::new(SHARD + 7, 1));
    assert_eq!(disk.shards.values().filter(|shard| !shard.is_marker()).count(), 1);
    assert_eq!(disk.runs().count(), 2);
    disk.union_with(&SectorBitmap::from_extents([Extent::new(SHARD + 7, 1)]));
    assert!(disk.shards.values().all(|shard| shard.is_marker()));
    assert_eq!(disk, SectorBitmap::full(BIG_DISK));
    disk.subtract(&SectorBitmap::full(BIG_DISK));
    assert!(disk.is_empty());
}

#[test]
fn an_odd_disk_is_full_to_its_last_sector() {
    let disk = SectorCount(SHARD * 3 + 12_345);
    let full = SectorBitmap::full(disk);
    assert_eq!((full.count(), full.last()), (disk, Some(Sector(disk.0 - 1))));
    assert_eq!(full.round_to_grains(disk), full);
    assert!(SectorBitmap::full(SectorCount(0)).is_empty());
}

#[test]
fn what_no_device_can_address_is_dropped() {
    let mut bitmap = SectorBitmap::from_extents([Extent { start: Sector(u64::MAX), len: SectorCount(u64::MAX) }]);
    assert!(bitmap.is_empty());
    bitmap.set(Extent { start: Sector(SECTOR_LIMIT - 1), len: SectorCount(u64::MAX) });
    assert_eq!(bitmap.runs().collect::<Vec<_>>(), [Extent::new(SECTOR_LIMIT - 1, 1)]);
    assert!(!bitmap.contains(Sector(u64::MAX)));
    bitmap.truncate(BIG_DISK);
    assert!(bitmap.is_empty());
}

#[test]
fn scattered_writes_cost_no_more_than_a_plain_bitmap() {
    // Three of every six sectors of 64 MiB, set bit by bit: as runs 85 KiB, as a plain bitmap 16 KiB.
    let comb = SectorBitmap::from_extents((0..21_845).map(|i| Extent::new(6 * i, 3)));
    let shard = comb.shards.get(&0).unwrap();
    assert!(shard.bytes() <= 2 * 8192 + 1024 * 4, "{} bytes", shard.bytes());
    assert_eq!(format!("{comb:?}"), "SectorBitmap(65535 sectors in 0..=131066)");
}

/// What is measured is one shard's, and shards share nothing: so it holds for the largest bitmap of the largest disk.
#[test]
fn what_is_read_takes_five_times_its_bytes_at_most() {
    const CHUNKS: u64 = 64;
    // Runs in a chunk and sectors in a run. Runs of two sectors are the worst: as an array they take no more than as runs.
    for runs in [1, 2, 8, 15, 16, 64, 256, 1000, 1025, 1050, 2049, 4000, 8000, 16_000] {
        for len in [1, 2, 3, 15, 63, 127, 300, 4000] {
            let every = 65_536 / runs;
            if len >= every {
                continue;
            }
            let starts = (0..CHUNKS).flat_map(|chunk| (0..runs).map(move |i| chunk * 65_536 + i * every));
            let bytes = SectorBitmap::from_extents(starts.map(|start| Extent::new(start, len))).encode();
            let bitmap = SectorBitmap::decode(&bytes, BIG_DISK).unwrap();
            let held: u64 = bitmap.shards.values().map(Shard::bytes).sum();
            assert!(held <= 5 * bytes.len() as u64, "{runs} runs of {len}: {held} bytes, of {}", bytes.len());
        }
    }
}
