//! The table of what has started and not ended, which makes up for ends that the kernel skipped.

use super::kernel::Area;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::{Extent, SectorCount};
use std::io;

/// Buckets for a disk: places for about 80,000 requests or bios in 2 MiB.
pub(super) const BUCKETS: u64 = 16384;
/// Words of a bucket: five entries of address, range and interval, and one that is not used.
pub(super) const BUCKET_WORDS: u64 = 16;
const SLOTS: u64 = 5;
const ENTRY_WORDS: u64 = 3;
/// A range that cannot be said more closely than "all", as in track.bpf.c.
const EVERYTHING: u64 = u64::MAX;
/// After this many intervals an entry is taken for one whose end was skipped, if ends were skipped at all. Until then it
/// is marked with every swap. If its end comes yet, it is settled without the entry.
const INTERVALS_MAX: u64 = 64;

/// Adds what started before the interval `ended` and had not ended, or not visibly, when that interval did. What started
/// within it is marked in it anyway.
pub(super) fn add_unended(table: &Area, ended: u64, sectors: u64, dirty: &mut SectorBitmap) -> io::Result<()> {
    for entry in entries(table)?.into_iter().filter(|entry| entry.interval < ended) {
        let extent = match entry.range {
            EVERYTHING => Extent::new(0, sectors),
            range => Extent::new(range >> 24, range & 0xff_ffff),
        };
        if extent.is_within(SectorCount(sectors)) {
            dirty.set(extent);
        }
    }
    Ok(())
}

/// Takes out what is too old to be in flight.
pub(super) fn purge(table: &Area, ended: u64) -> io::Result<()> {
    let mut cursor = table.cursor();
    let is_old = |entry: &Entry| entry.interval.saturating_add(INTERVALS_MAX) < ended;
    entries(table)?.into_iter().filter(is_old).try_for_each(|entry| cursor.store(entry.at, 0))
}

struct Entry {
    /// The word where it lies.
    at: u64,
    range: u64,
    interval: u64,
}

/// All entries. Programs may be changing them: an entry is put in by a program that marks in a later interval, so what is
/// read of it meanwhile can only mark too much.
fn entries(table: &Area) -> io::Result<Vec<Entry>> {
    let mut cursor = table.cursor();
    let mut found = Vec::new();
    for bucket in 0..table.words() / BUCKET_WORDS {
        for slot in 0..SLOTS {
            let at = bucket * BUCKET_WORDS + slot * ENTRY_WORDS;
            if cursor.load(at)? != 0 {
                found.push(Entry { at, range: cursor.load(at + 1)?, interval: cursor.load(at + 2)? });
            }
        }
    }
    Ok(found)
}
