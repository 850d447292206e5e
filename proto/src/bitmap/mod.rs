//! The sector bitmap: one bit per 512-byte sector, in memory proportional to what is dirty.
//!
//! A disk may have 2^37 sectors (64 TiB), of which a cycle touches few or all. The bitmap is a map from shards of 2 GiB
//! to what is dirty in them; a shard that is dirty all over costs one map entry.

mod codec;
mod runs;
mod shard;
#[cfg(test)]
mod tests;

pub use codec::BitmapError;
pub use runs::Runs;

use crate::{Extent, GRAIN_SECTORS, Sector, SectorCount};
use shard::{SHARD_BITS, SHARD_LAST, Shard};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// The first sector that cannot be held: 2^54, the last that Linux can address with a signed 64-bit byte offset. What
/// lies beyond is not a sector of any device and is dropped.
const SECTOR_LIMIT: u64 = 1 << 54;

/// A set of sectors of one disk.
///
/// Two bitmaps are equal where they hold the same sectors, however they came to be; so are their encoded forms and
/// digests.
#[derive(Clone, Default)]
pub struct SectorBitmap {
    /// By shard number (sector / 2^22). No shard is empty.
    shards: BTreeMap<u32, Shard>,
}

impl SectorBitmap {
    /// No sector.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every sector of a disk of this size.
    pub fn full(disk: SectorCount) -> Self {
        Self::from_extents([Extent::new(0, disk.0)])
    }

    /// The sectors of these extents, which may overlap and come in any order.
    pub fn from_extents(extents: impl IntoIterator<Item = Extent>) -> Self {
        let mut bitmap = Self::new();
        bitmap.extend(extents);
        bitmap
    }

    /// Adds the sectors of `extent`.
    pub fn set(&mut self, extent: Extent) {
        for (key, range) in pieces(extent) {
            match self.shards.get_mut(&key) {
                Some(shard) => shard.set(range),
                None => drop(self.shards.insert(key, Shard::with(range))),
            }
        }
    }

    /// Takes the sectors of `extent` away.
    pub fn clear(&mut self, extent: Extent) {
        let Some((first, last)) = shard_span(extent) else { return };
        let touched: Vec<u32> = self.shards.range(first..=last).map(|(key, _)| *key).collect();
        for key in touched {
            let Some(shard) = self.shards.get_mut(&key) else { continue };
            let some_left = piece(extent, key).is_none_or(|range| shard.clear(range));
            if !some_left {
                self.shards.remove(&key);
            }
        }
    }

    /// True where `sector` is in the set.
    pub fn contains(&self, sector: Sector) -> bool {
        let within = (sector.0 as u32) & SHARD_LAST;
        key_of(sector.0).and_then(|key| self.shards.get(&key)).is_some_and(|shard| shard.contains(within))
    }

    /// True where the sets have a sector in common.
    pub fn intersects(&self, other: &Self) -> bool {
        let (few, many) = if self.shards.len() <= other.shards.len() { (self, other) } else { (other, self) };
        few.shards.iter().any(|(key, shard)| many.shards.get(key).is_some_and(|met| shard.intersects(met)))
    }

    /// Adds the sectors of `other`.
    pub fn union_with(&mut self, other: &Self) {
        for (key, others) in &other.shards {
            match self.shards.get_mut(key) {
                Some(shard) => shard.union_with(others),
                None => drop(self.shards.insert(*key, others.clone())),
            }
        }
    }

    /// Adds the sectors of one shard.
    fn add_shard(&mut self, key: u32, others: Shard) {
        match self.shards.get_mut(&key) {
            Some(shard) => shard.union_with(&others),
            None => drop(self.shards.insert(key, others)),
        }
    }

