//! VHD, fixed and dynamic, as Microsoft specified it in 2006, within Azure's rules for fixed ones.

mod dynamic;
mod footer;
mod grow;
mod header;
mod layout;
mod open;

pub(super) use dynamic::DynamicVhd;
pub(super) use grow::{grow_dynamic, grow_fixed};
pub(super) use layout::{dynamic_layout, fixed_layout};
pub(super) use open::{claims, open};

/// The largest disk in a VHD: 2040 GiB. Azure's limit, and the most that a dynamic one's 32-bit table reaches.
pub(super) const SIZE_MAX: u64 = 2040 << 30;
/// Bytes in a block of the dynamic VHDs that we make: the format's default, and the only one that Azure's tools take.
pub(super) const BLOCK_BYTES: u32 = 2 << 20;
/// The word of a block that is not in the file.
pub(super) const FREE: u32 = u32::MAX;
/// Blocks' data is laid at multiples of this, so that O_DIRECT writes to it work on every device.
pub(super) const DATA_ALIGN: u64 = 4096;
