//! The metadata region (section 2.6): block size, disk size, sector sizes, ids.

use super::super::io::{le16, le32, le64, put_le16, put_le32, put_le64, read_array, read_error};
use super::super::{FormatError, ReadAt};
use super::region::Place;
use super::session::Page;
use super::{LOG_SECTOR, MIB, guids};
use sluice_proto::{DISK_SECTORS_MAX, SECTOR_BYTES};
use uuid::Uuid;

/// Bytes in the table; the items come behind it.
const TABLE_BYTES: usize = 64 << 10;
const SIGNATURE: &[u8; 8] = b"metadata";
const AT_COUNT: usize = 10;
const ENTRY_BYTES: usize = 32;
const ENTRIES_MAX: u16 = 2047;
/// The item describes the disk, not the file.
const IS_VIRTUAL_DISK: u32 = 2;
/// Whoever doesn't know the item must not open the file.
const IS_REQUIRED: u32 = 4;
const LEAVE_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 2;

/// What the metadata say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) block_bytes: u32,
    /// True for a fixed disk: blocks are never given back.
    pub(super) leave_allocated: bool,
    pub(super) disk_bytes: u64,
    pub(super) disk_id: Uuid,
    pub(super) logical_sector: u32,
    pub(super) physical_sector: u32,
}

impl Metadata {
    /// The table and the items, for the start of the region.
    pub(super) fn encode(&self) -> Vec<u8> {
        let parameters = u64::from(self.block_bytes) | u64::from(self.leave_allocated) << 32;
        let disk = IS_VIRTUAL_DISK | IS_REQUIRED;
        let items: [(Uuid, Vec<u8>, u32); 5] = [
            (guids::FILE_PARAMETERS, parameters.to_le_bytes().to_vec(), IS_REQUIRED),
            (guids::VIRTUAL_DISK_SIZE, self.disk_bytes.to_le_bytes().to_vec(), disk),
            (guids::VIRTUAL_DISK_ID, self.disk_id.to_bytes_le().to_vec(), disk),
            (guids::LOGICAL_SECTOR, self.logical_sector.to_le_bytes().to_vec(), disk),
            (guids::PHYSICAL_SECTOR, self.physical_sector.to_le_bytes().to_vec(), disk),
        ];
        let mut bytes = vec![0; TABLE_BYTES + 4096];
        bytes[..8].copy_from_slice(SIGNATURE);
        put_le16(&mut bytes, AT_COUNT, items.len() as u16);
        let mut at = TABLE_BYTES;
        for (i, (id, value, flags)) in items.iter().enumerate() {
            let entry = ENTRY_BYTES + i * ENTRY_BYTES;
            guids::put(&mut bytes, entry, *id);
            put_le32(&mut bytes, entry + 16, at as u32);
            put_le32(&mut bytes, entry + 20, value.len() as u32);
            put_le32(&mut bytes, entry + 24, *flags);
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        }
        put_le64(&mut bytes, 16, 0); // reserved
        bytes
    }

    pub(super) fn read(reader: &dyn ReadAt, region: Place) -> Result<Self, FormatError> {
        let items = Items::read(reader, region)?;
        let parameters = items.value::<8>(guids::FILE_PARAMETERS, "file parameters")?;
        let flags = le32(&parameters, 4);
        if flags & HAS_PARENT != 0 {
            return Err(FormatError::unsupported("a differencing VHDX: merge it into its parent first"));
        }
        let metadata = Self {
            block_bytes: le32(&parameters, 0),
            leave_allocated: flags & LEAVE_ALLOCATED != 0,
            disk_bytes: le64(&items.value::<8>(guids::VIRTUAL_DISK_SIZE, "disk size")?, 0),
            disk_id: guids::get(&items.value::<16>(guids::VIRTUAL_DISK_ID, "disk id")?, 0),
            logical_sector: le32(&items.value::<4>(guids::LOGICAL_SECTOR, "logical sector size")?, 0),
            physical_sector: le32(&items.value::<4>(guids::PHYSICAL_SECTOR, "physical sector size")?, 0),
        };
        metadata.check()?;
        Ok(metadata)
    }

    fn check(&self) -> Result<(), FormatError> {
        let wrong = |text: String| Err(FormatError::corrupt(format!("the VHDX metadata name {text}")));
        if !self.block_bytes.is_power_of_two() || !(MIB..=256 * MIB).contains(&u64::from(self.block_bytes)) {
            return wrong(format!("blocks of {} bytes", self.block_bytes));
        }
        if ![512, 4096].contains(&self.logical_sector) || ![512, 4096].contains(&self.physical_sector) {
            return wrong(format!("sectors of {} and {} bytes", self.logical_sector, self.physical_sector));
        }
        let size = self.disk_bytes;
        if size == 0 || size > DISK_SECTORS_MAX * SECTOR_BYTES || !size.is_multiple_of(u64::from(self.logical_sector)) {
            return wrong(format!("a disk of {size} bytes: not a whole number of sectors up to 64 TiB"));
        }
        Ok(())
    }
}

