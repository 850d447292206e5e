//! Reads the marks out of a buffer, and clears it, at a cost that follows what was marked.

use super::geometry::{COARSE_PER_GROUP, Geometry, LEAVES_PER_GROUP};
use super::header::{self, FLAG_ALL};
use super::kernel::{Area, Cursor};
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::{Extent, GRAIN_SECTORS};
use std::io;

/// Adds the sectors that `buffer` marks to `dirty`. A buffer may be named by an interval's number: its lowest bit counts.
///
/// Programs may be marking in it meanwhile: what was marked before the call is seen, what is marked during it may be.
pub(super) fn drain(area: &Area, g: &Geometry, buffer: u64, dirty: &mut SectorBitmap) -> io::Result<()> {
    let mut out = Merger { disk: g.sectors, run: Extent::new(0, 0), dirty };
    if header::flags(area, buffer) & FLAG_ALL != 0 {
        out.add(0, g.sectors);
    } else {
        drain_coarse(area, g, buffer, &mut out)?;
        drain_leaves(area, g, buffer, &mut out)?;
    }
    out.flush();
    Ok(())
}

fn drain_coarse(area: &Area, g: &Geometry, buffer: u64, out: &mut Merger<'_>) -> io::Result<()> {
    let base = g.base(buffer);
    let unit = g.coarse_sectors();
    let mut words = area.cursor();
    for group in groups(area, base + g.coarse_sum_at, base + g.coarse_at)? {
        for index in group * COARSE_PER_GROUP..(group + 1) * COARSE_PER_GROUP {
            let bits = words.load(base + g.coarse_at + index)?;
            for_runs(bits, |bit, length| out.add((index * 64 + bit) * unit, length * unit));
        }
    }
    Ok(())
}

fn drain_leaves(area: &Area, g: &Geometry, buffer: u64, out: &mut Merger<'_>) -> io::Result<()> {
    let base = g.base(buffer);
    let (mut keys, mut leaves) = (area.cursor(), area.cursor());
    for group in groups(area, base + g.leaf_sum_at, base + g.coarse_sum_at)? {
        for slot in group * LEAVES_PER_GROUP..((group + 1) * LEAVES_PER_GROUP).min(g.leaves) {
            let Some(grain) = grain_of(&mut keys, g, base, slot)? else { continue };
            for half in 0..2 {
                let bits = leaves.load(base + g.leaves_at + slot * 2 + half)?;
                for_runs(bits, |bit, length| out.add(grain * GRAIN_SECTORS + half * 64 + bit, length));
            }
        }
    }
    Ok(())
}

/// Forgets what `buffer` marks. No program may be using it. Summaries go last, so that a clearing that is broken off
/// leaves marks, never hides them.
pub(super) fn clear(area: &Area, g: &Geometry, buffer: u64) -> io::Result<()> {
    let base = g.base(buffer);
    let (mut keys, mut words) = (area.cursor(), area.cursor());
    for group in groups(area, base + g.leaf_sum_at, base + g.coarse_sum_at)? {
        zero(&mut words, base + g.leaves_at + group * LEAVES_PER_GROUP * 2, LEAVES_PER_GROUP * 2)?;
        if g.hash_bits != 0 {
            zero(&mut keys, base + g.keys_at + group * LEAVES_PER_GROUP / 2, LEAVES_PER_GROUP / 2)?;
        }
    }
    for group in groups(area, base + g.coarse_sum_at, base + g.coarse_at)? {
        zero(&mut words, base + g.coarse_at + group * COARSE_PER_GROUP, COARSE_PER_GROUP)?;
    }
    header::clear_flags(area, buffer);
    zero(&mut words, base + g.leaf_sum_at, g.coarse_at - g.leaf_sum_at)
}

fn zero(words: &mut Cursor<'_>, from: u64, count: u64) -> io::Result<()> {
    (from..from + count).try_for_each(|index| words.store(index, 0))
}

/// True where the buffer marks nothing and has no flag.
pub(super) fn is_empty(area: &Area, g: &Geometry, buffer: u64) -> io::Result<bool> {
    let base = g.base(buffer);
    let groups = groups(area, base + g.leaf_sum_at, base + g.coarse_at)?;
    Ok(header::flags(area, buffer) == 0 && groups.is_empty())
}

/// The groups that a summary's words, `from..to`, name.
fn groups(area: &Area, from: u64, to: u64) -> io::Result<Vec<u64>> {
    let mut cursor = area.cursor();
    let mut found = Vec::new();
    for index in from..to {
        let mut bits = cursor.load(index)?;
        while bits != 0 {
            found.push((index - from) * 64 + u64::from(bits.trailing_zeros()));
            bits &= bits - 1;
        }
    }
    Ok(found)
}

/// The grain whose leaf `slot` is. A key is there before the first bit of its leaf.
fn grain_of(keys: &mut Cursor<'_>, g: &Geometry, base: u64, slot: u64) -> io::Result<Option<u64>> {
    if g.hash_bits == 0 {
        return Ok(Some(slot));
    }
    // Keys are 32-bit values laid down by the CPU, two in a word.
    let [a, b, c, d, e, f, g, h] = keys.load(base + g.keys_at + slot / 2)?.to_ne_bytes();
    let key = if slot.is_multiple_of(2) { [a, b, c, d] } else { [e, f, g, h] };
    Ok(u64::from(u32::from_ne_bytes(key)).checked_sub(1))
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
