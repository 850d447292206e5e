//! VHDXs that become larger.
//!
//! The disk's size is one number in the metadata, changed through the log, so that there is the old disk or the new one
//! and nothing in between. What the new one needs is in the file before: entries of the table behind those of the old
//! disk, which nobody reads until then, or a whole new table where the old one has no room. That a new table counts is
//! said by the region tables, in the same entry of the log as the size.
//!
//! A fixed image's blocks follow each other, so its new ones begin where the old ones end. A table that was moved behind
//! them moves again when they reach it, and its old place becomes zeros once it no longer counts.

use super::super::io::{is_zero, put_le64};
use super::super::table::BlockTable;
use super::super::{FormatError, ReadAt, Step};
use super::bat::{self, ABSENT, ENTRIES_PER_PAGE, Geometry, pack};
use super::header;
use super::metadata::{self, Metadata};
use super::region::{self, Place, Regions};
use super::session::{Page, Session};
use super::{LOG_SECTOR, MIB};
use sluice_proto::ByteCount;
use sluice_proto::env::Entropy;

/// Entries of the table that are written in one step: 1 MiB.
const CHUNK_ENTRIES: u64 = MIB / 8;

/// An image whose log holds nothing, opened to become larger.
struct Growing<'a> {
    reader: &'a dyn ReadAt,
    session: Session,
    regions: Regions,
    metadata: Metadata,
    table: BlockTable,
    /// The end of what is in use in the file.
    end: u64,
}

impl<'a> Growing<'a> {
    fn open(reader: &'a dyn ReadAt, file_size: u64) -> Result<Self, FormatError> {
        let (place, header) = header::read_current(reader, file_size)?;
        if !header.log.is_nil() {
            return Err(FormatError::corrupt("the VHDX's log must be applied before the image can grow"));
        }
        let log = Place { offset: header.log_offset, length: u64::from(header.log_length) };
        let (regions, _) = region::read(reader, file_size, log)?;
        let metadata = Metadata::read(reader, regions.metadata)?;
        let geometry = geometry(&metadata, metadata.disk_bytes);
        let table = bat::read(reader, regions.bat, &geometry, file_size)?;
        let end = bat::check_places(&table, &geometry, &regions.taken, file_size)?;
        let session = Session::new((place, header), None, file_size);
        Ok(Self { reader, session, regions, metadata, table, end })
    }

    /// Makes `size` the disk's; all that it needs is in the file, which has `file_size` bytes. `pages` go before it.
    fn commit(
        &mut self,
        mut pages: Vec<Page>,
        size: ByteCount,
        file_size: u64,
        ids: &dyn Entropy,
    ) -> Result<Vec<Step>, FormatError> {
        pages.push(metadata::resized(self.reader, self.regions.metadata, size.0)?);
        let mut steps = self.session.begin_writing(ids);
        steps.extend(self.session.commit(pages, file_size, ids));
        Ok(steps)
    }

    /// The sectors that say where the table is, once it is at `bat`.
    fn moved(&self, bat: Place) -> Result<Vec<Page>, FormatError> {
        // Log, metadata and table: another region would be lost, as its entry is not kept.
        if self.regions.taken.len() != 3 {
            return Err(FormatError::unsupported("a VHDX with regions of another program can't grow so far"));
        }
        Ok(Regions { bat, ..self.regions.clone() }.pages())
    }
}

fn geometry(metadata: &Metadata, disk_bytes: u64) -> Geometry {
    Geometry::new(disk_bytes, u64::from(metadata.block_bytes), metadata.logical_sector)
}

