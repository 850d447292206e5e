mod flipped;
mod room;

use super::*;
use crate::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use crate::keys::{DataKey, Part};
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
    encode_under(&header(suite), plan, disk)
}

fn encode_under(header: &Header, plan: &SectorBitmap, disk: &[u8]) -> (Vec<u8>, Vec<BlockCv>) {
    let mut encoder = BlockEncoder::new(&data_key(), header, plan.count(), 1);
    let mut writer = SegmentWriter::new(&data_key(), header, BlockNo(0));
    let mut cvs = Vec::new();
    for (block, extents) in Blocks::of(plan) {
        let data: Vec<u8> = extents.iter().flat_map(|e| bytes_of(disk, *e)).copied().collect();
        let encoded = encoder.encode(block, &extents, &data, Vec::new());
        cvs.push(encoded.cv);
        writer.push(&encoded);
    }
    (writer.finish(), cvs)
}

fn decode(bytes: &[u8], key: &DataKey, stream: SectorCount) -> Result<(SectorBitmap, Vec<u8>), FormatError> {
    let segment = Segment::parse(bytes)?;
    segment.header().expect(DiskId([1; 16]), Generation(2), CycleNo(3))?;
    let object_key = segment.key(key);
    let cvs = segment.block_cvs(&object_key)?;
    let mut out = vec![0xEE; DISK.bytes().0 as usize];
    let mut seen = SectorBitmap::new();
    let mut decoder = BlockDecoder::new(stream);
    assert_eq!(cvs.len(), segment.blocks() as usize);
    for (position, cv) in cvs.iter().enumerate() {
        let decoded = decoder.decode(&segment, &object_key, position, DISK, |extent, data| {
            seen.set(extent);
            let place = &mut out[extent.start.offset() as usize..][..extent.bytes().0 as usize];
            match data {
                FrameData::Bytes(bytes) => place.copy_from_slice(bytes),
                FrameData::Zeros => place.fill(0),
            }
            Ok::<_, FormatError>(())
        })?;
        // Left to the caller, as in the hydrator.
        if decoded.cv != *cv {
            return bad(FormatErrorKind::Forged, "a block's chaining value");
        }
    }
    Ok((seen, out))
}

#[test]
fn a_whole_disk_comes_back_and_its_digest_is_plain_blake3() {
    let (disk, plan) = (disk(), SectorBitmap::full(DISK));
    for suite in [Suite::Plain, Suite::Aes256Gcm] {
        let (bytes, cvs) = encode(&plan, &disk, suite);
        let (seen, out) = decode(&bytes, &data_key(), DISK).unwrap();
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
    let (bytes, _) = encode(&plan, &noise(), Suite::Aes256Gcm);
    assert!((bytes.len() as u64) < DISK.bytes().0 * 1002 / 1000, "{}", bytes.len());
}

#[test]
fn no_plaintext_is_seen_in_a_sealed_segment() {
    let (plan, data) = (SectorBitmap::full(DISK), noise());
    // Of what can't be made smaller every byte would be seen.
    let shows = |suite| {
        let (bytes, _) = encode(&plan, &data, suite);
        data.chunks(1000).any(|piece| bytes.windows(16).any(|window| window == &piece[..16]))
    };
    assert!(shows(Suite::Plain));
    assert!(!shows(Suite::Aes256Gcm));
}

#[test]
fn another_key_opens_nothing() {
    let (bytes, _) = encode(&SectorBitmap::full(DISK), &disk(), Suite::Aes256Gcm);
    assert_eq!(decode(&bytes, &DataKey::new([6; 32]), DISK).unwrap_err().kind, FormatErrorKind::Forged);
}

/// Where the frames of a segment lie.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = HEADER_BYTES;
    let mut next = |_| {
        let start = at;
        let head = FrameHeader::decode(&bytes[at..at + FRAME_HEADER_BYTES]).unwrap();
        at += FRAME_HEADER_BYTES + head.sealed_len as usize;
        start..at
    };
    (0..Segment::parse(bytes).unwrap().frames()).map(&mut next).collect()
}

