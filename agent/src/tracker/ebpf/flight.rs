//! The table of what has started and not ended, which makes up for ends that the kernel skipped.

use super::kernel::Area;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::Extent;

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
pub(super) fn add_unended(table: &Area, ended: u64, sectors: u64, dirty: &mut SectorBitmap) {
    for (_, range, interval) in entries(table) {
        if interval >= ended {
            continue;
        }
        let extent = match range {
            EVERYTHING => Extent::new(0, sectors),
            range => Extent::new(range >> 24, range & 0xff_ffff),
        };
        if extent.is_within(sluice_proto::units::SectorCount(sectors)) {
            dirty.set(extent);
        }
    }
}

/// Takes out what is too old to be in flight.
pub(super) fn purge(table: &Area, ended: u64) {
    for (at, _, interval) in entries(table) {
        if interval.saturating_add(INTERVALS_MAX) < ended {
            table.store(at, 0);
        }
    }
}

/// Where each entry lies, its range and its interval. Programs may be changing them: an entry is put in by a program that
/// marks in a later interval, so what is read of it meanwhile can only mark too much.
fn entries(table: &Area) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
    let slots = (0..table.words() / BUCKET_WORDS)
        .flat_map(|bucket| (0..SLOTS).map(move |slot| bucket * BUCKET_WORDS + slot * ENTRY_WORDS));
    slots.filter(|at| table.load(*at) != 0).map(|at| (at, table.load(at + 1), table.load(at + 2)))
}