/// The steps for a fixed VHDX, whose disk had `from` bytes, both rounded to whole MiB.
pub(in crate::formats) fn grow_fixed(
    reader: &dyn ReadAt,
    file_size: u64,
    from: ByteCount,
    to: ByteCount,
    ids: &dyn Entropy,
) -> Result<Vec<Step>, FormatError> {
    if from == to {
        return Ok(Vec::new());
    }
    let mut image = Growing::open(reader, file_size)?;
    let (old, new) = (geometry(&image.metadata, from.0), geometry(&image.metadata, to.0));
    let Some(start) = bat::linear_start(&image.table, &geometry(&image.metadata, image.metadata.disk_bytes)) else {
        return Err(FormatError::corrupt("the fixed VHDX lacks blocks, or has them out of order"));
    };
    let (old_end, new_end) = (start + old.blocks * old.block_bytes, start + new.blocks * new.block_bytes);
    let added = Place { offset: old_end, length: new_end - old_end };
    // Where an old table lay, if it was moved before: it is never further from the last block than twice its own length, as
    // two moves that both find it behind need more new blocks than that. Else this is new, and zeros anyway.
    let wiped = Place { length: (old.region_bytes() * 3).min(added.length), ..added };
    let wipe = || (wiped.offset..wiped.end()).step_by(MIB as usize).map(|at| Step::Write(at, vec![0; MIB as usize]));
    match image.metadata.disk_bytes {
        size if size == to.0 => return Ok(wipe().chain([Step::Sync]).collect()),
        size if size == from.0 => {}
        size => {
            return Err(FormatError::corrupt(format!(
                "the VHDX holds a disk of {size} bytes, neither {from} nor {to}"
            )));
        }
    }
    let bat = image.regions.bat;
    if image.regions.taken.iter().any(|place| *place != bat && place.overlaps(added)) {
        return Err(FormatError::unsupported("the VHDX has something behind its last block: it can't grow in place"));
    }
    let in_the_way = bat.overlaps(added);
    let was_moved = bat.offset >= old_end;
    let length = new.region_bytes();
    if bat.length >= length && !in_the_way {
        let mut steps = vec![Step::SetLen(new_end.max(image.end)), Step::Sync];
        let pages = full_pages(&old, &new, bat, start);
        steps.extend(image.commit(pages, to, new_end.max(image.end), ids)?);
        if was_moved {
            steps.extend(wipe().chain([Step::Sync]));
        }
        return Ok(steps);
    }
    // Never over the table that is in force, wherever behind the last block it lies.
    let bat = Place { offset: if was_moved { bat.end().max(new_end) } else { new_end }, length };
    let pages = image.moved(bat)?;
    let mut steps = vec![Step::SetLen(bat.end())];
    for first in (0..new.entries()).step_by(CHUNK_ENTRIES as usize) {
        let mut bytes = new.full_entries(first, CHUNK_ENTRIES, start);
        bytes.resize(bytes.len().next_multiple_of(LOG_SECTOR as usize), 0);
        steps.push(Step::Write(bat.offset + first * 8, bytes));
    }
    steps.push(Step::Sync);
    steps.extend(image.commit(pages, to, bat.end(), ids)?);
    if was_moved {
        steps.extend(wipe().chain([Step::Sync]));
    }
    Ok(steps)
}

/// The pages of a full table that have entries which `old` has not, or as those of another block.
fn full_pages(old: &Geometry, new: &Geometry, bat: Place, start: u64) -> Vec<Page> {
    let pages = old.entries() / ENTRIES_PER_PAGE..new.entries().div_ceil(ENTRIES_PER_PAGE);
    let page = |page: u64| {
        let mut bytes = Box::new([0; LOG_SECTOR as usize]);
        let entries = new.full_entries(page * ENTRIES_PER_PAGE, ENTRIES_PER_PAGE, start);
        bytes[..entries.len()].copy_from_slice(&entries);
        (bat.offset + page * LOG_SECTOR, bytes)
    };
    pages.map(page).collect()
}

/// The steps for a dynamic VHDX that was mended, so that its file ends where its table says.
pub(in crate::formats) fn grow_dynamic(
    reader: &dyn ReadAt,
    file_size: u64,
    to: ByteCount,
    ids: &dyn Entropy,
) -> Result<Vec<Step>, FormatError> {
    let mut image = Growing::open(reader, file_size)?;
    if image.metadata.disk_bytes >= to.0 {
        return Ok(Vec::new());
    }
    let new = geometry(&image.metadata, to.0);
    if new.entries() * 8 <= image.regions.bat.length {
        // Behind the old disk's entries nobody has looked before, and what lies there would be blocks of the new one.
        let table = bat::read(reader, image.regions.bat, &new, file_size)?;
        if let Some((block, _)) = table.used().find(|(block, _)| *block >= image.table.blocks()) {
            return Err(FormatError::corrupt(format!(
                "the VHDX block table has an entry for block {block}, behind the disk's end: begin a new target"
            )));
        }
        return image.commit(Vec::new(), to, file_size.max(image.end), ids);
    }
    let bat = Place { offset: image.end, length: new.region_bytes() };
    let pages = image.moved(bat)?;
    // Cut first: what a crash left there would be taken for entries.
    let mut steps = vec![Step::SetLen(bat.offset), Step::SetLen(bat.end())];
    for first in (0..new.entries()).step_by(CHUNK_ENTRIES as usize) {
        let bytes = encode(&image.table, &new, first);
        if !is_zero(&bytes) {
            steps.push(Step::Write(bat.offset + first * 8, bytes));
        }
    }
    steps.push(Step::Sync);
    steps.extend(image.commit(pages, to, bat.end(), ids)?);
    Ok(steps)
}

/// A chunk of a new table's entries, with the blocks that the old one has.
fn encode(table: &BlockTable, geometry: &Geometry, first: u64) -> Vec<u8> {
    let mut bytes = vec![0; MIB as usize];
    for (entry, at) in (first..first + CHUNK_ENTRIES).zip((0..).step_by(8)) {
        let mib = geometry.block(entry).map_or(ABSENT, |block| table.get(block));
        if mib != ABSENT {
            put_le64(&mut bytes, at, pack(u64::from(mib) * MIB));
        }
    }
    bytes
}
