//! Where the words of the shared area lie, and how much memory that is.
//!
//! ```text
//! area:   header (512 words) | buffer 0 | buffer 1
//! buffer: leaf summary | coarse summary | coarse bits | keys | leaves
//! ```
//!
//! A *leaf* is the 128 sectors of one grain, two words. While the disk has no more grains than leaves, grain `g` has leaf
//! `g` and there are no keys; a larger disk looks leaves up by hash and keeps `grain + 1` as a 32-bit key for each. A
//! grain that is written whole, or that finds no leaf, is marked by a *coarse bit*. A *summary* bit stands for 64 leaves
//! or 64 coarse words and is set with them, so that an idle disk is found idle, and a busy one drained, without reading
//! what was not touched.

use sluice_proto::units::{GRAIN_SECTORS, SectorCount};

/// Words before the first buffer: what is active, flags, identity.
pub(super) const HEADER_WORDS: u64 = 512;
/// At most 2^20 leaves: 64 GiB of disk precisely, or as many 64 KiB places on a larger one.
pub(super) const LEAF_BITS_MAX: u32 = 20;
/// Fewer leaves than this are never hashed: sixteen neighbours share a stretch, eight stretches are tried.
pub(super) const LEAF_BITS_MIN: u32 = 8;
/// Leaves that share a summary bit.
pub(super) const LEAVES_PER_GROUP: u64 = 64;
/// Coarse words that share a summary bit.
pub(super) const COARSE_PER_GROUP: u64 = 64;
/// Up to 8 TiB a coarse bit is one grain; beyond, two: 4 MiB per TiB for both buffers, then 2.
const COARSE_FINE_GRAINS_MAX: u64 = (8 << 40) / (GRAIN_SECTORS * 512);

/// The layout for one disk; a function of its size and the number of leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Sectors tracked.
    pub sectors: u64,
    /// log2 of the leaf count where leaves are found by hash; 0 = a leaf for each grain.
    pub hash_bits: u32,
    /// Leaves in a buffer.
    pub leaves: u64,
    /// A coarse bit covers `1 << coarse_shift` grains.
    pub coarse_shift: u32,
    /// First word of the summary of leaves, from the buffer's start; likewise the others.
    pub leaf_sum_at: u64,
    /// First word of the summary of coarse words.
    pub coarse_sum_at: u64,
    /// First coarse word.
    pub coarse_at: u64,
    /// First word of keys, two keys each.
    pub keys_at: u64,
    /// First word of leaves, two words each.
    pub leaves_at: u64,
    /// Words in a buffer.
    pub buffer_words: u64,
}

impl Geometry {
    /// The layout for `sectors`, with at most `1 << leaf_bits_max` leaves.
    pub fn new(sectors: SectorCount, leaf_bits_max: u32) -> Self {
        let leaf_bits = leaf_bits_max.clamp(LEAF_BITS_MIN, LEAF_BITS_MAX);
        let grains = sectors.0.div_ceil(GRAIN_SECTORS);
        let hashed = grains > 1 << leaf_bits;
        let leaves = if hashed { 1 << leaf_bits } else { grains.max(1) };
        let coarse_shift = u32::from(grains > COARSE_FINE_GRAINS_MAX);
        let coarse_words = grains.div_ceil(64 << coarse_shift).max(1);

        let mut next = 0;
        // A cache line at least for each section, so that two of them never share one.
        let mut section = |words: u64| {
            let at = next;
            next += words.next_multiple_of(8);
            at
        };
        let leaf_sum_at = section(leaves.div_ceil(LEAVES_PER_GROUP * 64));
        let coarse_sum_at = section(coarse_words.div_ceil(COARSE_PER_GROUP * 64));
        let coarse_at = section(coarse_words.next_multiple_of(COARSE_PER_GROUP));
        let keys_at = section(if hashed { leaves / 2 } else { 0 });
        let leaves_at = section(leaves.next_multiple_of(LEAVES_PER_GROUP) * 2);
        let hash_bits = if hashed { leaf_bits } else { 0 };
        let buffer_words = next;
        Self {
            sectors: sectors.0,
            hash_bits,
            leaves,
            coarse_shift,
            leaf_sum_at,
            coarse_sum_at,
            coarse_at,
            keys_at,
            leaves_at,
            buffer_words,
        }
    }

    /// Words of the whole area.
    pub fn area_words(&self) -> u64 {
        HEADER_WORDS + 2 * self.buffer_words
    }

    /// First word of a buffer: 0 or 1, or an interval's number, whose lowest bit is its buffer.
    pub fn base(&self, buffer: u64) -> u64 {
        HEADER_WORDS + (buffer & 1) * self.buffer_words
    }

    /// Words of the coarse bits, whole groups.
    #[cfg(test)]
    pub fn coarse_words(&self) -> u64 {
        self.keys_at - self.coarse_at
    }

    /// Sectors that a coarse bit stands for.
    pub fn coarse_sectors(&self) -> u64 {
        GRAIN_SECTORS << self.coarse_shift
    }

    /// Kernel memory of the tables.
    #[cfg(test)]
    pub fn kernel_bytes(&self) -> u64 {
        use super::flight::{BUCKET_WORDS, BUCKETS};
        (self.area_words() + BUCKETS * BUCKET_WORDS) * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;

    fn promised(bytes: u64) -> u64 {
        64 * MIB + (2 * MIB as u128 * u128::from(bytes) / u128::from(TIB)) as u64
    }

    fn check(bytes: u64) {
        let geometry = Geometry::new(SectorCount(bytes / 512), LEAF_BITS_MAX);
        let programs = MIB;
        assert!(geometry.kernel_bytes() + programs <= promised(bytes), "{bytes} bytes: {geometry:?}");
        assert!(u32::try_from(geometry.area_words()).is_ok(), "map entries are counted in 32 bits");
    }

    #[test]
    fn memory_is_as_promised_up_to_64_tib() {
        for step in 1..=64 * 16 {
            check(step * TIB / 16);
            check(step * TIB / 16 - 512);
            check(step * TIB / 16 + 65536);
        }
    }

    proptest! {
        #[test]
        fn memory_is_as_promised(sectors in 1..=(64 * TIB / 512)) {
            check(sectors * 512);
        }

        #[test]
        fn every_grain_has_its_place(sectors in 1..=(64 * TIB / 512), leaf_bits in 0u32..24) {
            let g = Geometry::new(SectorCount(sectors), leaf_bits);
            let last_grain = (sectors - 1) / GRAIN_SECTORS;
            prop_assert!((last_grain >> g.coarse_shift) / 64 < g.coarse_words());
            prop_assert!(g.coarse_words() / COARSE_PER_GROUP <= (g.coarse_at - g.coarse_sum_at) * 64);
            prop_assert!(g.leaves.div_ceil(LEAVES_PER_GROUP) <= (g.coarse_sum_at - g.leaf_sum_at) * 64);
            prop_assert!(g.leaves_at + g.leaves * 2 <= g.buffer_words);
            prop_assert!(g.hash_bits != 0 || last_grain < g.leaves);
            prop_assert!(g.hash_bits == 0 || (g.leaves == 1 << g.hash_bits && g.leaves_at - g.keys_at >= g.leaves / 2));
            prop_assert!(last_grain < u64::from(u32::MAX), "a key is grain + 1 in 32 bits");
        }
    }

    #[test]
    fn small_disks_take_little() {
        let gib = Geometry::new(SectorCount(1 << 21), LEAF_BITS_MAX);
        assert_eq!(gib.hash_bits, 0);
        assert!(gib.area_words() * 8 < 600 << 10, "{gib:?}");
    }
}
