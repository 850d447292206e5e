//! One shard of a bitmap: 2 GiB of disk, either all dirty (which costs nothing) or a roaring bitmap.

use roaring::RoaringBitmap;
use std::ops::RangeInclusive;

/// Sectors in a shard, as a power of two. 2^22 is 64 of roaring's containers: roaring shifts its list of containers at
/// each one that comes or goes in the middle, so a long list makes scattered writes slow and large clears quadratic, and
/// a hole in a full shard brings all its containers into being, which is some 4 KiB at this size.
pub(super) const SHARD_BITS: u32 = 22;
/// Sectors in a shard.
pub(super) const SHARD_SECTORS: u64 = 1 << SHARD_BITS;
/// The last sector within a shard.
pub(super) const SHARD_LAST: u32 = (1 << SHARD_BITS) - 1;

/// Roaring's run containers do not turn into plain bitmaps by themselves, so that scattered writes could cost 16 times
/// a plain bitmap. After so many edits a shard is brought to its smallest form; rare enough to be lost in the cost of
/// the edits themselves.
const EDITS_BEFORE_COMPACTION: u32 = 1024;

/// The dirty sectors of one shard. Never empty: the bitmap drops a shard that becomes so.
#[derive(Clone)]
pub(super) struct Shard {
    /// The dirty sectors counted from the shard's start; `None` where every one is. It may hold all of them too, until
    /// the next compaction.
    bits: Option<RoaringBitmap>,
    /// Edits since the last compaction.
    edits: u32,
}

impl Shard {
    /// Every sector.
    pub(super) const FULL: Self = Self { bits: None, edits: 0 };

    /// The sectors of `range`, which is not empty.
    pub(super) fn with(range: RangeInclusive<u32>) -> Self {
        let mut shard = Self { bits: Some(RoaringBitmap::new()), edits: 0 };
        shard.set(range);
        shard
    }

    /// A shard with these bits; `None` where there are none.
    pub(super) fn from_bits(bits: RoaringBitmap) -> Option<Self> {
        let mut shard = Self { bits: Some(bits), edits: 0 };
        shard.compact().then_some(shard)
    }

    /// Sets the sectors of `range`, which is not empty.
    pub(super) fn set(&mut self, range: RangeInclusive<u32>) {
        if range == (0..=SHARD_LAST) {
            *self = Self::FULL;
        }
        if let Some(bits) = &mut self.bits {
            bits.insert_range(range);
            self.edited();
        }
    }

    /// Clears `range`. Like every operation that takes away: false where nothing is left, so that the shard must go.
    #[must_use]
    pub(super) fn clear(&mut self, range: RangeInclusive<u32>) -> bool {
        if range == (0..=SHARD_LAST) {
            return false;
        }
        let bits = self.bits.get_or_insert_with(all);
        bits.remove_range(range);
        let some_left = !bits.is_empty();
        self.edited();
        some_left
    }

    pub(super) fn union_with(&mut self, other: &Self) {
        match (&mut self.bits, &other.bits) {
            (None, _) => {}
            (_, None) => *self = Self::FULL,
            (Some(bits), Some(others)) => {
                *bits |= others;
                self.compact();
            }
        }
    }

    #[must_use]
    pub(super) fn subtract(&mut self, other: &Self) -> bool {
        let Some(others) = &other.bits else { return false };
        *self.bits.get_or_insert_with(all) -= others;
        self.compact()
    }

    #[must_use]
    pub(super) fn intersect_with(&mut self, other: &Self) -> bool {
        match (&mut self.bits, &other.bits) {
            (_, None) => return true,
            (None, Some(_)) => *self = other.clone(),
            (Some(bits), Some(others)) => *bits &= others,
        }
        self.compact()
    }

    pub(super) fn intersects(&self, other: &Self) -> bool {
        match (&self.bits, &other.bits) {
            (Some(bits), Some(others)) => !bits.is_disjoint(others),
            // Neither shard is empty, so a full one meets whatever the other holds.
            _ => true,
        }
    }

    pub(super) fn contains(&self, sector: u32) -> bool {
        self.bits.as_ref().is_none_or(|bits| bits.contains(sector))
    }

    pub(super) fn count(&self) -> u64 {
        self.bits.as_ref().map_or(SHARD_SECTORS, RoaringBitmap::len)
    }

    pub(super) fn first(&self) -> u32 {
        self.bits.as_ref().map_or(Some(0), RoaringBitmap::min).unwrap_or(0)
    }

    pub(super) fn last(&self) -> u32 {
        self.bits.as_ref().map_or(Some(SHARD_LAST), RoaringBitmap::max).unwrap_or(0)
    }

    /// The runs that end at or after `from`; the first may begin before it.
    pub(super) fn runs_from(&self, from: u32) -> ShardRuns<'_> {
        let Some(bits) = &self.bits else { return ShardRuns::Full };
        let mut runs = bits.iter();
        runs.advance_to(from);
        ShardRuns::Part(runs)
    }

    /// True where the shard is full and says so without a bitmap.
    #[cfg(test)]
    pub(super) fn is_marker(&self) -> bool {
        self.bits.is_none()
    }

    /// What roaring's containers take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let Some(bits) = &self.bits else { return 0 };
        let held = bits.statistics();
        // The library gives a plain container's size in bits, and an array's as if its values had four bytes each, not two.
        held.n_bytes_array_containers / 2 + held.n_bytes_bitset_containers / 8 + held.n_bytes_run_containers
    }

    fn edited(&mut self) {
        self.edits += 1;
        if self.edits >= EDITS_BEFORE_COMPACTION {
            self.compact();
        }
    }

    /// Brings the shard to its smallest form; false where it is empty.
    fn compact(&mut self) -> bool {
        self.edits = 0;
        let Some(bits) = &mut self.bits else { return true };
        if bits.len() == SHARD_SECTORS {
            *self = Self::FULL;
            return true;
        }
        bits.optimize();
        !bits.is_empty()
    }
}

/// The runs of a shard, counted from its start, ascending.
#[derive(Clone)]
pub(super) enum ShardRuns<'a> {
    /// One run, over everything.
    Full,
    /// Those that are left of roaring's.
    Part(roaring::bitmap::Iter<'a>),
    /// None is left.
    Done,
}

impl Iterator for ShardRuns<'_> {
    type Item = RangeInclusive<u32>;

    fn next(&mut self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::Full => {
                *self = Self::Done;
                Some(0..=SHARD_LAST)
            }
            Self::Part(runs) => runs.next_range(),
            Self::Done => None,
        }
    }
}

fn all() -> RoaringBitmap {
    let mut bits = RoaringBitmap::new();
    bits.insert_range(0..=SHARD_LAST);
    bits
}
