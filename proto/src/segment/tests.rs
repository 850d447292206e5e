use super::*;
use crate::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use crate::keys::DataKey;
use crate::stream::{BlockCv, Blocks, StreamDigest};
use crate::units::{CycleNo, DiskId, Generation, SECTOR_BYTES, SectorCount};
use crate::{Digest, SectorBitmap};
use proptest::prelude::*;

const DISK: SectorCount = SectorCount(14_000);

fn header(suite: Suite) -> Header {
    Header {
        kind: ObjectKind::Segment,
        suite,
        disk: DiskId([1; 16]),
        generation: Generation(2),
        cycle: CycleNo(3),
        salt: [4; 32],
        fields: [0; 3],
    }
}

fn data_key() -> DataKey {
    DataKey::new([5; 32])
}

/// A disk with zeros, text and noise in runs.
fn disk() -> Vec<u8> {
    let mut state = 1u64;
    (0..DISK.bytes().0)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match (i / 70_000) % 3 {
                0 => 0,
                1 => b"all work and no play "[(i % 21) as usize],
                _ => (state >> 33) as u8,
            }
        })
        .collect()
}

fn bytes_of(disk: &[u8], extent: Extent) -> &[u8] {
    &disk[extent.start.offset() as usize..][..extent.bytes().0 as usize]
}

fn encode(plan: &SectorBitmap, disk: &[u8], suite: Suite) -> (Vec<u8>, Vec<BlockCv>) {
    let header = header(suite);
    let mut encoder = BlockEncoder::new(&data_key(), &header, plan.count(), 1);
    let mut writer = SegmentWriter::new(&data_key(), &header, BlockNo(0));
    let mut cvs = Vec::new();
    for (block, extents) in Blocks::of(plan) {
        let data: Vec<u8> = extents.iter().flat_map(|e| bytes_of(disk, *e)).copied().collect();
        let encoded = encoder.encode(block, &extents, &data, Vec::new());
        cvs.push(encoded.cv);
        writer.push(&encoded);
    }
    (writer.finish(), cvs)
}

fn decode(bytes: &[u8], key: &DataKey) -> Result<(SectorBitmap, Vec<u8>), FormatError> {
    let segment = Segment::parse(bytes)?;
    segment.header().expect(DiskId([1; 16]), Generation(2), CycleNo(3))?;
    let object_key = segment.key(key);
    segment.block_cvs(&object_key)?;
    let mut out = vec![0xEE; DISK.bytes().0 as usize];
    let mut seen = SectorBitmap::new();
    let mut decoder = BlockDecoder::default();
    for position in 0..segment.blocks() as usize {
        decoder.decode(&segment, &object_key, position, DISK, |extent, data| {
            seen.set(extent);
            let place = &mut out[extent.start.offset() as usize..][..extent.bytes().0 as usize];
            match data {
                FrameData::Bytes(bytes) => place.copy_from_slice(bytes),
                FrameData::Zeros => place.fill(0),
            }
            Ok::<_, FormatError>(())
        })?;
    }
    Ok((seen, out))
}

#[test]
fn a_whole_disk_comes_back_and_its_digest_is_plain_blake3() {
    let (disk, plan) = (disk(), SectorBitmap::full(DISK));
    for suite in [Suite::Plain, Suite::Aes256Gcm] {
        let (bytes, cvs) = encode(&plan, &disk, suite);
        let (seen, out) = decode(&bytes, &data_key()).unwrap();
        assert_eq!(seen, plan);
        assert!(out == disk);
        let mut digest = StreamDigest::default();
        cvs.iter().for_each(|cv| digest.push(*cv));
        assert_eq!(digest.finish(), Digest::of(&disk));
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.block_cvs(&segment.key(&data_key())).unwrap(), cvs);
    }
}

#[test]
fn compressible_data_shrinks_and_noise_does_not_grow_much() {
    let plan = SectorBitmap::full(DISK);
    let (bytes, _) = encode(&plan, &disk(), Suite::Aes256Gcm);
    assert!(bytes.len() as u64 * 10 < DISK.bytes().0 * 4, "{} of {}", bytes.len(), DISK.bytes());
    let noise: Vec<u8> = disk()
        .iter()
        .scan(9u64, |s, _| {
            *s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
            Some((*s >> 40) as u8)
        })
        .collect();
    let (bytes, _) = encode(&plan, &noise, Suite::Aes256Gcm);
    assert!((bytes.len() as u64) < DISK.bytes().0 * 1002 / 1000, "{}", bytes.len());
}

#[test]
fn no_plaintext_is_seen_in_a_sealed_segment() {
    let (bytes, _) = encode(&SectorBitmap::full(DISK), &disk(), Suite::Aes256Gcm);
    assert!(!bytes.windows(12).any(|w| w == b"all work and"));
}

#[test]
fn another_key_opens_nothing() {
    let (bytes, _) = encode(&SectorBitmap::full(DISK), &disk(), Suite::Aes256Gcm);
    assert_eq!(decode(&bytes, &DataKey::new([6; 32])).unwrap_err().kind, FormatErrorKind::Forged);
}

