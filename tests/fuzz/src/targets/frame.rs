//! Frames behind their seals: a segment is built around what the input says each frame holds.

use crate::fields::{Fields, flag};
use crate::sealed::{header, key, seal, suite};
use sluice_proto::header::{Header, ObjectKind};
use sluice_proto::keys::{ObjectKey, Part};
use sluice_proto::segment::{BlockDecoder, BlockEncoder, FrameData, Segment, SegmentWriter};
use sluice_proto::stream::BlockHasher;
use sluice_proto::{
    BLOCK_BYTES, BLOCK_SECTORS, BlockNo, DISK_SECTORS_MAX, Extent, FormatError, GRAIN_BYTES, SectorCount,
};

/// The stream that the block belongs to: two blocks, so that a block is not a whole tree.
const STREAM: SectorCount = SectorCount(2 * BLOCK_SECTORS);

/// Builds, opens, and writes again what could be opened.
pub fn run(input: &[u8]) {
    let mut fields = Fields::of(input);
    let flags = fields.u8();
    let disk = SectorCount(if flag(flags, 1) { DISK_SECTORS_MAX } else { 4096 });
    let first = if flag(flags, 2) { fields.u64() } else { 0 };
    let header = header(ObjectKind::Segment, suite(flag(flags, 0)), [first, 1, 0]);
    let bytes = build(&header, &mut fields);
    let Ok(segment) = Segment::parse(&bytes) else { return };
    let object_key = segment.key(&key());
    segment.block_cvs(&object_key).expect("the index was sealed with this key");
    let claimed = segment.claimed_extents();
    let Ok(frames) = decode(&segment, &object_key, 0, disk) else { return };
    let extents: Vec<Extent> = frames.iter().map(|frame| frame.0).collect();
    let claimed = claimed.expect("what decodes can be claimed");
    let sum = |extents: &[Extent]| extents.iter().map(|extent| extent.len.0).sum::<u64>();
    assert_eq!((claimed.first().map(|e| e.start), sum(&claimed)), (extents.first().map(|e| e.start), sum(&extents)));
    // Where a gathered frame's runs lie is sealed.
    assert!(claimed.len() == 1 || claimed == extents);
    write_again(&header, &frames, disk);
}

/// The frames of a block, each checked against what every reader relies on.
pub fn decode(
    segment: &Segment<'_>,
    key: &ObjectKey,
    position: usize,
    disk: SectorCount,
) -> Result<Vec<(Extent, Vec<u8>)>, FormatError> {
    let mut frames: Vec<(Extent, Vec<u8>)> = Vec::new();
    let decoded = BlockDecoder::new(STREAM).decode(segment, key, position, disk, |extent, data| {
        assert!(!extent.is_empty() && extent.is_within(disk), "{extent:?}");
        assert!(frames.last().is_none_or(|last| last.0.end() <= extent.start), "frames do not ascend");
        let bytes = match data {
            FrameData::Bytes(bytes) => bytes.to_vec(),
            FrameData::Zeros => vec![0; extent.bytes().0 as usize],
        };
        assert_eq!(bytes.len() as u64, extent.bytes().0);
        frames.push((extent, bytes));
        Ok::<_, FormatError>(())
    })?;
    let total = decoded.sectors.0;
    assert!(total <= BLOCK_SECTORS && total == frames.iter().map(|frame| frame.0.len.0).sum::<u64>());
    let mut hasher = BlockHasher::new(BlockNo(segment.first().0 + position as u64), STREAM);
    frames.iter().for_each(|frame| hasher.update(&frame.1));
    assert_eq!(decoded.cv, hasher.finish(), "what was handed out is what was proven");
    Ok(frames)
}

