//! Manifests, with and without the key.

use crate::fields::flag;
use crate::sealed::{DISK, key, mend_bitmap, mend_header, seal};
use sluice_proto::cycle::{Consistency, CycleKind, TrackerKind};
use sluice_proto::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use sluice_proto::keys::{Part, TAG_BYTES};
use sluice_proto::manifest::{ClaimedManifest, MANIFEST_BYTES_MAX, Manifest, Previous, SegmentEntry};
use sluice_proto::stream::block_count;
use sluice_proto::{BLOCK_SECTORS, BlockNo, ByteCount, CycleNo, Digest, Extent, Generation, SectorBitmap, SectorCount};

/// Sealed bytes at a manifest's end, and the tag or hash behind them.
const TAIL_BYTES: usize = 65 + TAG_BYTES;
/// Where the bitmap's length stands, counted from the body's start.
const BITMAP_LEN_AT: usize = 56;
/// Bytes of a segment's entry.
const ENTRY_BYTES: u64 = 88;

/// Parses without the key, decodes with it, and encodes again what could be decoded.
pub fn run(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if flag(*flags, 0) {
        mend(*flags, &mut bytes);
    }
    let claimed = ClaimedManifest::parse(&bytes);
    let decoded = Manifest::decode(&bytes, &key());
    if flag(*flags, 0) && flag(*flags, 3) {
        assert_eq!(claimed.is_ok(), decoded.is_ok(), "sealed by the key, and yet {:?}", decoded.err());
    }
    if let Ok(claimed) = &claimed {
        let plan = &claimed.manifest.plan;
        assert!(plan.last().is_none_or(|last| last.0 < claimed.manifest.disk_bytes.sectors_ceil().0));
        let blocks: u64 = claimed.manifest.segments.iter().map(|segment| segment.blocks).sum();
        assert_eq!(blocks, block_count(plan.count()));
        claimed.manifest.segments.iter().for_each(|segment| drop(segment.name()));
    }
    let Ok(manifest) = decoded else { return };
    let again = manifest.encode(&key());
    assert_eq!(Manifest::decode(&again, &key()).expect("our own manifest"), manifest);
}

/// Makes right what the flags ask for: bit 1 the body's length, bit 2 the bitmap's header, bit 3 the seal.
fn mend(flags: u8, bytes: &mut [u8]) {
    let Some(body_len) = bytes.len().checked_sub(HEADER_BYTES + TAIL_BYTES) else { return };
    let sealed_at = HEADER_BYTES + body_len;
    if flag(flags, 1) {
        bytes[80..88].copy_from_slice(&(body_len as u64).to_le_bytes());
    }
    mend_header(bytes, b"SLUICMAN");
    let body = &mut bytes[HEADER_BYTES..sealed_at];
    if flag(flags, 2)
        && let Some(len) = body.get(BITMAP_LEN_AT..BITMAP_LEN_AT + 8)
    {
        let len = usize::try_from(u64::from_le_bytes(std::array::from_fn(|i| len[i]))).unwrap_or(usize::MAX);
        let from = BITMAP_LEN_AT + 8;
        if let Some(bitmap) = from.checked_add(len).and_then(|to| body.get_mut(from..to)) {
            mend_bitmap(bitmap);
        }
    }
    let Ok(header) = Header::decode(ObjectKind::Manifest, bytes) else { return };
    if flag(flags, 3) {
        let (signed, tail) = bytes.split_at_mut(sealed_at);
        // What the last digest is: one of those that there are.
        tail[32] %= 3;
        let sealed = seal(&header, Part { block: u64::MAX, frame: 0 }, signed, &tail[..65]);
        tail[..sealed.len()].copy_from_slice(&sealed);
        if header.suite == Suite::Plain {
            let hash = blake3::hash(&bytes[..sealed_at + 65]);
            bytes[sealed_at + 65..].copy_from_slice(&hash.as_bytes()[..TAG_BYTES]);
        }
    }
}