/// Bytes of which none is zero and nothing can be made smaller.
fn noise() -> Vec<u8> {
    let mut state = 9_u64;
    let mut next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
        (state >> 40) as u8 | 1
    };
    (0..DISK.bytes().0).map(&mut next).collect()
}

#[test]
fn a_frame_moved_within_or_between_segments_is_refused() {
    let (plan, noise) = (SectorBitmap::full(DISK), noise());
    let (bytes, _) = encode(&plan, &noise, Suite::Aes256Gcm);
    let refusal = |bytes: &[u8]| decode(bytes, &data_key(), plan.count()).map(drop).unwrap_err().kind;
    let frames = frames(&bytes);
    let alike = |a: usize, b: usize| frames[a].len() == frames[b].len();
    let pairs: Vec<_> = (1..frames.len()).map(|b| (b - 1, b)).filter(|(a, b)| alike(*a, *b)).collect();
    assert!(pairs.len() >= 2, "{frames:?}");
    let other = Header { salt: [9; 32], ..header(Suite::Aes256Gcm) };
    let elsewhere = encode_under(&other, &plan, &noise).0;
    for (a, b) in pairs {
        // Whole, and with each header where it was, so that nothing but the seals can tell.
        for skipped in [0, FRAME_HEADER_BYTES] {
            let mut swapped = bytes.clone();
            swapped[frames[a].start + skipped..frames[a].end]
                .copy_from_slice(&bytes[frames[b].start + skipped..frames[b].end]);
            swapped[frames[b].start + skipped..frames[b].end]
                .copy_from_slice(&bytes[frames[a].start + skipped..frames[a].end]);
            let kind = refusal(&swapped);
            assert!(skipped == 0 || kind == FormatErrorKind::Forged, "{a} and {b}: {kind:?}");
        }
        // The very same frame, of another segment.
        let mut moved = bytes.clone();
        moved[frames[a].clone()].copy_from_slice(&elsewhere[frames[a].clone()]);
        assert_eq!(refusal(&moved), FormatErrorKind::Forged, "{a}");
    }
    assert!(decode(&bytes, &data_key(), plan.count()).is_ok());
}