#[test]
fn a_frame_moved_within_or_between_segments_is_refused() {
    let mut plan = SectorBitmap::new();
    for start in [200, 400, 600] {
        plan.set(Extent::new(start, 8));
    }
    let noise: Vec<u8> = (0..DISK.bytes().0).map(|i| (i * i / 7) as u8 | 1).collect();
    let header = Header { suite: Suite::Aes256Gcm, ..header(Suite::Aes256Gcm) };
    let (bytes, _) = encode(&plan, &noise, Suite::Aes256Gcm);
    let segment = Segment::parse(&bytes).unwrap();
    let claimed = segment.claimed_extents().unwrap();
    assert_eq!(claimed, vec![Extent::new(200, 8), Extent::new(400, 8), Extent::new(600, 8)]);
    // Swap the sealed payloads of two frames of equal length, if they are, else flip their numbers.
    let mut moved = bytes.clone();
    let at = HEADER_BYTES;
    moved[at + 8] ^= 1; // the first frame's sector
    assert!(decode(&moved, &data_key()).is_err());
    // A start or a length with which sums would wrap is not even claimed.
    for field in [at + 8, at + 16] {
        let mut huge = bytes.clone();
        huge[field..field + 8].fill(0xff);
        assert_eq!(Segment::parse(&huge).unwrap().claimed_extents().unwrap_err().kind, FormatErrorKind::Impossible);
    }
    // The same segment under another salt's header: the header's checksum is made right again, the key is not.
    let other = Header { salt: [9; 32], fields: segment.header().fields, ..header };
    let mut respun = bytes.clone();
    respun[..HEADER_BYTES].copy_from_slice(&other.encode());
    assert_eq!(decode(&respun, &data_key()).unwrap_err().kind, FormatErrorKind::Forged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_plan_comes_back(runs in prop::collection::vec((0u64..13_000, 1u64..900), 1..30), sealed: bool) {
        let plan = SectorBitmap::from_extents(runs.iter().map(|(start, len)| Extent::new(*start, *len)));
        let disk = disk();
        let suite = if sealed { Suite::Aes256Gcm } else { Suite::Plain };
        let (bytes, _) = encode(&plan, &disk, suite);
        let (seen, out) = decode(&bytes, &data_key()).unwrap();
        prop_assert_eq!(&seen, &plan);
        for run in plan.runs() {
            prop_assert!(bytes_of(&out, run) == bytes_of(&disk, run));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0usize..1_000_000, bit in 0u8..8, sealed: bool) {
        let mut plan = SectorBitmap::new();
        plan.set(Extent::new(130, 300));
        let suite = if sealed { Suite::Aes256Gcm } else { Suite::Plain };
        let (mut bytes, _) = encode(&plan, &disk(), suite);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let result = decode(&bytes, &data_key());
        // Unsealed, the index's chaining values and the frames' places are proven by the object's hash alone.
        if sealed {
            prop_assert!(result.is_err());
        }
    }

    #[test]
    fn hostile_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), start: bool) {
        if start {
            let head = header(Suite::Aes256Gcm).encode();
            for (to, from) in bytes.iter_mut().zip(head) { *to = from; }
        }
        let _ = decode(&bytes, &data_key());
    }

    #[test]
    fn a_cut_segment_is_refused(cut in 0usize..10_000) {
        let mut plan = SectorBitmap::new();
        plan.set(Extent::new(0, 100));
        let (bytes, _) = encode(&plan, &disk(), Suite::Aes256Gcm);
        let cut = cut % bytes.len();
        prop_assert!(decode(&bytes[..cut], &data_key()).is_err());
    }
}

#[test]
fn a_bomb_is_not_inflated() {
    // A zstd frame that claims and holds far more than its extent: 64 MiB of zeros for one sector.
    let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 19).unwrap();
    let header = header(Suite::Plain);
    let mut frame = Vec::new();
    let sealed_len = (32 + bomb.len()) as u32;
    let head = FrameHeader { number: 0, kind: FrameKind::Zstd, extent: Extent::new(0, 1), sealed_len };
    frame.extend_from_slice(&head.encode());
    frame.extend_from_slice(&[0; 32]);
    frame.extend_from_slice(&bomb);
    let mut writer = SegmentWriter::new(&data_key(), &header, BlockNo(0));
    writer.push(&EncodedBlock { block: BlockNo(0), bytes: frame, frames: 1, cv: BlockCv([0; 32]) });
    let bytes = writer.finish();
    assert_eq!(decode(&bytes, &data_key()).unwrap_err().kind, FormatErrorKind::Forged);
}

#[test]
fn a_segment_is_cut_by_bytes_and_by_blocks() {
    let header = header(Suite::Plain);
    let mut writer = SegmentWriter::new(&data_key(), &header, BlockNo(7));
    let block =
        |n, len: usize| EncodedBlock { block: BlockNo(n), bytes: vec![0; len], frames: 1, cv: BlockCv([0; 32]) };
    writer.push(&block(7, SEGMENT_BYTES_TARGET - HEADER_BYTES - 1));
    assert!(!writer.is_full());
    writer.push(&block(8, 1));
    assert!(writer.is_full());
    assert_eq!((writer.first(), writer.blocks()), (BlockNo(7), 2));
    assert_eq!(writer.name(), "s0000000007-0404040404040404.seg");
    assert_eq!(SECTOR_BYTES, 512);
}
