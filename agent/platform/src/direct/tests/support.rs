//! What the tests of direct I/O share.

use super::*;

pub const ENGINES: [EngineChoice; 2] = [EngineChoice::Ring, EngineChoice::Threads];

/// Bytes that tell their place.
pub fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8 | 1).collect()
}

/// Reads a range, which must succeed.
pub fn read(disk: &DirectFile, offset: u64, len: usize) -> Vec<u8> {
    let (buf, result) = disk.read_at_blocking(offset, AlignedBuf::new(len), len);
    result.unwrap_or_else(|error| panic!("{error}"));
    buf.to_vec()
}