    /// Takes the sectors of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.shards.retain(|key, shard| other.shards.get(key).is_none_or(|others| shard.subtract(others)));
    }

    /// Keeps only the sectors that are in `other` too.
    pub fn intersect_with(&mut self, other: &Self) {
        self.shards.retain(|key, shard| other.shards.get(key).is_some_and(|others| shard.intersect_with(others)));
    }

    /// Drops every sector at or beyond `disk`.
    pub fn truncate(&mut self, disk: SectorCount) {
        self.clear(Extent::new(disk.0, SECTOR_LIMIT.saturating_sub(disk.0)));
    }

    /// True where no sector is in the set.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// How many sectors are in the set.
    pub fn count(&self) -> SectorCount {
        SectorCount(self.shards.values().map(Shard::count).sum())
    }

    /// The longest possible runs of sectors, ascending: between any two is a sector that is not in the set.
    pub fn runs(&self) -> Runs<'_> {
        self.runs_in(Extent::new(0, SECTOR_LIMIT))
    }

    /// The runs of those sectors of the set that are in `extent`, ascending.
    pub fn runs_in(&self, extent: Extent) -> Runs<'_> {
        Runs::new(&self.shards, clip(extent))
    }

    /// The lowest sector.
    pub fn first(&self) -> Option<Sector> {
        self.shards.first_key_value().map(|(key, shard)| Sector(start_of(*key) + u64::from(shard.first())))
    }

    /// The highest sector.
    pub fn last(&self) -> Option<Sector> {
        self.shards.last_key_value().map(|(key, shard)| Sector(start_of(*key) + u64::from(shard.last())))
    }

    /// The sectors of all grains that hold a sector of the set. The disk's last grain may be short: nothing at or beyond
    /// `disk` is in the result.
    #[must_use]
    pub fn round_to_grains(&self, disk: SectorCount) -> Self {
        let mut rounded = Self::new();
        for run in self.runs() {
            let start = run.start.grain() * GRAIN_SECTORS;
            let end = run.end().0.next_multiple_of(GRAIN_SECTORS).min(disk.0);
            rounded.set(Extent::new(start, end.saturating_sub(start)));
        }
        rounded
    }

    /// BLAKE3 over the runs: the same for equal sets, however they were built and whatever version encodes them.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("sluice 2026-11 sector bitmap digest v1");
        for run in self.runs() {
            hasher.update(&run.start.0.to_le_bytes());
            hasher.update(&run.len.0.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The stable form that is stored and sent; FORMAT.md and the codec say how it is built.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what `encode` wrote for a disk of `disk` sectors; refuses whatever `encode` would not have written. Takes
    /// time and memory in proportion to the input, and at most some 2.5 MiB per TiB of `disk` besides, which is what a
    /// hole in every shard costs.
    pub fn decode(bytes: &[u8], disk: SectorCount) -> Result<Self, BitmapError> {
        codec::decode(bytes, disk)
    }
}

impl Extend<Extent> for SectorBitmap {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, extents: I) {
        for extent in extents {
            self.set(extent);
        }
    }
}

impl FromIterator<Extent> for SectorBitmap {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        Self::from_extents(extents)
    }
}

impl PartialEq for SectorBitmap {
    fn eq(&self, other: &Self) -> bool {
        self.runs().eq(other.runs())
    }
}

impl Eq for SectorBitmap {}

impl fmt::Debug for SectorBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SectorBitmap({} sectors", self.count())?;
        if let (Some(first), Some(last)) = (self.first(), self.last()) {
            write!(f, " in {first}..={last}")?;
        }
        f.write_str(")")
    }
}

/// The shard that holds `sector`; `None` beyond the limit.
fn key_of(sector: u64) -> Option<u32> {
    if sector < SECTOR_LIMIT { u32::try_from(sector >> SHARD_BITS).ok() } else { None }
}

/// The first sector of a shard.
fn start_of(key: u32) -> u64 {
    u64::from(key) << SHARD_BITS
}

/// The part of `extent` that is below the limit.
fn clip(extent: Extent) -> Extent {
    let start = extent.start.0.min(SECTOR_LIMIT);
    let end = extent.start.0.saturating_add(extent.len.0).min(SECTOR_LIMIT);
    Extent::new(start, end - start)
}

/// The first and the last shard that `extent` touches; `None` where it is empty.
fn shard_span(extent: Extent) -> Option<(u32, u32)> {
    let extent = clip(extent);
    if extent.is_empty() {
        return None;
    }
    Some((key_of(extent.start.0)?, key_of(extent.end().0 - 1)?))
}

/// The part of `extent` in one shard, counted from the shard's start.
fn piece(extent: Extent, key: u32) -> Option<RangeInclusive<u32>> {
    let part = clip(extent).intersect(Extent::new(start_of(key), 1 << SHARD_BITS))?;
    let within = |sector: u64| (sector - start_of(key)) as u32;
    Some(within(part.start.0)..=within(part.end().0 - 1))
}

/// `extent` cut at the edges of shards.
fn pieces(extent: Extent) -> impl Iterator<Item = (u32, RangeInclusive<u32>)> {
    let keys = shard_span(extent).map(|(first, last)| first..=last);
    keys.into_iter().flatten().filter_map(move |key| piece(extent, key).map(|range| (key, range)))
}
