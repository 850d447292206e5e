//! Sectors, bytes and extents: numbers that must never be mistaken for each other.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes in a sector: the unit of tracking and of validation, whatever a device's own block size is.
pub const SECTOR_BYTES: u64 = 512;
/// Sectors in a grain (64 KiB): a frame with a payload never leaves one, and resync compares by it.
pub const GRAIN_SECTORS: u64 = 128;
/// Bytes in a grain.
pub const GRAIN_BYTES: u64 = GRAIN_SECTORS * SECTOR_BYTES;
/// Bytes of a cycle's stream in a block: a power of two, so that a block is a whole BLAKE3 subtree.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Sectors of a cycle's stream in a block.
pub const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;
/// The largest disk: 64 TiB, the limit of VHDX (MS-VHDX section 2.6.2.1) in sectors.
pub const DISK_SECTORS_MAX: u64 = (64 << 40) / SECTOR_BYTES;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0)
            }
        }
        impl $name {
            /// The number after this one; saturates at the largest.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    };
}

number!(
    /// The position of a sector on a disk, counted from 0 in units of 512 bytes.
    Sector, "sector "
);
number!(
    /// A count of 512-byte sectors.
    SectorCount, "sectors "
);
number!(
    /// A count of bytes.
    ByteCount, "bytes "
);
number!(
    /// A disk's generation: rises whenever tracking or keys start anew. Each has a data key of its own; a writer with an
    /// older one is refused.
    Generation, "g"
);
number!(
    /// A cycle's number within its disk; rises over generations too, so that a cycle has one name for ever.
    CycleNo, "c"
);
number!(
    /// A block of a cycle's stream: block `k` covers the stream's bytes from `k * BLOCK_BYTES`.
    BlockNo, "block "
);

impl Sector {
    /// Where the sector starts on the disk, in bytes.
    pub fn offset(self) -> u64 {
        self.0 * SECTOR_BYTES
    }
    /// The grain that holds the sector.
    pub fn grain(self) -> u64 {
        self.0 / GRAIN_SECTORS
    }
}

impl SectorCount {
    /// The count in bytes.
    pub fn bytes(self) -> ByteCount {
        ByteCount(self.0 * SECTOR_BYTES)
    }
}

impl ByteCount {
    /// How many sectors hold this many bytes; the last may be partly filled.
    pub fn sectors_ceil(self) -> SectorCount {
        SectorCount(self.0.div_ceil(SECTOR_BYTES))
    }
}

/// A run of sectors: `len` sectors from `start`. Never wraps: `start + len` fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// The first sector.
    pub start: Sector,
    /// How many sectors follow, the first included.
    pub len: SectorCount,
}

impl Extent {
    /// `len` sectors from `start`.
    pub fn new(start: u64, len: u64) -> Self {
        Self { start: Sector(start), len: SectorCount(len) }
    }
    /// The first sector behind the extent.
    pub fn end(self) -> Sector {
        Sector(self.start.0 + self.len.0)
    }
    /// The extent's length in bytes.
    pub fn bytes(self) -> ByteCount {
        self.len.bytes()
    }
    /// True where the extent holds no sector.
    pub fn is_empty(self) -> bool {
        self.len.0 == 0
    }
    /// True where the extent ends at or before `disk` sectors, with no overflow on the way.
    pub fn is_within(self, disk: SectorCount) -> bool {
        self.start.0.checked_add(self.len.0).is_some_and(|end| end <= disk.0)
    }
    /// The part that both extents hold; `None` where there is none.
    pub fn intersect(self, other: Extent) -> Option<Extent> {
        let start = self.start.0.max(other.start.0);
        let end = self.end().0.min(other.end().0);
        (start < end).then(|| Extent::new(start, end - start))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sectors {}..{}", self.start, self.end())
    }
}

/// A disk's identity: a UUID that its first registration made, the same for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub [u8; 16]);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {self}")
    }
}

/// The text was not a disk id: 32 hexadecimal digits, with or without the dashes of a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a disk id: {0:?} (a UUID is expected)")]
pub struct BadDiskId(String);

impl std::str::FromStr for DiskId {
    type Err = BadDiskId;
    fn from_str(text: &str) -> Result<Self, BadDiskId> {
        let bad = || BadDiskId(text.chars().take(64).collect());
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        if digits.len() != 32 || text.len() > 36 {
            return Err(bad());
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let hex = |b: u8| char::from(b).to_digit(16);
            let (Some(high), Some(low)) = (hex(pair[0]), hex(pair[1])) else { return Err(bad()) };
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(id))
    }
}

impl Serialize for DiskId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DiskId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
