//! VHDX, fixed and dynamic, by [MS-VHDX]; section numbers in the comments below are that document's.
//!
//! All numbers are little-endian, all checksums CRC-32C. The first MiB holds the file identifier, two headers and two
//! region tables; then come log, metadata, block allocation table (BAT) and data, each at whole MiB.

mod bat;
mod dynamic;
mod grow;
mod guids;
mod header;
mod layout;
mod log;
mod log_entry;
mod metadata;
mod open;
mod overlay;
mod region;
mod session;

pub(super) use bat::Geometry;
pub(super) use dynamic::DynamicVhdx;
pub(super) use grow::{grow_dynamic, grow_fixed};
pub(super) use guids::new_uuid;
pub(super) use layout::{dynamic_layout, fixed_layout};
pub(super) use open::{claims, open};
pub(super) use session::Session;

/// Regions, the log and blocks lie at multiples of this (section 2.2).
const MIB: u64 = 1 << 20;
/// The sector of the log, and of everything that goes through it (section 2.3).
const LOG_SECTOR: u64 = 4096;
/// A file is at most this long: 64 TiB of data and room for tables. Keeps block positions, counted in MiB, in 27 bits.
const FILE_BYTES_MAX: u64 = 80 << 40;

/// The CRC-32C of bytes in which the four at `at`, the checksum's own, count as zeros.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..at]);
    digest.update(&[0; 4]);
    digest.update(&bytes[at + 4..]);
    digest.finalize() as u32
}
