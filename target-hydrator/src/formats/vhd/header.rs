//! The second header of a dynamic VHD: 1024 bytes, big-endian, that say where the block table is.

use super::super::FormatError;
use super::super::io::{be32, be64, put_be32, put_be64};
use super::footer::checksum;

/// Bytes in a dynamic header.
pub(super) const HEADER_BYTES: usize = 1024;
const COOKIE: &[u8; 8] = b"cxsparse";
const AT_DATA_OFFSET: usize = 8;
const AT_TABLE_OFFSET: usize = 16;
const AT_VERSION: usize = 24;
const AT_ENTRIES: usize = 28;
const AT_BLOCK_BYTES: usize = 32;
const AT_CHECKSUM: usize = 36;
/// Blocks of other sizes are seen in no tool's files; the floor keeps the table of 2040 GiB under 17 MiB.
const BLOCK_BYTES_RANGE: std::ops::RangeInclusive<u32> = 512 << 10..=256 << 20;

/// The fields of a dynamic header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DynamicHeader {
    /// Where the block table starts, in bytes.
    pub(super) table_offset: u64,
    /// How many entries of 4 bytes it has.
    pub(super) entries: u32,
    /// Bytes of data in a block; a power of two.
    pub(super) block_bytes: u32,
}

impl DynamicHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(COOKIE);
        put_be64(&mut bytes, AT_DATA_OFFSET, u64::MAX); // no further header
        put_be64(&mut bytes, AT_TABLE_OFFSET, self.table_offset);
        put_be32(&mut bytes, AT_VERSION, 0x0001_0000);
        put_be32(&mut bytes, AT_ENTRIES, self.entries);
        put_be32(&mut bytes, AT_BLOCK_BYTES, self.block_bytes);
        let sum = checksum(&bytes, AT_CHECKSUM);
        put_be32(&mut bytes, AT_CHECKSUM, sum);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FormatError> {
        if !bytes.starts_with(COOKIE) {
            return Err(FormatError::corrupt("the dynamic VHD's second header (\"cxsparse\") is missing"));
        }
        if checksum(bytes, AT_CHECKSUM) != be32(bytes, AT_CHECKSUM) {
            return Err(FormatError::corrupt("the checksum of the dynamic VHD's second header is wrong"));
        }
        if be32(bytes, AT_VERSION) >> 16 != 1 {
            return Err(FormatError::unsupported("a dynamic VHD with a header of an unknown version"));
        }
        let header = Self {
            table_offset: be64(bytes, AT_TABLE_OFFSET),
            entries: be32(bytes, AT_ENTRIES),
            block_bytes: be32(bytes, AT_BLOCK_BYTES),
        };
        if !header.block_bytes.is_power_of_two() || !BLOCK_BYTES_RANGE.contains(&header.block_bytes) {
            return Err(FormatError::unsupported(format!(
                "a dynamic VHD with blocks of {} bytes (512 KiB to 256 MiB, powers of two, are handled)",
                header.block_bytes
            )));
        }
        Ok(header)
    }

    /// Bytes of the sector bitmap in front of each block's data: a bit a sector, padded to a sector.
    pub(super) fn bitmap_bytes(&self) -> u64 {
        (u64::from(self.block_bytes) / 512 / 8).next_multiple_of(512)
    }
}
