//! The bytes of the target that a test's appliance keeps.

use super::key;
use bytes::Bytes;
use sluice_proto::manifest::Manifest;
use sluice_proto::segment::{BlockDecoder, FrameData, Segment};
use sluice_proto::wire::StoredSegment;
use sluice_proto::{Extent, FormatError, SectorBitmap};
use std::collections::BTreeMap;

/// The bytes of an extent.
pub(crate) fn bytes_of(extent: Extent) -> std::ops::Range<usize> {
    extent.start.offset() as usize..extent.end().offset() as usize
}

/// Writes the segments that `manifest` names to `target`; returns what was written.
pub(super) fn apply(
    manifest: &Manifest,
    segments: &BTreeMap<String, (StoredSegment, Bytes)>,
    target: &mut [u8],
) -> SectorBitmap {
    let mut applied = SectorBitmap::new();
    let mut decoder = BlockDecoder::new(manifest.plan.count());
    for entry in &manifest.segments {
        let (stored, bytes) = &segments[&entry.name()];
        assert_eq!((stored.first, stored.blocks, stored.hash), (entry.first, entry.blocks, entry.hash));
        let segment = Segment::parse(bytes).expect("parsed when it was stored");
        let key = segment.key(&key());
        for position in 0..segment.blocks() as usize {
            let write = |extent, data: FrameData<'_>| -> Result<(), FormatError> {
                match data {
                    FrameData::Bytes(bytes) => target[bytes_of(extent)].copy_from_slice(bytes),
                    FrameData::Zeros => target[bytes_of(extent)].fill(0),
                }
                applied.set(extent);
                Ok(())
            };
            let disk = manifest.disk_bytes.sectors_ceil();
            decoder.decode(&segment, &key, position, disk, write).expect("a block that can be opened");
        }
    }
    applied
}
