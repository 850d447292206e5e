//! What of an initial cycle is on the target already.

use serde::{Deserialize, Serialize};
use sluice_proto::{BlockNo, Digest};

/// Neighbouring segments of an initial cycle. Their hashes are folded into one, so that the ledger of a large disk stays
/// small; what turns out to be another segment in the end is applied again by groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedGroup {
    /// The first block.
    pub first: BlockNo,
    /// How many blocks.
    pub blocks: u64,
    /// How many segments.
    pub segments: u32,
    /// BLAKE3 over the previous fold and the segment's hash, segment by segment.
    pub fold: Digest,
}

impl AppliedGroup {
    /// Segments in a group.
    const SEGMENTS_MAX: u32 = 64;

    /// Adds a segment to the last group, or to a new one.
    pub fn push(groups: &mut Vec<Self>, first: BlockNo, blocks: u64, hash: Digest) {
        match groups.last_mut().filter(|g| g.segments < Self::SEGMENTS_MAX && g.first.0 + g.blocks == first.0) {
            Some(group) => {
                group.blocks += blocks;
                group.segments += 1;
                group.fold = Self::fold(group.fold, hash);
            }
            None => groups.push(Self { first, blocks, segments: 1, fold: Self::fold(Digest([0; 32]), hash) }),
        }
    }

    /// True where these groups ascend, hold no block twice, end where there still are numbers, and are such as
    /// [`Self::push`] makes. Between them may be blocks that turned out to be others in the end.
    pub(super) fn ascend(groups: &[Self]) -> bool {
        let next = |at: Option<u64>, group: &Self| {
            at.filter(|at| *at <= group.first.0).and_then(|_| group.first.0.checked_add(group.blocks))
        };
        let is_whole = |group: &Self| {
            (1..=Self::SEGMENTS_MAX).contains(&group.segments) && u64::from(group.segments) <= group.blocks
        };
        groups.iter().all(is_whole) && groups.iter().fold(Some(0), next).is_some_and(|end| end < u64::MAX)
    }

    /// The first block that no group holds.
    pub fn end(groups: &[Self]) -> BlockNo {
        groups.last().map_or(BlockNo(0), |g| BlockNo(g.first.0 + g.blocks))
    }

    /// Which of these segments (first block, blocks, hash; ascending) these groups hold.
    pub fn present(groups: &[Self], segments: &[(BlockNo, u64, Digest)]) -> Vec<bool> {
        let mut present = vec![false; segments.len()];
        for group in groups {
            let Ok(from) = segments.binary_search_by_key(&group.first, |s| s.0) else { continue };
            let to = from.saturating_add(group.segments as usize).min(segments.len());
            let fold = segments[from..to].iter().fold(Digest([0; 32]), |fold, s| Self::fold(fold, s.2));
            let blocks: u64 = segments[from..to].iter().map(|s| s.1).sum();
            if fold == group.fold && blocks == group.blocks {
                present[from..to].fill(true);
            }
        }
        present
    }

    fn fold(before: Digest, hash: Digest) -> Digest {
        Digest::of(&[before.0, hash.0].concat())
    }
}
