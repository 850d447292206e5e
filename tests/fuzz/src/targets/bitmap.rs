//! The sector bitmap's stable form.

use crate::fields::flag;
use crate::sealed::mend_bitmap;
use sluice_proto::{Extent, Sector, SectorBitmap, SectorCount};

/// Decodes for a disk of a size that the input chooses; what decodes has one form and no sector beyond the disk.
pub fn run(input: &[u8]) {
    let Some(([flags, size], bytes)) = input.split_first_chunk::<2>() else { return };
    let mut bytes = bytes.to_vec();
    if flag(*flags, 0) {
        mend_bitmap(&mut bytes);
    }
    let power = u32::from(size & 63).min(37);
    let disk = SectorCount((1_u64 << power) - u64::from(flag(*size, 6)));
    let Ok(bitmap) = SectorBitmap::decode(&bytes, disk) else { return };
    assert_eq!(bitmap.encode(), bytes, "two forms of one set");
    let mut count = 0;
    let mut end = None;
    for run in bitmap.runs() {
        assert!(!run.is_empty() && run.is_within(disk), "{run:?}");
        assert!(end.is_none_or(|end: Sector| end < run.start), "runs that touch or do not ascend");
        count += run.len.0;
        end = Some(run.end());
    }
    assert_eq!(bitmap.count(), SectorCount(count));
    assert_eq!(bitmap.is_empty(), count == 0);
    assert_eq!(bitmap.last().map(|last| last.next()), end);
    let again = SectorBitmap::from_extents(bitmap.runs());
    assert!(again == bitmap && again.digest() == bitmap.digest());
}

/// Bitmaps of runs, of chunks, and of both.
pub fn seeds() -> Vec<Vec<u8>> {
    let dense = (0..9000).map(|i| Extent::new(i * 2, 1));
    let sets = [
        SectorBitmap::new(),
        SectorBitmap::full(SectorCount(1 << 26)),
        SectorBitmap::from_extents([Extent::new(0, 1), Extent::new(100, 70_000), Extent::new((1 << 22) - 5, 10)]),
        SectorBitmap::from_extents(dense.clone()),
        SectorBitmap::from_extents(dense.chain([Extent::new(65_536, 131_072), Extent::new(1 << 30, 7)])),
    ];
    let mut seeds: Vec<Vec<u8>> = sets.iter().map(|set| [&[0, 37][..], &set.encode()].concat()).collect();
    // A hole in each of many shards: what costs the most memory.
    let holes = SectorBitmap::from_extents((0..20_u64).map(|i| Extent::new((i << 22) + 1, (1 << 22) - 1)));
    seeds.push([&[1, 37][..], &holes.encode()].concat());
    seeds
}