/// The sample, and manifests of cycles of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let sample = include_bytes!("../../../../proto/samples/v1-manifest");
    let scattered = SectorBitmap::from_extents((0..40).map(|i| Extent::new(i * 97, 1 + i % 5)));
    let whole = SectorBitmap::full(SectorCount(1 << 26));
    let dense = SectorBitmap::from_extents((0..9000).map(|i| Extent::new(i * 2, 1)));
    let mut seeds = vec![[&[0][..], sample].concat(), [&[15][..], sample].concat()];
    seeds.push(flagged(&manifest(Suite::Plain, CycleKind::Initial, 4096, SectorBitmap::full(SectorCount(4096)))));
    seeds.push(flagged(&manifest(Suite::Aes256Gcm, CycleKind::Resync, 4096, scattered)));
    seeds.push(flagged(&manifest(Suite::Plain, CycleKind::Delta, 1 << 20, dense)));
    seeds.push(flagged(&manifest(Suite::Aes256Gcm, CycleKind::Final, 1 << 37, SectorBitmap::new())));
    // Its segments are missing: a full disk would need too many of them.
    seeds.push(flagged(&Manifest { segments: vec![], ..manifest(Suite::Plain, CycleKind::Initial, 1 << 26, whole) }));
    seeds
}

/// The largest manifest that is permitted: a full disk in segments of one block, up to a few bytes.
pub fn largest() -> Vec<u8> {
    let room = usize::try_from(MANIFEST_BYTES_MAX).expect("64 bits") - HEADER_BYTES - TAIL_BYTES - 1024;
    let blocks = room as u64 / ENTRY_BYTES;
    let sectors = blocks * BLOCK_SECTORS;
    let entry = |first| SegmentEntry { blocks: 1, ..entry(first, blocks) };
    let whole = SectorBitmap::full(SectorCount(sectors));
    let small = manifest(Suite::Aes256Gcm, CycleKind::Initial, sectors, whole);
    Manifest { segments: (0..blocks).map(entry).collect(), ..small }.encode(&key())
}

/// Reads it, with the key and without, in a process that gets no more memory than `bytes_max` from then on, the manifest
/// itself included.
///
/// # Errors
/// A kernel that refuses the limit. Where memory runs out the process aborts.
pub fn read_largest(bytes_max: u64) -> nix::Result<()> {
    let bytes = largest();
    let len = bytes.len() as u64;
    assert!(len <= MANIFEST_BYTES_MAX && len > MANIFEST_BYTES_MAX - 2048, "{len} bytes");
    crate::limit_memory(bytes_max)?;
    drop(ClaimedManifest::parse(&bytes).expect("our own manifest"));
    let manifest = Manifest::decode(&bytes, &key()).expect("our own manifest");
    assert_eq!(manifest.segments.len() as u64, block_count(manifest.plan.count()));
    Ok(())
}

fn flagged(manifest: &Manifest) -> Vec<u8> {
    [&[15][..], &manifest.encode(&key())].concat()
}

fn manifest(suite: Suite, kind: CycleKind, sectors: u64, plan: SectorBitmap) -> Manifest {
    let blocks = block_count(plan.count());
    let last = matches!(kind, CycleKind::Final);
    Manifest {
        disk: DISK,
        generation: Generation(2),
        cycle: CycleNo(7),
        suite,
        salt: [0x33; 32],
        kind,
        consistency: if last { Consistency::Crash } else { Consistency::Fuzzy },
        tracker: if last { TrackerKind::Ebpf } else { TrackerKind::Scan },
        disk_bytes: SectorCount(sectors).bytes(),
        previous: last.then_some(Previous { cycle: CycleNo(6), manifest: Digest([4; 32]) }),
        segments: (0..blocks).step_by(16_384).map(|first| entry(first, blocks)).collect(),
        plan,
        digest: Digest([7; 32]),
        whole_disk: last.then_some(Digest([8; 32])),
        comparison: matches!(kind, CycleKind::Resync).then_some(Digest([9; 32])),
    }
}

fn entry(first: u64, blocks: u64) -> SegmentEntry {
    let (len, hash, salt) = (ByteCount(900), Digest([6; 32]), Digest([0x33; 32]));
    SegmentEntry { first: BlockNo(first), blocks: (blocks - first).min(16_384), len, hash, salt }
}
