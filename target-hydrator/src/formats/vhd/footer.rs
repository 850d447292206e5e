//! The VHD footer: 512 bytes, big-endian, at the end of every VHD and once more at the start of a dynamic one.
//! Source: Microsoft's "Virtual Hard Disk Image Format Specification", October 2006.

use super::super::FormatError;
use super::super::io::{be32, be64, put_be32, put_be64};
use uuid::Uuid;

/// Bytes in a footer.
pub(in crate::formats) const FOOTER_BYTES: usize = 512;
/// The footer's date counts seconds from 2000-01-01 UTC; this is that day in Unix seconds.
const EPOCH_UNIX_S: u64 = 946_684_800;
/// Stands where a fixed disk has no dynamic header.
const NO_OFFSET: u64 = u64::MAX;

const COOKIE: &[u8; 8] = b"conectix";
const AT_FEATURES: usize = 8;
const AT_VERSION: usize = 12;
const AT_DATA_OFFSET: usize = 16;
const AT_TIME: usize = 24;
const AT_CREATOR: usize = 28;
const AT_CREATOR_VERSION: usize = 32;
const AT_CREATOR_OS: usize = 36;
const AT_ORIGINAL_SIZE: usize = 40;
const AT_CURRENT_SIZE: usize = 48;
const AT_GEOMETRY: usize = 56;
const AT_TYPE: usize = 60;
pub(super) const AT_CHECKSUM: usize = 64;
const AT_UUID: usize = 68;

/// What kind of VHD a footer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskType {
    Fixed,
    Dynamic,
}

/// The fields of a footer that mean something to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) kind: DiskType,
    /// Bytes of the disk when it was made.
    pub(super) original_size: u64,
    /// Bytes of the disk.
    pub(super) current_size: u64,
    /// Where a dynamic disk's second header lies.
    pub(super) data_offset: u64,
    /// Seconds from 2000-01-01 UTC.
    pub(super) time_s: u32,
    /// Four letters of the program that made it. We write "win ": of a program that it doesn't know, QEMU takes the
    /// size from the CHS geometry, which is too small for most disks.
    pub(super) creator: [u8; 4],
    pub(super) uuid: Uuid,
}

impl Footer {
    pub(super) fn new(kind: DiskType, size: u64, data_offset: Option<u64>, uuid: Uuid, unix_ms: u64) -> Self {
        let time_s = (unix_ms / 1000).saturating_sub(EPOCH_UNIX_S);
        Self {
            kind,
            original_size: size,
            current_size: size,
            data_offset: data_offset.unwrap_or(NO_OFFSET),
            time_s: u32::try_from(time_s).unwrap_or(u32::MAX),
            creator: *b"win ",
            uuid,
        }
    }

    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(COOKIE);
        put_be32(&mut bytes, AT_FEATURES, 2); // a reserved bit that is always set
        put_be32(&mut bytes, AT_VERSION, 0x0001_0000);
        put_be64(&mut bytes, AT_DATA_OFFSET, self.data_offset);
        put_be32(&mut bytes, AT_TIME, self.time_s);
        bytes[AT_CREATOR..AT_CREATOR + 4].copy_from_slice(&self.creator);
        put_be32(&mut bytes, AT_CREATOR_VERSION, 0x000a_0000);
        bytes[AT_CREATOR_OS..AT_CREATOR_OS + 4].copy_from_slice(b"Wi2k");
        put_be64(&mut bytes, AT_ORIGINAL_SIZE, self.original_size);
        put_be64(&mut bytes, AT_CURRENT_SIZE, self.current_size);
        let (cylinders, heads, sectors) = geometry(self.current_size / 512);
        bytes[AT_GEOMETRY..AT_GEOMETRY + 2].copy_from_slice(&cylinders.to_be_bytes());
        bytes[AT_GEOMETRY + 2] = heads;
        bytes[AT_GEOMETRY + 3] = sectors;
        put_be32(&mut bytes, AT_TYPE, if self.kind == DiskType::Fixed { 2 } else { 3 });
        bytes[AT_UUID..AT_UUID + 16].copy_from_slice(self.uuid.as_bytes());
        let sum = checksum(&bytes, AT_CHECKSUM);
        put_be32(&mut bytes, AT_CHECKSUM, sum);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Self, FormatError> {
        if !has_cookie(bytes) {
            return Err(FormatError::not_this("not a VHD: no footer (\"conectix\") in the file's last 512 bytes"));
        }
        if checksum(bytes, AT_CHECKSUM) != be32(bytes, AT_CHECKSUM) {
            return Err(FormatError::corrupt("the VHD footer's checksum is wrong"));
        }
        if be32(bytes, AT_VERSION) >> 16 != 1 {
            return Err(FormatError::unsupported(format!("VHD version {:#x} is unknown", be32(bytes, AT_VERSION))));
        }
        let kind = match be32(bytes, AT_TYPE) {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => return Err(FormatError::unsupported("a differencing VHD: merge it into its parent first")),
            other => return Err(FormatError::corrupt(format!("the VHD footer names disk type {other}"))),
        };
        let mut creator = [0; 4];
        creator.copy_from_slice(&bytes[AT_CREATOR..AT_CREATOR + 4]);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[AT_UUID..AT_UUID + 16]);
        Ok(Self {
            kind,
            original_size: be64(bytes, AT_ORIGINAL_SIZE),
            current_size: be64(bytes, AT_CURRENT_SIZE),
            data_offset: be64(bytes, AT_DATA_OFFSET),
            time_s: be32(bytes, AT_TIME),
            creator,
            uuid: Uuid::from_bytes(uuid),
        })
    }

    /// The date it was made, in Unix seconds.
    pub(super) fn unix_s(&self) -> u64 {
        EPOCH_UNIX_S + u64::from(self.time_s)
    }
}

/// True where the bytes claim to be a footer.
pub(super) fn has_cookie(bytes: &[u8]) -> bool {
    bytes.starts_with(COOKIE)
}

/// The one's complement of the sum of all bytes but the checksum's own four, which stand at `at`.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = |part: &[u8]| part.iter().fold(0_u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    !sum(&bytes[..at]).wrapping_add(sum(&bytes[at + 4..]))
}

/// Cylinders, heads and sectors per track for a disk of so many sectors: the specification's appendix, step by step.
/// Above 127 GiB it stays at the largest.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let sectors = sectors.min(65535 * 16 * 255);
    let (mut heads, mut per_track, mut tracks);
    if sectors >= 65535 * 16 * 63 {
        (per_track, heads) = (255, 16);
        tracks = sectors / per_track;
    } else {
        per_track = 17;
        tracks = sectors / per_track;
        heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            (per_track, heads) = (31, 16);
            tracks = sectors / per_track;
        }
        if tracks >= heads * 1024 {
            (per_track, heads) = (63, 16);
            tracks = sectors / per_track;
        }
    }
    ((tracks / heads) as u16, heads as u8, per_track as u8)
}
