//! Raw: the disk's bytes and nothing else.

use super::open::{Map, OpenedImage};
use super::{Format, FormatError, FormatErrorKind, Layout, Step};
use sluice_proto::ByteCount;

/// The layout of a raw image is its length: that of the source, to the byte. Its last sector may be partial.
pub(super) fn layout(source: ByteCount) -> Layout {
    Layout { linear_start: Some(0), ..Layout::new(Format::Raw, source, source, source.0) }
}

/// Any bytes are a raw image, as long as there are some.
pub(super) fn open(file_size: u64) -> Result<OpenedImage, FormatError> {
    if file_size == 0 {
        return Err(FormatError::new(FormatErrorKind::Size, "the file is empty: there is no disk in it"));
    }
    Ok(OpenedImage::new(Format::Raw, ByteCount(file_size), file_size, Map::Linear { start: 0 }))
}

/// A longer file: what is new in it reads as zeros.
pub(super) fn grow(file_size: u64, to: ByteCount) -> Vec<Step> {
    if file_size < to.0 { vec![Step::SetLen(to.0), Step::Sync] } else { Vec::new() }
}