/// What was read is written by the product's own encoder, and reads the same.
fn write_again(header: &Header, frames: &[(Extent, Vec<u8>)], disk: SectorCount) {
    let extents: Vec<Extent> = frames.iter().map(|frame| frame.0).collect();
    let data: Vec<u8> = frames.iter().flat_map(|frame| frame.1.iter().copied()).collect();
    let block = BlockEncoder::new(&key(), header, STREAM, 1).encode(BlockNo(0), &extents, &data, Vec::new());
    let mut writer = SegmentWriter::new(&key(), header, BlockNo(0));
    writer.push(&block);
    let bytes = writer.finish();
    let segment = Segment::parse(&bytes).expect("our own segment");
    let again = decode(&segment, &segment.key(&key()), 0, disk).expect("our own frames");
    let flat = |frames: &[(Extent, Vec<u8>)]| -> Vec<(u64, u8)> {
        let starts = frames.iter().flat_map(|(extent, bytes)| {
            bytes.chunks_exact(512).enumerate().map(move |(i, b)| (extent.start.0 + i as u64, sum(b)))
        });
        starts.collect()
    };
    assert!(flat(frames) == flat(&again), "another sector than the one that was written");
    assert!(again.iter().flat_map(|frame| &frame.1).eq(data.iter()), "other bytes than those that were written");
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
}

/// A segment of one block. Its layout is written down here once more, by FORMAT.md, so that the product's writer and
/// its reader can't agree on a mistake.
fn build(header: &Header, fields: &mut Fields<'_>) -> Vec<u8> {
    let object_key = key().object_key(header);
    let mut frames = Vec::new();
    let (mut number, mut behind) = (0_u32, 0_u64);
    while !fields.is_empty() && number < 4096 {
        let (kind, how) = (fields.u8(), fields.u8());
        let mut start = if flag(how, 0) { fields.number() } else { behind.wrapping_add(u64::from(fields.u8() & 7)) };
        let mut len = fields.number();
        behind = start.wrapping_add(len);
        let kind = if flag(how, 5) { kind } else { kind % 5 + 1 };
        let opened = match kind {
            4 | 5 => gathered(how, kind == 5, header.fields[0], fields, (&mut start, &mut len)),
            _ => payload(how, fields.counted()),
        };
        let mut frame = vec![0; 32];
        frame[..4].copy_from_slice(&(if flag(how, 4) { fields.u32() } else { number }).to_le_bytes());
        frame[4] = kind;
        frame[8..16].copy_from_slice(&start.to_le_bytes());
        frame[16..24].copy_from_slice(&len.to_le_bytes());
        let sealed_len = (opened.len() + object_key.overhead()) as u32;
        frame[24..28].copy_from_slice(&(if flag(how, 6) { fields.u32() } else { sealed_len }).to_le_bytes());
        let part = Part { block: header.fields[0], frame: number };
        let sealed = seal(header, part, &frame, &opened);
        frames.extend_from_slice(&frame);
        frames.extend_from_slice(&sealed);
        number += 1;
    }
    let whole = Header { fields: [header.fields[0], 1, 128 + frames.len() as u64], ..header.clone() };
    let mut index = 128_u64.to_le_bytes().to_vec();
    index.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    index.extend_from_slice(&number.to_le_bytes());
    let head = whole.encode();
    let part = Part { block: header.fields[0], frame: u32::MAX };
    let cvs = seal(&whole, part, &[&head[..], &index].concat(), &[7; 32]);
    [&head[..], &frames, &index, &cvs].concat()
}

