//! What the three parts of Sluice say to each other and leave on disk for each other.
//!
//! No I/O, no clock, no randomness, no unsafe: bytes and facts come in, bytes and facts go out.
#![forbid(unsafe_code)]

pub mod bitmap;
mod cursor;
pub mod cycle;
mod cycle_codes;
pub mod digests;
pub mod disk;
pub mod env;
pub mod error;
pub mod header;
pub mod keys;
pub mod machine;
pub mod manifest;
#[cfg(test)]
mod samples;
pub mod schedule;
pub mod segment;
pub mod stream;
pub mod units;
pub mod wire;

pub use bitmap::{BitmapError, SectorBitmap};
pub use error::{FormatError, FormatErrorKind};
pub use stream::Digest;
pub use units::{
    BLOCK_BYTES, BLOCK_SECTORS, BlockNo, ByteCount, CycleNo, DISK_SECTORS_MAX, DiskId, Extent, GRAIN_BYTES,
    GRAIN_SECTORS, Generation, SECTOR_BYTES, Sector, SectorCount,
};
