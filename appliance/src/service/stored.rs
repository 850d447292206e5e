//! What an open cycle has in the cache store. A first copy of a large disk has millions of segments: each takes some 100
//! bytes here, and no step goes through all of them.

use sluice_proto::manifest::SegmentEntry;
use sluice_proto::segment::{parse_segment_name, segment_name};
use sluice_proto::wire::StoredSegment;
use sluice_proto::{BlockNo, ByteCount, Digest};
use std::collections::BTreeMap;

/// Segments by their place: the first block, then the part of the attempt's salt that is in the name.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredSegments {
    by_place: BTreeMap<Place, Kept>,
    blocks: u64,
}

type Place = (BlockNo, [u8; 8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    blocks: u32,
    len: u32,
    hash: Digest,
}

impl StoredSegments {
    /// Adds a segment, or replaces the one of its name, which it gives. `Err` for one that is none: such a name or size
    /// was never taken from an agent.
    pub(super) fn insert(&mut self, segment: &StoredSegment) -> Result<Option<StoredSegment>, ()> {
        let place = parse_segment_name(&segment.name).filter(|place| place.0 == segment.first).ok_or(())?;
        let (blocks, len) = (u32::try_from(segment.blocks), u32::try_from(segment.len.0));
        let kept = Kept { blocks: blocks.map_err(drop)?, len: len.map_err(drop)?, hash: segment.hash };
        let before = self.by_place.insert(place, kept);
        self.blocks -= before.map_or(0, |before| u64::from(before.blocks));
        self.blocks += segment.blocks;
        Ok(before.map(|before| told(place, before)))
    }

    /// The segment of this name.
    pub(super) fn get(&self, name: &str) -> Option<StoredSegment> {
        let place = parse_segment_name(name)?;
        self.by_place.get(&place).map(|kept| told(place, *kept))
    }

    /// Forgets the segment of this name.
    pub(super) fn remove(&mut self, name: &str) {
        let removed = parse_segment_name(name).and_then(|place| self.by_place.remove(&place));
        self.blocks -= removed.map_or(0, |removed| u64::from(removed.blocks));
    }

    /// True where the very segment that a manifest names is stored.
    pub(super) fn has(&self, entry: &SegmentEntry) -> bool {
        let salt = entry.salt.0.first_chunk().copied().unwrap_or_default();
        self.by_place.get(&(entry.first, salt)).is_some_and(|kept| {
            (u64::from(kept.blocks), u64::from(kept.len), kept.hash) == (entry.blocks, entry.len.0, entry.hash)
        })
    }

    /// True where nothing is stored.
    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// How many blocks they hold; one that was stored twice counts twice.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Those that begin with this block or behind it, ascending.
    pub(super) fn from(&self, first: BlockNo) -> impl Iterator<Item = StoredSegment> {
        self.by_place.range((first, [0; 8])..).map(|(place, kept)| told(*place, *kept))
    }

    /// How many of these there are, up to `most`.
    pub(super) fn count_from(&self, first: BlockNo, most: usize) -> usize {
        self.by_place.range((first, [0; 8])..).take(most).count()
    }

    /// Those whose names are behind this one, ascending; all of them where it is no segment's name.
    pub(super) fn after(&self, name: &str) -> impl Iterator<Item = StoredSegment> {
        let place = parse_segment_name(name);
        let from = place.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.by_place.range((from, std::ops::Bound::Unbounded)).map(|(place, kept)| told(*place, *kept))
    }

    /// The names of all.
    pub(super) fn names(&self) -> Vec<String> {
        self.by_place.keys().map(|place| name_of(*place)).collect()
    }
}

fn told(place: Place, kept: Kept) -> StoredSegment {
    StoredSegment {
        name: name_of(place),
        first: place.0,
        blocks: u64::from(kept.blocks),
        len: ByteCount(u64::from(kept.len)),
        hash: kept.hash,
    }
}

fn name_of((first, salt): Place) -> String {
    let mut whole = [0; 32];
    whole[..8].copy_from_slice(&salt);
    segment_name(first, &whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: u64, salt: u8, blocks: u64) -> StoredSegment {
        let name = segment_name(BlockNo(first), &[salt; 32]);
        StoredSegment { name, first: BlockNo(first), blocks, len: ByteCount(4096), hash: Digest([salt; 32]) }
    }

    #[test]
    fn segments_are_told_as_they_came_and_in_order() {
        let mut stored = StoredSegments::default();
        let all = [segment(0, 9, 4), segment(4, 1, 2), segment(4, 3, 8), segment(40_000_000, 2, 1)];
        all.iter().rev().for_each(|s| assert_eq!(stored.insert(s), Ok(None)));
        assert_eq!(stored.blocks(), 15);
        assert_eq!(stored.from(BlockNo(0)).collect::<Vec<_>>(), all);
        assert_eq!(stored.from(BlockNo(1)).collect::<Vec<_>>(), all[1..]);
        assert_eq!((stored.count_from(BlockNo(1), 9), stored.count_from(BlockNo(1), 2)), (3, 2));
        assert_eq!(stored.after(&all[1].name).collect::<Vec<_>>(), all[2..]);
        assert_eq!(stored.after("").collect::<Vec<_>>(), all);
        assert_eq!(stored.names(), all.clone().map(|s| s.name));
        let other = StoredSegment { blocks: 3, ..all[0].clone() };
        assert_eq!(stored.insert(&other), Ok(Some(all[0].clone())));
        assert_eq!((stored.get(&other.name), stored.blocks()), (Some(other.clone()), 14));
        stored.remove(&other.name);
        stored.remove("s0000000000-00.seg");
        assert_eq!((stored.get(&other.name), stored.blocks(), stored.is_empty()), (None, 11, false));
    }

    #[test]
    fn a_manifest_must_name_the_very_bytes() {
        let mut stored = StoredSegments::default();
        let segment = segment(7, 5, 2);
        stored.insert(&segment).unwrap();
        let entry =
            SegmentEntry { first: BlockNo(7), blocks: 2, len: segment.len, hash: segment.hash, salt: Digest([5; 32]) };
        assert!(stored.has(&entry));
        let others = [
            SegmentEntry { first: BlockNo(8), ..entry.clone() },
            SegmentEntry { blocks: 1, ..entry.clone() },
            SegmentEntry { len: ByteCount(4097), ..entry.clone() },
            SegmentEntry { hash: Digest([6; 32]), ..entry.clone() },
            SegmentEntry { salt: Digest([6; 32]), ..entry.clone() },
        ];
        others.iter().for_each(|other| assert!(!stored.has(other), "{other:?}"));
    }

    #[test]
    fn what_is_no_segment_is_not_taken() {
        let good = segment(7, 5, 2);
        let bad = [
            StoredSegment { name: "s0000000007-00.seg".into(), ..good.clone() },
            StoredSegment { first: BlockNo(8), ..good.clone() },
            StoredSegment { blocks: 1 << 32, ..good.clone() },
            StoredSegment { len: ByteCount(1 << 32), ..good },
        ];
        bad.iter().for_each(|bad| assert_eq!(StoredSegments::default().insert(bad), Err(()), "{bad:?}"));
    }
}
