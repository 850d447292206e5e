//! Reads the marks out of a buffer, and clears it, at a cost that follows what was marked.

use super::geometry::{COARSE_PER_GROUP, Geometry, LEAVES_PER_GROUP};
use super::header::{self, FLAG_ALL};
use super::kernel::Area;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::{Extent, GRAIN_SECTORS};

/// Adds the sectors that `buffer` marks to `dirty`. A buffer may be named by an interval's number: its lowest bit counts.
///
/// Programs may be marking in it meanwhile: what was marked before the call is seen, what is marked during it may be.
pub(super) fn drain(area: &Area, geometry: &Geometry, buffer: u64, dirty: &mut SectorBitmap) {
    let mut out = Merger { disk: geometry.sectors, run: Extent::new(0, 0), dirty };
    if header::flags(area, buffer) & FLAG_ALL != 0 {
        out.add(0, geometry.sectors);
        return out.finish();
    }
    let base = geometry.base(buffer);
    let coarse_sectors = geometry.coarse_sectors();
    for group in groups(area, base + geometry.coarse_sum_at, base + geometry.coarse_at) {
        for index in group * COARSE_PER_GROUP..(group + 1) * COARSE_PER_GROUP {
            for_runs(area.load(base + geometry.coarse_at + index), |bit, length| {
                out.add((index * 64 + bit) * coarse_sectors, length * coarse_sectors);
            });
        }
    }
    for group in groups(area, base + geometry.leaf_sum_at, base + geometry.coarse_sum_at) {
        for slot in group * LEAVES_PER_GROUP..((group + 1) * LEAVES_PER_GROUP).min(geometry.leaves) {
            let Some(grain) = grain_of(area, geometry, base, slot) else { continue };
            for half in 0..2 {
                let bits = area.load(base + geometry.leaves_at + slot * 2 + half);
                for_runs(bits, |bit, length| out.add(grain * GRAIN_SECTORS + half * 64 + bit, length));
            }
        }
    }
    out.finish();
}

/// Forgets what `buffer` marks. No program may be using it. Summaries go last, so that a clearing that is broken off
/// leaves marks, never hides them.
pub(super) fn clear(area: &Area, geometry: &Geometry, buffer: u64) {
    let base = geometry.base(buffer);
    let zero = |from: u64, to: u64| (from..to).for_each(|index| area.store(index, 0));
    for group in groups(area, base + geometry.leaf_sum_at, base + geometry.coarse_sum_at) {
        let words = LEAVES_PER_GROUP * 2;
        zero(base + geometry.leaves_at + group * words, base + geometry.leaves_at + (group + 1) * words);
        if geometry.hash_bits != 0 {
            let keys = LEAVES_PER_GROUP / 2;
            zero(base + geometry.keys_at + group * keys, base + geometry.keys_at + (group + 1) * keys);
        }
    }
    for group in groups(area, base + geometry.coarse_sum_at, base + geometry.coarse_at) {
        let at = base + geometry.coarse_at + group * COARSE_PER_GROUP;
        zero(at, at + COARSE_PER_GROUP);
    }
    header::clear_flags(area, buffer);
    zero(base + geometry.leaf_sum_at, base + geometry.coarse_at);
}

/// True where the buffer marks nothing and has no flag.
pub(super) fn is_empty(area: &Area, geometry: &Geometry, buffer: u64) -> bool {
    let base = geometry.base(buffer);
    header::flags(area, buffer) == 0
        && (base + geometry.leaf_sum_at..base + geometry.coarse_at).all(|index| area.load(index) == 0)
}

/// The groups that a summary's words, `from..to`, name.
fn groups(area: &Area, from: u64, to: u64) -> impl Iterator<Item = u64> + '_ {
    (from..to).flat_map(move |index| {
        let mut bits = area.load(index);
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| u64::from(bits.trailing_zeros()))?;
            bits &= bits - 1;
            Some((index - from) * 64 + bit)
        })
    })
}

/// The grain whose leaf `slot` is. A key is there before the first bit of its leaf.
fn grain_of(area: &Area, geometry: &Geometry, base: u64, slot: u64) -> Option<u64> {
    if geometry.hash_bits == 0 {
        return Some(slot);
    }
    // Keys are 32-bit values laid down by the CPU, two in a word.
    let pair = area.load(base + geometry.keys_at + slot / 2).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = pair;
    let key = if slot.is_multiple_of(2) { [a, b, c, d] } else { [e, f, g, h] };
    u64::from(u32::from_ne_bytes(key)).checked_sub(1)
}

/// Calls `f` with position and length of each run of ones.
fn for_runs(mut bits: u64, mut f: impl FnMut(u64, u64)) {
    let mut at = 0;
    while bits != 0 {
        let gap = bits.trailing_zeros();
        bits >>= gap;
        let length = bits.trailing_ones();
        bits = bits.checked_shr(length).unwrap_or(0);
        at += gap;
        f(u64::from(at), u64::from(length));
        at += length;
    }
}

/// Joins runs that follow on each other before they reach the bitmap, and cuts them at the disk's end, where the last
/// grain may reach beyond.
struct Merger<'a> {
    disk: u64,
    run: Extent,
    dirty: &'a mut SectorBitmap,
}

impl Merger<'_> {
    fn add(&mut self, start: u64, length: u64) {
        if start >= self.disk {
            return;
        }
        let length = length.min(self.disk - start);
        if self.run.end().0 == start {
            self.run.len.0 += length;
        } else {
            self.flush();
            self.run = Extent::new(start, length);
        }
    }

    fn flush(&mut self) {
        if !self.run.is_empty() {
            self.dirty.set(self.run);
        }
    }

    fn finish(mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::for_runs;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_the_bits(bits: u64) {
            let mut seen = 0u64;
            for_runs(bits, |at, length| {
                for bit in at..at + length {
                    seen |= 1 << bit;
                }
            });
            prop_assert_eq!(seen, bits);
        }
    }

    #[test]
    fn all_ones_is_one_run() {
        let mut runs = Vec::new();
        for_runs(u64::MAX, |at, length| runs.push((at, length)));
        assert_eq!(runs, [(0, 64)]);
    }
}
