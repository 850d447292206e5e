//! New VHDs.

use super::super::layout::{Layout, NewTable, rounded};
use super::super::{Format, vhdx};
use super::BLOCK_BYTES;
use super::footer::{DiskType, FOOTER_BYTES, Footer};
use super::header::{DynamicHeader, HEADER_BYTES};
use sluice_proto::ByteCount;
use sluice_proto::env::Entropy;

/// The disk's bytes and the footer: Azure wants exactly `virtual_size + 512` bytes.
pub(in crate::formats) fn fixed_layout(source: ByteCount, ids: &dyn Entropy, unix_ms: u64) -> Layout {
    let size = rounded(source);
    let footer = Footer::new(DiskType::Fixed, size.0, None, vhdx::new_uuid(ids), unix_ms);
    Layout {
        linear_start: Some(0),
        uuid: Some(footer.uuid),
        tail: Some((size.0, footer.encode().to_vec())),
        ..Layout::new(Format::Vhd, source, size, size.0 + FOOTER_BYTES as u64)
    }
}

/// Footer copy, second header, block table with nothing allocated, footer.
pub(in crate::formats) fn dynamic_layout(source: ByteCount, ids: &dyn Entropy, unix_ms: u64) -> Layout {
    let size = rounded(source);
    let (footer, header) = dynamic_headers(size, ids, unix_ms);
    let table_bytes = (u64::from(header.entries) * 4).next_multiple_of(512);
    let end = header.table_offset + table_bytes;
    let mut front = footer.encode().to_vec();
    front.extend_from_slice(&header.encode());
    Layout {
        uuid: Some(footer.uuid),
        pieces: vec![(0, front)],
        tail: Some((end, footer.encode().to_vec())),
        table: NewTable::VhdFree { offset: header.table_offset, bytes: table_bytes },
        ..Layout::new(Format::VhdDynamic, source, size, end + FOOTER_BYTES as u64)
    }
}

fn dynamic_headers(size: ByteCount, ids: &dyn Entropy, unix_ms: u64) -> (Footer, DynamicHeader) {
    let header_at = FOOTER_BYTES as u64;
    let footer = Footer::new(DiskType::Dynamic, size.0, Some(header_at), vhdx::new_uuid(ids), unix_ms);
    let header = DynamicHeader {
        table_offset: header_at + HEADER_BYTES as u64,
        // At most 1,044,480: `SIZE_MAX` was checked.
        entries: size.0.div_ceil(u64::from(BLOCK_BYTES)) as u32,
        block_bytes: BLOCK_BYTES,
    };
    (footer, header)
}
