//! What the three parts of Sluice say to each other and leave on disk for each other.
//!
//! No I/O, no clock, no randomness, no unsafe: bytes and facts come in, bytes and facts go out.
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod env;
pub mod units;

pub use bitmap::{BitmapError, SectorBitmap};
pub use units::{
    BLOCK_BYTES, BLOCK_SECTORS, BlockNo, ByteCount, CycleNo, DISK_SECTORS_MAX, DiskId, Extent, GRAIN_BYTES,
    GRAIN_SECTORS, Generation, SECTOR_BYTES, Sector, SectorCount,
};