#[test]
fn a_frame_s_header_is_proven_and_claims_nothing_that_wraps() {
    let mut plan = SectorBitmap::new();
    for start in [200, 400, 600] {
        plan.set(Extent::new(start, 8));
    }
    let header = header(Suite::Aes256Gcm);
    let (bytes, _) = encode(&plan, &noise(), Suite::Aes256Gcm);
    let segment = Segment::parse(&bytes).unwrap();
    let claimed = segment.claimed_extents().unwrap();
    assert_eq!(claimed, vec![Extent::new(200, 24)], "where the other runs lie is sealed");
    let mut moved = bytes.clone();
    let at = HEADER_BYTES;
    moved[at + 8] ^= 1; // the first frame's sector
    assert!(decode(&moved, &data_key(), plan.count()).is_err());
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
    assert_eq!(decode(&respun, &data_key(), plan.count()).unwrap_err().kind, FormatErrorKind::Forged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_plan_comes_back(runs in prop::collection::vec((0u64..13_000, 1u64..900), 1..30), sealed: bool) {
        let plan = SectorBitmap::from_extents(runs.iter().map(|(start, len)| Extent::new(*start, *len)));
        let disk = disk();
        let suite = if sealed { Suite::Aes256Gcm } else { Suite::Plain };
        let (bytes, _) = encode(&plan, &disk, suite);
        let (seen, out) = decode(&bytes, &data_key(), plan.count()).unwrap();
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
        let result = decode(&bytes, &data_key(), plan.count());
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
        let _ = decode(&bytes, &data_key(), DISK);
    }

    // Whatever header, index and frame headers claim in bytes that hang together: nothing of it is believed. Where nothing
    // is sealed, the checks are all there is.
    #[test]
    fn hostile_lengths_do_no_harm(
        first in prop_oneof![Just(0_u64), Just(1), any::<u64>()],
        claims in prop::collection::vec((prop_oneof![1_u32..4, any::<u32>()], any::<u64>(), prop_oneof![1_u64..99, any::<u64>()],
            prop_oneof![Just(64_u32), any::<u32>()], 0_u8..6), 1..6),
        sealed: bool,
    ) {
        let suite = if sealed { Suite::Aes256Gcm } else { Suite::Plain };
        let (mut body, mut index) = (Vec::new(), Vec::new());
        for &(frames, start, len, sealed_len, kind) in &claims {
            let at = (HEADER_BYTES + body.len()) as u64;
            let [start, len] = [start, len].map(u64::to_le_bytes);
            let mut frame = vec![0, 0, 0, 0, kind, 0, 0, 0];
            frame.extend_from_slice(&[&start[..], &len, &sealed_len.to_le_bytes(), &[0; 4]].concat());
            frame.extend_from_slice(&[0xff; 64]);
            index.extend_from_slice(&[&at.to_le_bytes()[..], &(frame.len() as u32).to_le_bytes(), &frames.to_le_bytes()].concat());
            body.extend_from_slice(&frame);
        }
        let tail = claims.len() * 32 + if sealed { 16 } else { 0 };
        let fields = [first, claims.len() as u64, (HEADER_BYTES + body.len()) as u64];
        let head = Header { fields, ..header(suite) }.encode();
        let bytes = [&head[..], &body, &index, &vec![0; tail]].concat();
        prop_assert!(decode(&bytes, &data_key(), DISK).is_err());
    }

    #[test]
    fn a_cut_segment_is_refused(cut in 0usize..10_000) {
        let mut plan = SectorBitmap::new();
        plan.set(Extent::new(0, 100));
        let (bytes, _) = encode(&plan, &disk(), Suite::Aes256Gcm);
        let cut = cut % bytes.len();
        prop_assert!(decode(&bytes[..cut], &data_key(), plan.count()).is_err());
    }
}

/// A segment of one block with one frame that no writer made: its kind, its header's extent, its payload.
fn forged(suite: Suite, kind: FrameKind, extent: Extent, payload: &[u8]) -> Vec<u8> {
    let header = header(suite);
    let mut writer = SegmentWriter::new(&data_key(), &header, BlockNo(0));
    let key = data_key().object_key(&Header { fields: [0; 3], ..header });
    let sealed_len = (payload.len() + key.overhead()) as u32;
    let head = FrameHeader { number: 0, kind, extent, sealed_len }.encode();
    let mut bytes = [&head[..], payload].concat();
    key.seal(Part { block: 0, frame: 0 }, &head, &mut bytes, FRAME_HEADER_BYTES);
    writer.push(&EncodedBlock { block: BlockNo(0), bytes, frames: 1, cv: BlockCv([0; 32]) });
    writer.finish()
}

/// What is left of a gathered frame's payload after its check.
fn payload(check: &[u8; 32], runs: &[Run], body: &[u8]) -> Vec<u8> {
    let mut out = check.to_vec();
    out.extend_from_slice(&(runs.len() as u32).to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    runs.iter().for_each(|run| out.extend_from_slice(&run.encode()));
    out.extend_from_slice(body);
    out
}

#[test]
fn a_bomb_is_not_inflated() {
    // A zstd frame that claims and holds far more than its extent: 64 MiB of zeros for one sector.
    let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 19).unwrap();
    let one = Extent::new(0, 1);
    let run = Run { extent: one, zeros: false };
    for (kind, payload) in
        [(FrameKind::Zstd, [&[0; 32][..], &bomb].concat()), (FrameKind::GatheredZstd, payload(&[0; 32], &[run], &bomb))]
    {
        let bytes = forged(Suite::Plain, kind, one, &payload);
        assert_eq!(decode(&bytes, &data_key(), SectorCount(1)).unwrap_err().kind, FormatErrorKind::Forged);
    }
}

#[test]
fn a_gathered_frame_that_no_writer_makes_is_refused() {
    let data = [7; 1024];
    let check = *blake3::hash(&data).as_bytes();
    let run = |start, len, zeros| Run { extent: Extent::new(start, len), zeros };
    let whole = Extent::new(5, 2);
    let refused = |extent: Extent, payload: &[u8], stream: u64| {
        let bytes = forged(Suite::Aes256Gcm, FrameKind::Gathered, extent, payload);
        let segment = Segment::parse(&bytes).unwrap();
        let key = segment.key(&data_key());
        let mut seen = 0;
        let sink = |_, _: FrameData<'_>| {
            seen += 1;
            Ok::<_, FormatError>(())
        };
        let result = BlockDecoder::new(SectorCount(stream)).decode(&segment, &key, 0, DISK, sink);
        assert!(result.is_ok() || seen == 0, "nothing is handed out that was not found right");
        result.err().map(|error| (error.kind, error.context))
    };
    let impossible = |extent, payload: &[u8], word: &str| {
        let (kind, text) = refused(extent, payload, 2).expect("refused");
        assert!(kind == FormatErrorKind::Impossible && text.contains(word), "{kind:?} {text}: {word}");
    };
    let good = payload(&check, &[run(5, 1, false), run(9, 1, false)], &data);
    assert_eq!(refused(whole, &good, 2), None);
    // The same block of a longer stream has another chaining value.
    assert_eq!(refused(whole, &good, 4000).expect("refused").0, FormatErrorKind::Forged);
    impossible(Extent::new(5, 3), &good, "other sectors");
    impossible(Extent::new(4, 2), &good, "other sectors");
    impossible(whole, &payload(&check, &[], &data), "0 runs");
    impossible(whole, &payload(&check, &[run(9, 1, false), run(5, 1, false)], &data), "do not ascend");
    impossible(whole, &payload(&check, &[run(5, 2, false), run(6, 1, false)], &data), "do not ascend");
    impossible(whole, &payload(&check, &[run(5, 0, false), run(9, 2, false)], &data), "of a disk");
    impossible(whole, &payload(&check, &[run(DISK.0, 2, false)], &data), "of a disk");
    impossible(whole, &payload(&check, &[run(5, 2, false)], &data[..512]), "another length");
    impossible(whole, &payload(&check, &[run(5, 1, false), run(9, 1, true)], &data), "another length");
    impossible(Extent::new(0, 4000), &payload(&check, &[run(0, 4000, true)], &[]), "1 MiB");
    let mut odd = good.clone();
    odd[GATHERED_HEAD_BYTES + 12] = 2;
    impossible(whole, &odd, "run of kind 2");
    let (kind, _) = refused(whole, &good[..good.len() - 1], 2).expect("refused");
    assert_eq!(kind, FormatErrorKind::Truncated);
    let (kind, _) = refused(whole, &[&good[..], &[0]].concat(), 2).expect("refused");
    assert!(matches!(kind, FormatErrorKind::Truncated | FormatErrorKind::Impossible));
}

#[test]
fn scattered_sectors_take_one_frame_and_a_block_of_zeros_no_payload() {
    let plan = SectorBitmap::from_extents((0..1000).map(|i| Extent::new(i * 13, 1)));
    let (bytes, _) = encode(&plan, &disk(), Suite::Aes256Gcm);
    assert_eq!(Segment::parse(&bytes).unwrap().frames(), 1);
    let zeros = vec![0; DISK.bytes().0 as usize];
    let (bytes, _) = encode(&SectorBitmap::full(DISK), &zeros, Suite::Aes256Gcm);
    assert!(bytes.len() < 1500, "{}", bytes.len());
    assert_eq!(decode(&bytes, &data_key(), DISK).unwrap(), (SectorBitmap::full(DISK), zeros));
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
