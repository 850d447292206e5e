//! Digests of a target's grains, made by the hydrator so that a resync ships differences only.
//!
//! A table is cut into parts, each an object of its own, so that neither end holds a large disk's table in memory. They
//! are sealed: a digest of a grain would let the holder of the cache guess what is in it.

use crate::error::{FormatError, FormatErrorKind, bad};
use crate::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use crate::keys::{DataKey, Part};
use crate::stream::Digest;
use crate::units::{GRAIN_BYTES, GRAIN_SECTORS, SectorCount};

/// Grains in a part: 8 GiB of disk, at most 4 MiB of digests.
pub const PART_GRAINS: u64 = 1 << 17;
/// The digest that stands for a grain of zeros: tables of sparse disks compress to nothing.
pub const ZERO_GRAIN: Digest = Digest([0; 32]);

/// How many grains a disk has; the last may be cut short by the disk's end.
pub fn grain_count(disk: SectorCount) -> u64 {
    disk.0.div_ceil(GRAIN_SECTORS)
}

/// How many parts a disk's table has.
pub fn part_count(disk: SectorCount) -> u64 {
    grain_count(disk).div_ceil(PART_GRAINS)
}

/// The digest of one grain's bytes.
pub fn grain_digest(bytes: &[u8]) -> Digest {
    debug_assert!(bytes.len() as u64 <= GRAIN_BYTES);
    if crate::segment::is_zero(bytes) { ZERO_GRAIN } else { Digest::of(bytes) }
}

/// Bytes at a part's salt's beginning that are the same for all parts of one comparison; the others are drawn for each.
pub const NUMBER_BYTES: usize = 16;

/// The comparison that a part is of: the number that its salt begins with. For one cycle the target may be read twice, by two
/// hydrators, and change in between.
pub fn comparison_of(header: &Header) -> Digest {
    let mut number = header.salt;
    number[NUMBER_BYTES..].fill(0);
    Digest(number)
}

/// Seals part `part` of a table. The header's fields are the part, its number of grains, and the disk's sectors.
pub fn seal_part(header: &Header, key: &DataKey, part: u64, disk: SectorCount, digests: &[Digest]) -> Vec<u8> {
    let header = Header { kind: ObjectKind::Digests, fields: [part, digests.len() as u64, disk.0], ..header.clone() };
    let mut out = header.encode().to_vec();
    let mut body = Vec::with_capacity(digests.len() * 32);
    digests.iter().for_each(|d| body.extend_from_slice(&d.0));
    let packed = zstd::bulk::compress(&body, 1).unwrap_or_default();
    let small = !packed.is_empty() && packed.len() < body.len();
    out.push(u8::from(small));
    out.extend_from_slice(if small { &packed } else { &body });
    let aad = header.encode();
    key.object_key(&header).seal(Part { block: part, frame: 0 }, &aad, &mut out, HEADER_BYTES);
    out
}

/// Opens part `part` of the table of a disk of `disk` sectors.
///
/// # Errors
/// Any [`FormatError`].
pub fn open_part(
    bytes: &[u8],
    key: &DataKey,
    part: u64,
    disk: SectorCount,
) -> Result<(Header, Vec<Digest>), FormatError> {
    let header = Header::decode(ObjectKind::Digests, bytes)?;
    // Nobody makes them so, and whoever holds the cache could: what is said to be equal is not shipped.
    if header.suite == Suite::Plain {
        return bad(FormatErrorKind::Suite, "digests that are not sealed");
    }
    let grains = grain_count(disk).saturating_sub(part.saturating_mul(PART_GRAINS)).min(PART_GRAINS);
    if header.fields != [part, grains, disk.0] || grains == 0 {
        return bad(FormatErrorKind::Misplaced, format!("digests: part {:?} where {part} was due", header.fields));
    }
    let mut opened = Vec::new();
    let place = Part { block: part, frame: 0 };
    key.object_key(&header).open(place, &bytes[..HEADER_BYTES], &bytes[HEADER_BYTES..], &mut opened, "digests")?;
    let Some((packed, body)) = opened.split_first() else { return bad(FormatErrorKind::Truncated, "digests") };
    let expected = grains as usize * 32;
    let table = match packed {
        0 => body.to_vec(),
        // The room is what the part holds, whatever the zstd frame claims.
        _ => zstd::bulk::decompress(body, expected).or_else(|_| bad(FormatErrorKind::Forged, "digests: zstd"))?,
    };
    if table.len() != expected {
        return bad(FormatErrorKind::Truncated, "digests: fewer than the part's grains");
    }
    let digest = |chunk: &[u8]| {
        let mut digest = [0; 32];
        digest.copy_from_slice(chunk);
        Digest(digest)
    };
    Ok((header, table.chunks_exact(32).map(digest).collect()))
}
