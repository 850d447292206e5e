//! New VHDXs: identifier, headers and region tables in the first MiB, then log, metadata, BAT and data.

use super::super::Format;
use super::super::layout::{Layout, LogicalSector, NewTable, rounded};
use super::bat::Geometry;
use super::header::{self, Header};
use super::metadata::Metadata;
use super::region::{self, Place, Regions};
use super::{MIB, guids};
use sluice_proto::ByteCount;
use sluice_proto::env::Entropy;
use uuid::Uuid;

const LOG: Place = Place { offset: MIB, length: MIB };
const METADATA: Place = Place { offset: 2 * MIB, length: MIB };
const BAT_OFFSET: u64 = 3 * MIB;

/// All blocks present from the start, in order, over a sparse file: the position of a sector is arithmetic, and
/// writing never touches metadata. Windows wants the file copied un-sparse before it attaches it.
pub(in crate::formats) fn fixed_layout(source: ByteCount, sector: LogicalSector, ids: &dyn Entropy) -> Layout {
    let size = rounded(source);
    // Small disks get small blocks, since the last block is whole in the file. Larger ones get large blocks: the table
    // of 64 TiB stays under 17 MiB.
    let block_bytes = if size.0 < 1 << 30 { MIB } else { 32 * MIB };
    let (geometry, mut layout) = start(Format::Vhdx, source, block_bytes, sector, ids);
    let data_start = layout.file_size.0;
    layout.file_size.0 += geometry.blocks * geometry.block_bytes;
    layout.linear_start = Some(data_start);
    layout.table = NewTable::VhdxFull { offset: BAT_OFFSET, geometry, data_start };
    layout
}

/// No block present. The table, all zeros, is a hole in the file.
pub(in crate::formats) fn dynamic_layout(source: ByteCount, sector: LogicalSector, ids: &dyn Entropy) -> Layout {
    // 2 MiB waste little where small files lie about; above 4 TiB the table would grow past 16 MiB.
    let block_bytes = if rounded(source).0 <= 4 << 40 { 2 * MIB } else { 32 * MIB };
    start(Format::VhdxDynamic, source, block_bytes, sector, ids).1
}

/// Everything up to the end of the BAT's region.
fn start(
    format: Format,
    source: ByteCount,
    block_bytes: u64,
    sector: LogicalSector,
    ids: &dyn Entropy,
) -> (Geometry, Layout) {
    let size = rounded(source);
    let geometry = Geometry::new(size.0, block_bytes, sector.bytes());
    let bat = Place { offset: BAT_OFFSET, length: geometry.region_bytes() };
    let regions = Regions { bat, metadata: METADATA, taken: vec![LOG, METADATA, bat] };
    let metadata = Metadata {
        block_bytes: block_bytes as u32,
        leave_allocated: format == Format::Vhdx,
        disk_bytes: size.0,
        disk_id: guids::new_uuid(ids),
        logical_sector: sector.bytes(),
        physical_sector: 4096,
    };
    let first = Header {
        sequence: 1,
        file_write: guids::new_uuid(ids),
        data_write: guids::new_uuid(ids),
        log: Uuid::nil(),
        log_length: LOG.length as u32,
        log_offset: LOG.offset,
    };
    let second = Header { sequence: 2, ..first.clone() };
    let layout = Layout {
        uuid: Some(metadata.disk_id),
        pieces: vec![
            (METADATA.offset, metadata.encode()),
            (region::PLACES[0], regions.encode()),
            (region::PLACES[1], regions.encode()),
            (header::place(0), first.encode()),
            (header::place(1), second.encode()),
            (0, header::identifier()),
        ],
        ..Layout::new(format, source, size, regions.bat.end())
    };
    (geometry, layout)
}
