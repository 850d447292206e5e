//! VHDs that become larger.
//!
//! A fixed one gets its new footer at its new end first; the old one's place, which is the disk's from then on, becomes
//! zeros only when the new one is on stable storage. So there is a whole footer at any time, at the old place or at the
//! new end, but in between no reader finds it who doesn't know that the image is being grown.
//!
//! A dynamic one gets a new second header and a new block table behind all that is in the file, and then a footer behind
//! those that names them: until that footer is there, its copy at the file's start counts, with the old header and table.
//! Those stay where they are and are no longer used: 4 bytes for each 2 MiB of the old disk.

use super::super::io::{put_be32, read_array};
use super::super::table::BlockTable;
use super::super::{FormatError, ReadAt, Step};
use super::FREE;
use super::footer::{DiskType, FOOTER_BYTES, Footer};
use super::header::{DynamicHeader, HEADER_BYTES};
use super::open::{footer_at, read_blocks};
use sluice_proto::{ByteCount, SECTOR_BYTES};

/// Bytes of the block table that are written in one step.
const CHUNK: u64 = 1 << 20;

/// The steps for a fixed VHD, whose disk had `from` bytes, both rounded to whole MiB.
pub(in crate::formats) fn grow_fixed(
    reader: &dyn ReadAt,
    file_size: u64,
    from: ByteCount,
    to: ByteCount,
) -> Result<Vec<Step>, FormatError> {
    if from == to {
        return Ok(Vec::new());
    }
    let wipe = [Step::Write(from.0, vec![0; FOOTER_BYTES]), Step::Sync];
    if file_size == to.0 + FOOTER_BYTES as u64 && is_fixed_of(reader, to)? {
        return Ok(wipe.to_vec());
    }
    if file_size < from.0 + FOOTER_BYTES as u64 || !is_fixed_of(reader, from)? {
        return Err(FormatError::corrupt(format!(
            "the VHD has no footer of a fixed disk of {from} bytes, its size before it grew, nor one of {to} at its end"
        )));
    }
    let old = Footer::decode(&*footer_at(reader, from.0)?)?;
    let new = Footer { current_size: to.0, ..old };
    Ok([Step::SetLen(to.0), Step::Write(to.0, new.encode().to_vec()), Step::Sync].into_iter().chain(wipe).collect())
}

/// True where the footer of a fixed disk of `size` bytes stands right behind it.
fn is_fixed_of(reader: &dyn ReadAt, size: ByteCount) -> Result<bool, FormatError> {
    let footer = Footer::decode(&*footer_at(reader, size.0)?);
    Ok(footer.is_ok_and(|footer| footer.kind == DiskType::Fixed && footer.current_size == size.0))
}

/// The steps for a dynamic VHD that was mended, so that both its footers are there and the same.
pub(in crate::formats) fn grow_dynamic(
    reader: &dyn ReadAt,
    file_size: u64,
    to: ByteCount,
) -> Result<Vec<Step>, FormatError> {
    let Some(tail_at) = file_size.checked_sub(FOOTER_BYTES as u64) else {
        return Err(FormatError::not_this(format!("not a VHD: the file has only {file_size} bytes")));
    };
    let footer = Footer::decode(&*footer_at(reader, tail_at)?)?;
    let copy = Footer::decode(&*footer_at(reader, 0)?)?;
    if footer.kind != DiskType::Dynamic || copy != footer {
        return Err(FormatError::corrupt("the two footers of the dynamic VHD are not the same"));
    }
    if footer.current_size >= to.0 {
        return Ok(Vec::new());
    }
    let header_bytes = read_array::<HEADER_BYTES>(reader, footer.data_offset, "VHD's second header")?;
    let header = DynamicHeader::decode(&header_bytes)?;
    let (table, end) = read_blocks(reader, file_size, &footer, &header)?;
    let block_bytes = u64::from(header.block_bytes);
    let new_header = DynamicHeader {
        table_offset: end + HEADER_BYTES as u64,
        // The size was checked: at most 4,177,920 blocks, those of the smallest kind.
        entries: to.0.div_ceil(block_bytes) as u32,
        block_bytes: header.block_bytes,
    };
    let table_bytes = (u64::from(new_header.entries) * 4).next_multiple_of(SECTOR_BYTES);
    let new_footer = Footer { current_size: to.0, data_offset: end, ..footer }.encode().to_vec();
    let tables = (0..table_bytes).step_by(CHUNK as usize).map(|from| {
        let bytes = encode(&table, from / 4, (table_bytes - from).min(CHUNK) / 4);
        Step::Write(new_header.table_offset + from, bytes)
    });
    // Over the footer, whose copy counts meanwhile. The file is not cut off before it: its guest's bytes would be its last.
    let mut steps = vec![Step::SetLen(end + FOOTER_BYTES as u64), Step::Write(end, new_header.encode().to_vec())];
    steps.extend(tables);
    steps.push(Step::Sync);
    let new_end = new_header.table_offset + table_bytes;
    steps.extend([Step::Write(new_end, new_footer.clone()), Step::Sync]);
    steps.extend([Step::Write(0, new_footer), Step::Sync]);
    Ok(steps)
}

/// `count` entries of the table from `first` on; those that it doesn't have are free.
fn encode(table: &BlockTable, first: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![0xff; count as usize * 4];
    for (entry, at) in (first..first + count).zip((0..).step_by(4)) {
        let word = table.get(entry);
        if word != FREE {
            put_be32(&mut bytes, at, word);
        }
    }
    bytes
}
