//! The key that all targets know, and what puts checksums and seals right behind it: a fuzzer alone never gets past them.

use sluice_proto::header::{HEADER_BYTES, Header, ObjectKind, Suite};
use sluice_proto::keys::{DataKey, Part};
use sluice_proto::{CycleNo, DiskId, Generation};

/// The disk that the samples in `proto/samples` are of.
pub const DISK: DiskId = DiskId([0x11; 16]);

/// The key that they are sealed with.
pub fn key() -> DataKey {
    DataKey::new([0x22; 32])
}

/// A header like theirs.
pub fn header(kind: ObjectKind, suite: Suite, fields: [u64; 3]) -> Header {
    Header { kind, suite, disk: DISK, generation: Generation(2), cycle: CycleNo(7), salt: [0x33; 32], fields }
}

/// The suite by a flag.
pub fn suite(plain: bool) -> Suite {
    if plain { Suite::Plain } else { Suite::Aes256Gcm }
}

/// Makes the first 128 bytes a header of this magic and version with the right checksum, whatever else they say.
pub fn mend_header(bytes: &mut [u8], magic: &[u8; 8]) {
    let Some(header) = bytes.get_mut(..HEADER_BYTES) else { return };
    header[..8].copy_from_slice(magic);
    header[8..10].copy_from_slice(&1_u16.to_le_bytes());
    header[10] &= 1;
    header[11] = 0;
    header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    header[104..120].fill(0);
    let hash = blake3::hash(&header[..120]);
    header[120..].copy_from_slice(&hash.as_bytes()[..8]);
}

/// Seals `plain` under the header's own key, bound to `aad`.
pub fn seal(header: &Header, part: Part, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = plain.to_vec();
    key().object_key(header).seal(part, aad, &mut out, 0);
    out
}

/// Makes a bitmap's header right for the records behind it.
pub fn mend_bitmap(bytes: &mut [u8]) {
    let Some(records) = bytes.len().checked_sub(32) else { return };
    bytes[..8].copy_from_slice(b"SLBM\x01\0\0\0");
    bytes[8..16].copy_from_slice(&(records as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..16]).update(&bytes[32..]);
    bytes[16..32].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
}
