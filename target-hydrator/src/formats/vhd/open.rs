//! Opening VHDs. Every number in the file is checked against the file's own length before it is used.

use super::super::io::{be32, read_array, read_error};
use super::super::open::{Map, OpenedImage, Severity};
use super::super::table::BlockTable;
use super::super::{Format, FormatError, ReadAt};
use super::dynamic::DynamicVhd;
use super::footer::{DiskType, FOOTER_BYTES, Footer, has_cookie};
use super::header::{DynamicHeader, HEADER_BYTES};
use super::{FREE, SIZE_MAX};
use sluice_proto::{ByteCount, SECTOR_BYTES};

pub(super) type FooterBytes = Box<[u8; FOOTER_BYTES]>;

/// True where the file's last sector, or its first, claims to be a footer.
pub(in crate::formats) fn claims(reader: &dyn ReadAt, file_size: u64) -> Result<bool, FormatError> {
    let Some(tail_at) = file_size.checked_sub(FOOTER_BYTES as u64) else { return Ok(false) };
    Ok(has_cookie(&footer_at(reader, tail_at)?[..]) || has_cookie(&footer_at(reader, 0)?[..]))
}

/// The 512 bytes at `offset` where a footer is expected.
pub(super) fn footer_at(reader: &dyn ReadAt, offset: u64) -> Result<FooterBytes, FormatError> {
    read_array::<FOOTER_BYTES>(reader, offset, "VHD footer")
}

/// Opens a VHD, of the kind that is `wanted` where that is known. The footer at the end counts; where there is none, as
/// after a crash while the file grew, the copy at the start of a dynamic one.
///
/// What stands at either place may be its guest's: the first sector of a fixed one always, the last of a dynamic one when it
/// was cut off behind a block. A guest could make it look like a footer, but does not know the image's own id.
pub(in crate::formats) fn open(
    reader: &dyn ReadAt,
    file_size: u64,
    wanted: Option<Format>,
) -> Result<OpenedImage, FormatError> {
    let Some(tail_at) = file_size.checked_sub(FOOTER_BYTES as u64) else {
        return Err(FormatError::not_this(format!("not a VHD: the file has only {file_size} bytes")));
    };
    let tail = footer_at(reader, tail_at)?;
    let head = footer_at(reader, 0)?;
    let (tail_footer, head_footer) = (Footer::decode(&tail), Footer::decode(&head));
    let is_stranger = |footer: &Footer, copy: &Footer| match footer.kind {
        DiskType::Fixed => wanted == Some(Format::VhdDynamic),
        _ => footer.uuid != copy.uuid,
    };
    match (tail_footer, head_footer) {
        (Ok(footer), Ok(copy)) if copy.kind == DiskType::Dynamic && is_stranger(&footer, &copy) => {
            open_dynamic(reader, file_size, copy, head, [true, false])
        }
        (Ok(footer), _) if footer.kind == DiskType::Fixed => open_fixed(&footer, file_size),
        (Ok(footer), head_footer) => {
            let head_ok = head_footer.is_ok_and(|copy| copy == footer);
            open_dynamic(reader, file_size, footer, tail, [head_ok, true])
        }
        (Err(_), Ok(copy)) if copy.kind == DiskType::Dynamic => {
            open_dynamic(reader, file_size, copy, head, [true, false])
        }
        (Err(e), _) => Err(e),
    }
}

fn check_disk_size(size: u64) -> Result<(), FormatError> {
    if size == 0 || !size.is_multiple_of(SECTOR_BYTES) || size > SIZE_MAX {
        return Err(FormatError::corrupt(format!(
            "the VHD footer names a disk of {size} bytes: not a whole number of sectors up to 2040 GiB"
        )));
    }
    Ok(())
}

fn describe(image: &mut OpenedImage, footer: &Footer) {
    let size = footer.current_size;
    image.uuid = Some(footer.uuid);
    image.facts.push(("creator", footer.creator.escape_ascii().to_string()));
    image.facts.push(("made (Unix seconds)", footer.unix_s().to_string()));
    if !size.is_multiple_of(1 << 20) {
        image.find(Severity::Warning, format!("the disk has {size} bytes, no whole number of MiB: Azure refuses it"));
    }
}

fn open_fixed(footer: &Footer, file_size: u64) -> Result<OpenedImage, FormatError> {
    let size = footer.current_size;
    check_disk_size(size)?;
    let data = file_size - FOOTER_BYTES as u64;
    if size > data {
        return Err(FormatError::corrupt(format!(
            "the VHD footer names a disk of {size} bytes, but the file has only {data} before it"
        )));
    }
    let map = Map::Linear { start: 0 };
    let mut image = OpenedImage::new(Format::Vhd, ByteCount(size), file_size, map);
    describe(&mut image, footer);
    if size < data {
        let text = format!("{} bytes between the disk's end and the footer belong to nothing", data - size);
        image.find(Severity::Warning, text);
    }
    Ok(image)
}

