//! Making an image hold a larger disk, in place: no data moves, whatever the disk's size.

use super::io::ReadAt;
use super::layout::{check_size, rounded};
use super::{Format, FormatError, FormatErrorKind, Step, raw, vhd, vhdx};
use sluice_proto::ByteCount;
use sluice_proto::env::Entropy;

/// What makes an image of ours, made or last grown for a source of `from` bytes, hold one of `to`; nothing where it does
/// already. `reader` is the image itself, `file_size` its length in bytes. What is new reads as zeros, or as what lay behind
/// the image's end already.
///
/// A crash anywhere leaves a file of which this may be asked again, with the same sizes. Of a dynamic VHD and of both
/// VHDXs each prefix of the steps is an image that opens, with the old size or the new one. A raw image and a fixed VHD
/// may be something in between, so whoever carries the steps out notes before that he does. What a crash left in a
/// dynamic image or in a VHDX's log must be mended before, as [`LiveImage::new`](super::LiveImage::new) does it.
///
/// # Errors
/// `Size` where the format holds no such disk or the disk would shrink; `Corrupt` and others where the image is not what
/// it should be.
pub fn grow(
    format: Format,
    reader: &dyn ReadAt,
    file_size: ByteCount,
    from: ByteCount,
    to: ByteCount,
    ids: &dyn Entropy,
) -> Result<Vec<Step>, FormatError> {
    check_growth(format, from, to)?;
    match format {
        Format::Raw => Ok(raw::grow(file_size.0, to)),
        Format::Vhd => vhd::grow_fixed(reader, file_size.0, rounded(from), rounded(to)),
        Format::VhdDynamic => vhd::grow_dynamic(reader, file_size.0, rounded(to)),
        Format::Vhdx => vhdx::grow_fixed(reader, file_size.0, rounded(from), rounded(to), ids),
        Format::VhdxDynamic => vhdx::grow_dynamic(reader, file_size.0, rounded(to), ids),
    }
}

/// Whether an image of this format may go from one source's size to another, whatever is in it.
///
/// # Errors
/// `Size`: the format holds no such disk, or the disk would shrink.
pub fn check_growth(format: Format, from: ByteCount, to: ByteCount) -> Result<(), FormatError> {
    if to < from {
        let text = format!("the disk would shrink from {from} to {to} bytes: an image of a disk only grows");
        return Err(FormatError::new(FormatErrorKind::Size, text));
    }
    check_size(format, to)
}
