use super::*;
use crate::units::BLOCK_BYTES;
use proptest::prelude::*;

fn by_blocks(bytes: &[u8]) -> Digest {
    let stream = SectorCount(bytes.len() as u64 / SECTOR_BYTES);
    let mut cvs: Vec<(usize, BlockCv)> = bytes
        .chunks(BLOCK_BYTES as usize)
        .enumerate()
        .rev() // any order will do
        .map(|(i, chunk)| {
            let mut hasher = BlockHasher::new(BlockNo(i as u64), stream);
            let (head, tail) = chunk.split_at(chunk.len() / 1024 * 512);
            hasher.update(head);
            hasher.update(tail);
            (i, hasher.finish())
        })
        .collect();
    cvs.reverse();
    let mut digest = StreamDigest::default();
    cvs.into_iter().for_each(|(_, cv)| digest.push(cv));
    digest.finish()
}

#[test]
fn the_digest_is_plain_blake3_at_every_number_of_blocks() {
    let bytes: Vec<u8> = (0..BLOCK_BYTES as usize * 5).map(|i| (i * 31 + i / 977) as u8).collect();
    for sectors in [0, 1, 2, 3, BLOCK_SECTORS - 1, BLOCK_SECTORS, BLOCK_SECTORS + 1, 2 * BLOCK_SECTORS]
        .into_iter()
        .chain((2..5).map(|n| n * BLOCK_SECTORS + 7))
    {
        let part = &bytes[..(sectors * SECTOR_BYTES) as usize];
        assert_eq!(by_blocks(part), Digest::of(part), "{sectors} sectors");
    }
}

#[test]
fn zeros_hash_as_bytes_do() {
    let mut a = BlockHasher::new(BlockNo(3), SectorCount(BLOCK_SECTORS * 9));
    let mut b = BlockHasher::new(BlockNo(3), SectorCount(BLOCK_SECTORS * 9));
    a.update_zeros(200 << 10);
    b.update(&vec![0; 200 << 10]);
    assert_eq!(a.finish(), b.finish());
}

#[test]
fn subtrees_come_to_the_same_digest_wherever_the_stream_is_cut() {
    let cv = |block: u64| BlockCv(Digest::of(&block.to_le_bytes()).0);
    for blocks in 1..=130_u64 {
        let cvs: Vec<BlockCv> = (0..blocks).map(cv).collect();
        let mut one_by_one = StreamDigest::default();
        cvs.iter().for_each(|cv| one_by_one.push(*cv));
        let expected = one_by_one.finish();
        for piece in 1..=blocks {
            for first in [0, piece / 2] {
                let mut digest = StreamDigest::default();
                let (head, tail) = cvs.split_at(first as usize);
                let mut kept = 0;
                let mut at = 0;
                for run in [head].into_iter().chain(tail.chunks(piece as usize)) {
                    let found = subtrees(BlockNo(at), run);
                    kept = kept.max(found.len());
                    found.into_iter().for_each(|subtree| digest.push_subtree(subtree));
                    at += run.len() as u64;
                    assert_eq!(digest.blocks(), at);
                }
                assert_eq!(digest.finish(), expected, "{blocks} blocks in pieces of {piece} behind {first}");
                assert!(kept <= 2 * blocks.ilog2() as usize + 2, "{kept} subtrees of {blocks} blocks");
            }
        }
    }
}

proptest! {
    #[test]
    fn blocks_cover_the_plan_in_order(runs in prop::collection::vec((0u64..40_000, 1u64..20_000), 0..12)) {
        let plan = SectorBitmap::from_extents(runs.into_iter().map(|(start, len)| Extent::new(start * 3, len)));
        let mut sectors = Vec::new();
        for (i, (block, extents)) in Blocks::of(&plan).enumerate() {
            prop_assert_eq!(block.0, i as u64);
            let len: u64 = extents.iter().map(|e| e.len.0).sum();
            prop_assert!(len == BLOCK_SECTORS || block.0 + 1 == block_count(plan.count()));
            sectors.extend(extents.iter().flat_map(|e| e.start.0..e.end().0));
        }
        let expected: Vec<u64> = plan.runs().flat_map(|e| e.start.0..e.end().0).collect();
        prop_assert_eq!(sectors, expected);
    }
}