fn open_dynamic(
    reader: &dyn ReadAt,
    file_size: u64,
    footer: Footer,
    bytes: FooterBytes,
    [head_ok, tail_ok]: [bool; 2],
) -> Result<OpenedImage, FormatError> {
    let size = footer.current_size;
    check_disk_size(size)?;
    let header_at = footer.data_offset;
    if !header_at.is_multiple_of(SECTOR_BYTES) || header_at > file_size {
        return Err(FormatError::corrupt(format!("the VHD footer puts the second header at byte {header_at}")));
    }
    let header = DynamicHeader::decode(&*read_array::<HEADER_BYTES>(reader, header_at, "VHD's second header")?)?;
    let (table, end) = read_blocks(reader, file_size, &footer, &header)?;
    let present = table.used().count();
    let blocks = table.blocks();
    let block_bytes = header.block_bytes;
    let map = DynamicVhd::new(header, table, bytes, end, [head_ok, tail_ok]);
    let mut image = OpenedImage::new(Format::VhdDynamic, ByteCount(size), file_size, Map::Vhd(map));
    describe(&mut image, &footer);
    image.facts.push(("block size", format!("{block_bytes} bytes")));
    image.facts.push(("blocks present", format!("{present} of {blocks}")));
    if !tail_ok {
        let text = "the footer at the file's end is missing, as after a crash while the file grew; its copy was used";
        image.find(Severity::Warning, text);
    }
    if !head_ok {
        image.find(Severity::Warning, "the copy of the footer at the file's start is missing or differs");
    }
    Ok(image)
}

/// The block table, checked, and the end of what is in use in the file.
pub(super) fn read_blocks(
    reader: &dyn ReadAt,
    file_size: u64,
    footer: &Footer,
    header: &DynamicHeader,
) -> Result<(BlockTable, u64), FormatError> {
    let table = read_table(reader, file_size, footer.current_size, header)?;
    let headers = [(0, FOOTER_BYTES as u64), (footer.data_offset, HEADER_BYTES as u64)];
    let meta = [headers[0], headers[1], table_place(header, table.blocks())];
    check_apart(meta)?;
    let end = check_places(&table, header, &meta, file_size)?;
    Ok((table, end))
}

fn table_place(header: &DynamicHeader, blocks: u64) -> (u64, u64) {
    (header.table_offset, (blocks * 4).next_multiple_of(SECTOR_BYTES))
}

/// Reads as many entries as the disk needs, in chunks.
fn read_table(
    reader: &dyn ReadAt,
    file_size: u64,
    size: u64,
    header: &DynamicHeader,
) -> Result<BlockTable, FormatError> {
    // `size` and the block size were checked: at most 4,177,920 blocks.
    let blocks = size.div_ceil(u64::from(header.block_bytes));
    let at = header.table_offset;
    let end = at.checked_add(blocks * 4);
    if u64::from(header.entries) < blocks || !at.is_multiple_of(SECTOR_BYTES) || end.is_none_or(|end| end > file_size) {
        return Err(FormatError::corrupt(format!(
            "the VHD's block table ({} entries at byte {at}) is too small for its disk or not in the file",
            header.entries
        )));
    }
    let mut table = BlockTable::new(blocks, FREE);
    let mut chunk = vec![0; 64 << 10];
    for first in (0..blocks).step_by(chunk.len() / 4) {
        let bytes = ((blocks - first) * 4).min(chunk.len() as u64) as usize;
        let from = at + first * 4;
        reader.read_at(from, &mut chunk[..bytes]).map_err(|e| read_error("VHD block table", from, e))?;
        for (block, word) in (first..).zip(chunk[..bytes].chunks_exact(4)) {
            table.set(block, be32(word, 0));
        }
    }
    Ok(table)
}

/// Refuses footer, header and table that share bytes: mending one would destroy another.
fn check_apart(mut meta: [(u64, u64); 3]) -> Result<(), FormatError> {
    meta.sort_unstable();
    match meta.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        None => Ok(()),
        Some(pair) => {
            Err(FormatError::corrupt(format!("two of the VHD's tables share the file's bytes at {}", pair[1].0)))
        }
    }
}

/// Refuses blocks that leave the file, lie on metadata or on each other; gives the end of what is in use.
fn check_places(
    table: &BlockTable,
    header: &DynamicHeader,
    meta: &[(u64, u64)],
    file_size: u64,
) -> Result<u64, FormatError> {
    let len = header.bitmap_bytes() + u64::from(header.block_bytes);
    let mut starts = Vec::new();
    for (block, word) in table.used() {
        let start = u64::from(word) * SECTOR_BYTES;
        if start + len > file_size || meta.iter().any(|(at, bytes)| start < at + bytes && *at < start + len) {
            return Err(FormatError::corrupt(format!(
                "the VHD's table puts block {block} at byte {start}, outside of the file or on its metadata"
            )));
        }
        starts.push(word);
    }
    starts.sort_unstable();
    if let Some(pair) = starts.windows(2).find(|pair| u64::from(pair[1] - pair[0]) * SECTOR_BYTES < len) {
        let at = u64::from(pair[1]) * SECTOR_BYTES;
        return Err(FormatError::corrupt(format!("two of the VHD's blocks share the file's bytes at {at}")));
    }
    let last = starts.last().map_or(0, |word| u64::from(*word) * SECTOR_BYTES + len);
    Ok(meta.iter().map(|(at, bytes)| at + bytes).fold(last, u64::max))
}