/// The sector of the metadata that holds the disk's size, with another size in it.
pub(super) fn resized(reader: &dyn ReadAt, region: Place, disk_bytes: u64) -> Result<Page, FormatError> {
    let at = Items::read(reader, region)?.place::<8>(guids::VIRTUAL_DISK_SIZE, "disk size")?;
    let (start, within) = (at / LOG_SECTOR * LOG_SECTOR, (at % LOG_SECTOR) as usize);
    if within + 8 > LOG_SECTOR as usize {
        return Err(FormatError::unsupported("the VHDX has its disk's size in two sectors"));
    }
    let mut page = read_array::<{ LOG_SECTOR as usize }>(reader, start, "VHDX metadata")?;
    put_le64(&mut page[..], within, disk_bytes);
    Ok((start, page))
}

/// The metadata table; items are read when they are asked for.
struct Items<'a> {
    reader: &'a dyn ReadAt,
    region: Place,
    table: Box<[u8; TABLE_BYTES]>,
    count: usize,
}

impl<'a> Items<'a> {
    fn read(reader: &'a dyn ReadAt, region: Place) -> Result<Self, FormatError> {
        let table = read_array::<TABLE_BYTES>(reader, region.offset, "VHDX metadata table")?;
        let count = le16(&table[..], AT_COUNT);
        if !table.starts_with(SIGNATURE) || count > ENTRIES_MAX {
            return Err(FormatError::corrupt("the VHDX metadata table is damaged"));
        }
        let items = Self { reader, region, table, count: usize::from(count) };
        items.refuse_unknown()?;
        items.refuse_shared()?;
        Ok(items)
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.table.chunks_exact(ENTRY_BYTES).skip(1).take(self.count)
    }

    fn refuse_unknown(&self) -> Result<(), FormatError> {
        let known = [
            guids::FILE_PARAMETERS,
            guids::VIRTUAL_DISK_SIZE,
            guids::VIRTUAL_DISK_ID,
            guids::LOGICAL_SECTOR,
            guids::PHYSICAL_SECTOR,
            guids::PARENT_LOCATOR,
        ];
        let required = |entry: &&[u8]| le32(entry, 24) & IS_REQUIRED != 0 && !known.contains(&guids::get(entry, 0));
        let Some(unknown) = self.entries().find(required) else { return Ok(()) };
        let id = guids::get(unknown, 0);
        Err(FormatError::unsupported(format!("the VHDX requires metadata item {id}, which is unknown")))
    }

    /// No two items may share bytes: to write one, as a disk that grows its size, would change the other.
    fn refuse_shared(&self) -> Result<(), FormatError> {
        let place = |entry: &[u8]| Place { offset: le32(entry, 16).into(), length: le32(entry, 20).into() };
        let mut places: Vec<_> = self.entries().map(place).filter(|place| place.length > 0).collect();
        places.sort_unstable_by_key(|place| place.offset);
        let Some([first, second]) = places.array_windows().find(|[first, second]| first.overlaps(*second)) else {
            return Ok(());
        };
        let (at, next) = (first.offset, second.offset);
        Err(FormatError::corrupt(format!("the VHDX metadata put items at {at} and {next}, which share bytes")))
    }

    fn value<const N: usize>(&self, id: Uuid, what: &str) -> Result<[u8; N], FormatError> {
        let at = self.place::<N>(id, what)?;
        let mut value = [0; N];
        self.reader.read_at(at, &mut value).map_err(|e| read_error("VHDX metadata", at, e))?;
        Ok(value)
    }

    /// The byte of the file at which the item's `N` bytes start.
    fn place<const N: usize>(&self, id: Uuid, what: &str) -> Result<u64, FormatError> {
        let mut entries = self.entries().filter(|entry| guids::get(entry, 0) == id);
        let Some(entry) = entries.next() else {
            return Err(FormatError::corrupt(format!("the VHDX metadata lack the {what}")));
        };
        if entries.next().is_some() {
            return Err(FormatError::corrupt(format!("the VHDX metadata name the {what} twice")));
        }
        let (offset, length) = (u64::from(le32(entry, 16)), le32(entry, 20) as usize);
        let at = self.region.offset + offset;
        if length != N || offset < TABLE_BYTES as u64 || !self.region.holds(at, N as u64) {
            return Err(FormatError::corrupt(format!("the VHDX metadata put the {what} ({length} bytes) at {offset}")));
        }
        Ok(at)
    }
}