/// The payload of a gathered frame: runs as the input says, its check and, unless the input wants others, its header's numbers
/// made right.
fn gathered(how: u8, packed: bool, block: u64, fields: &mut Fields<'_>, at: (&mut u64, &mut u64)) -> Vec<u8> {
    let (count, given) = (usize::from(fields.u8() & 31), fields.counted());
    let (mut runs, mut plain, mut behind, mut total) = (Vec::new(), Vec::new(), *at.0, 0_u64);
    let first = given.first().copied().unwrap_or_default();
    let (mut hasher, mut hashed) = (BlockHasher::new(BlockNo(block.min(1)), STREAM), 0_u64);
    for number in 0..count {
        let (gap, len, zeros) = (fields.number(), fields.number(), fields.u8());
        let start = behind.wrapping_add(gap);
        runs.extend_from_slice(&start.to_le_bytes());
        runs.extend_from_slice(&(len as u32).to_le_bytes());
        runs.extend_from_slice(&[zeros & if flag(how, 3) { 255 } else { 1 }, 0, 0, 0]);
        let bytes =
            vec![if zeros & 1 == 1 { 0 } else { first.wrapping_add(number as u8) | 1 }; (len & 255) as usize * 512];
        // No check is right for more than a block holds.
        if hashed + bytes.len() as u64 <= BLOCK_BYTES {
            hasher.update(&bytes);
            hashed += bytes.len() as u64;
        }
        if zeros & 1 == 0 {
            plain.extend_from_slice(&bytes);
        }
        total = total.wrapping_add(len);
        behind = start.wrapping_add(len);
        if number == 0 && !flag(how, 7) {
            *at.0 = start;
        }
    }
    if !flag(how, 7) {
        *at.1 = total;
    }
    let body = match (flag(how, 1), packed) {
        (true, _) => given.to_vec(),
        (false, true) => zstd::bulk::compress(&plain, 1).unwrap_or_default(),
        (false, false) => plain,
    };
    let check = if hashed == 0 { [0; 32] } else { hasher.finish().0 };
    let lengths = [(count as u32).to_le_bytes(), (body.len() as u32).to_le_bytes()].concat();
    [&check[..], &lengths, &runs, &body].concat()
}

/// What is under a frame's seal: digest and body, made right in several ways or taken as they come.
fn payload(how: u8, given: &[u8]) -> Vec<u8> {
    let with_digest = |plain: &[u8], body: &[u8]| [&blake3::hash(plain).as_bytes()[..], body].concat();
    match how >> 1 & 3 {
        0 => given.to_vec(),
        1 => {
            // A long plaintext from few bytes: what was given, over and over.
            let len = given.first().map_or(0, |n| usize::from(*n) * 512);
            let plain: Vec<u8> = given.iter().copied().cycle().take(len).collect();
            with_digest(&plain, &plain)
        }
        2 => {
            let len = given.first().map_or(0, |n| usize::from(*n) * 512);
            let plain: Vec<u8> = given.iter().copied().cycle().take(len).collect();
            with_digest(&plain, &zstd::bulk::compress(&plain, 1).unwrap_or_default())
        }
        _ => with_digest(&zstd::bulk::decompress(given, GRAIN_BYTES as usize).unwrap_or_default(), given),
    }
}

/// A block of each kind of frame, and frames that must be refused.
pub fn seeds() -> Vec<Vec<u8>> {
    let stored = [0, 1 << 1, 0, 8, 3, 0, 8, 2, 3];
    let packed = [1, 2 << 1, 1, 8, 2, 0, 8, 2];
    let zeros = [2, 0, 0, 64, 0, 0];
    let far = [2, 1, 172, 0, 100, 0, 0];
    let raw = [&[1, 3 << 1, 0, 1][..], &packed_zeros()].concat();
    // kind, how, start, length; runs, given; gap, length and zeros of each.
    let gathered = [3, 0, 0, 0, 3, 1, 9, 2, 3, 0, 1, 1, 1, 40, 2, 0];
    let packed_gathered = [4, 0, 0, 0, 2, 1, 7, 0, 200, 0, 1, 9, 0];
    vec![
        [&[0][..], &stored, &packed, &zeros].concat(),
        [&[1][..], &stored, &zeros, &packed].concat(),
        [&[2][..], &far].concat(),
        [&[0][..], &raw].concat(),
        [&[0, 0, 1, 0, 8, 40, 0][..], &[9; 40]].concat(),
        [&[0][..], &gathered].concat(),
        [&[1][..], &packed_gathered].concat(),
    ]
}

fn packed_zeros() -> Vec<u8> {
    let packed = zstd::bulk::compress(&[5; 512], 1).unwrap_or_default();
    [&(packed.len() as u16).to_le_bytes()[..], &packed].concat()
}
