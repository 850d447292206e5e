//! Whole segments: header, index and frames as they come, with the checksums made right where the input asks for it.

use super::frame;
use crate::fields::flag;
use crate::sealed::{key, mend_header, seal};
use sluice_proto::header::{HEADER_BYTES, Header, ObjectKind};
use sluice_proto::keys::{Part, TAG_BYTES};
use sluice_proto::segment::{BLOCK_FRAMES_MAX, SEGMENT_BLOCKS_MAX, Segment};
use sluice_proto::{BLOCK_SECTORS, SectorCount};

/// Parses, asks all that can be asked without the key, then opens.
pub fn run(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if flag(*flags, 0) {
        mend_header(&mut bytes, b"SLUICSEG");
    }
    if flag(*flags, 1) {
        seal_index(&mut bytes);
    }
    let Ok(segment) = Segment::parse(&bytes) else { return };
    let blocks = segment.blocks();
    assert!((1..=SEGMENT_BLOCKS_MAX).contains(&blocks));
    assert!(segment.first().0.checked_add(blocks).is_some());
    assert!(segment.frames() >= blocks && segment.frames() <= blocks * u64::from(BLOCK_FRAMES_MAX));
    if let Ok(extents) = segment.claimed_extents() {
        assert_eq!(extents.len() as u64, segment.frames());
        // What an explainer adds up must not overflow, whatever is claimed.
        let sectors = extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.len.0));
        assert!(sectors.is_some_and(|sum| sum <= blocks * BLOCK_SECTORS), "more than the blocks can hold");
        assert!(extents.iter().all(|extent| extent.start.0.checked_add(extent.len.0).is_some()), "a wrapping extent");
    }
    let object_key = segment.key(&key());
    if let Ok(cvs) = segment.block_cvs(&object_key) {
        assert_eq!(cvs.len() as u64, blocks);
    }
    for position in 0..blocks as usize {
        if frame::decode(&segment, &object_key, position, SectorCount(4096)).is_err() {
            break;
        }
    }
}

/// Seals what stands in the place of the chaining values, if header and length leave a place for them.
fn seal_index(bytes: &mut [u8]) {
    let Ok(header) = Header::decode(ObjectKind::Segment, bytes) else { return };
    let [first, blocks, index_at] = header.fields;
    let room = bytes.len() as u64;
    if blocks == 0 || blocks > SEGMENT_BLOCKS_MAX || index_at < HEADER_BYTES as u64 || index_at > room {
        return;
    }
    let (at, table) = (index_at as usize, index_at as usize + blocks as usize * 16);
    let sealed_len = blocks as usize * 32 + key().object_key(&header).overhead();
    if table + sealed_len != bytes.len() {
        return;
    }
    let aad = [&bytes[..HEADER_BYTES], &bytes[at..table]].concat();
    let plain = &bytes[table..bytes.len() - (sealed_len - blocks as usize * 32)];
    let sealed = seal(&header, Part { block: first, frame: u32::MAX }, &aad, plain);
    bytes[table..].copy_from_slice(&sealed);
    const { assert!(TAG_BYTES == 16) };
}

/// The sample, as it is and with its checksums made anew, and segments of plain frames.
pub fn seeds() -> Vec<Vec<u8>> {
    let first = include_bytes!("../../../../proto/samples/v1-segment.seg");
    let sample = include_bytes!("../../../../proto/samples/v2-segment.seg");
    vec![
        [&[0][..], first].concat(),
        [&[3][..], first].concat(),
        [&[0][..], sample].concat(),
        [&[3][..], sample].concat(),
        [&[3][..], &plain(&[&[(3, 0, 8)], &[(3, 8, 4), (3, 20, 1)]])].concat(),
        [&[1][..], &plain(&[&[(3, u64::MAX - 8, 4)]])].concat(),
    ]
}

/// An unsealed segment of frames without payloads: kind, start and length of each.
fn plain(blocks: &[&[(u8, u64, u64)]]) -> Vec<u8> {
    let (mut frames, mut index) = (Vec::new(), Vec::new());
    for block in blocks {
        index.extend_from_slice(&((HEADER_BYTES + frames.len()) as u64).to_le_bytes());
        index.extend_from_slice(&(block.len() as u32 * 32).to_le_bytes());
        index.extend_from_slice(&(block.len() as u32).to_le_bytes());
        for (number, (kind, start, len)) in block.iter().enumerate() {
            frames.extend_from_slice(&(number as u32).to_le_bytes());
            frames.extend_from_slice(&[*kind, 0, 0, 0]);
            frames.extend_from_slice(&start.to_le_bytes());
            frames.extend_from_slice(&len.to_le_bytes());
            frames.extend_from_slice(&[0; 8]);
        }
    }
    let fields = [0, blocks.len() as u64, (HEADER_BYTES + frames.len()) as u64];
    let head = crate::sealed::header(ObjectKind::Segment, crate::sealed::suite(true), fields).encode();
    [&head[..], &frames, &index, &vec![7; blocks.len() * 32]].concat()
}
