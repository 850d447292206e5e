//! The region tables (section 2.2.3): where BAT and metadata are. There are two that say the same.

use super::super::io::{le32, le64, put_le32, put_le64, read_array};
use super::super::{FormatError, ReadAt};
use super::session::Page;
use super::{LOG_SECTOR, MIB, checksum, guids};
use uuid::Uuid;

/// Bytes in a region table.
const TABLE_BYTES: usize = 64 << 10;
/// Where the two tables lie.
pub(super) const PLACES: [u64; 2] = [192 << 10, 256 << 10];
const SIGNATURE: &[u8; 4] = b"regi";
const AT_CHECKSUM: usize = 4;
const AT_COUNT: usize = 8;
const AT_ENTRIES: usize = 16;
const ENTRY_BYTES: usize = 32;
const ENTRIES_MAX: u32 = 2047;

/// A part of the file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Place {
    /// The first byte behind it.
    pub(super) fn end(self) -> u64 {
        self.offset + self.length
    }
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }
    /// True where `bytes` from `offset` are all in it.
    pub(super) fn holds(self, offset: u64, bytes: u64) -> bool {
        offset >= self.offset && offset.checked_add(bytes).is_some_and(|end| end <= self.end())
    }
}

/// What the region table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Regions {
    pub(super) bat: Place,
    pub(super) metadata: Place,
    /// All places that are spoken for: the log, the two above and regions that needn't be known.
    pub(super) taken: Vec<Place>,
}

impl Regions {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; TABLE_BYTES];
        bytes[..4].copy_from_slice(SIGNATURE);
        put_le32(&mut bytes, AT_COUNT, 2);
        for (i, (id, place)) in
            [(guids::BAT_REGION, self.bat), (guids::METADATA_REGION, self.metadata)].iter().enumerate()
        {
            let at = AT_ENTRIES + i * ENTRY_BYTES;
            guids::put(&mut bytes, at, *id);
            put_le64(&mut bytes, at + 16, place.offset);
            put_le32(&mut bytes, at + 24, place.length as u32); // at most 513 MiB
            put_le32(&mut bytes, at + 28, 1); // whoever doesn't know it must not open the file
        }
        let sum = checksum(&bytes, AT_CHECKSUM);
        put_le32(&mut bytes, AT_CHECKSUM, sum);
        bytes
    }

    /// The sectors of both tables, for the log.
    pub(super) fn pages(&self) -> Vec<Page> {
        let bytes = self.encode();
        let sectors = |place: u64| (place..).step_by(LOG_SECTOR as usize).zip(bytes.chunks_exact(LOG_SECTOR as usize));
        let page = |(at, sector): (u64, &[u8])| {
            let mut page = Box::new([0; LOG_SECTOR as usize]);
            page.copy_from_slice(sector);
            (at, page)
        };
        PLACES.into_iter().flat_map(sectors).map(page).collect()
    }

    fn decode(bytes: &[u8; TABLE_BYTES], file_size: u64, log: Place) -> Result<Self, FormatError> {
        let count = le32(bytes, AT_COUNT);
        if count > ENTRIES_MAX {
            return Err(FormatError::corrupt(format!("the VHDX region table claims {count} entries")));
        }
        let mut seen = vec![log];
        let (mut bat, mut metadata) = (None, None);
        for entry in bytes[AT_ENTRIES..].chunks_exact(ENTRY_BYTES).take(count as usize) {
            let place = Place { offset: le64(entry, 16), length: u64::from(le32(entry, 24)) };
            let whole = |n: u64| n >= MIB && n.is_multiple_of(MIB);
            let in_file = place.offset.checked_add(place.length).is_some_and(|end| end <= file_size);
            if !whole(place.offset) || !whole(place.length) || !in_file || seen.iter().any(|s| s.overlaps(place)) {
                return Err(FormatError::corrupt(format!(
                    "the VHDX region table names a region of {} bytes at byte {}: not whole MiB within the file, apart \
                     from the others",
                    place.length, place.offset
                )));
            }
            seen.push(place);
            let named_before = match guids::get(entry, 0) {
                guids::BAT_REGION => bat.replace(place),
                guids::METADATA_REGION => metadata.replace(place),
                other => {
                    check_unknown(other, le32(entry, 28))?;
                    None
                }
            };
            if named_before.is_some() {
                return Err(FormatError::corrupt("the VHDX region table names one region twice"));
            }
        }
        let missing = || FormatError::corrupt("the VHDX has no metadata or no block table (BAT)");
        Ok(Self { bat: bat.ok_or_else(missing)?, metadata: metadata.ok_or_else(missing)?, taken: seen })
    }
}

fn check_unknown(id: Uuid, flags: u32) -> Result<(), FormatError> {
    if flags & 1 == 0 {
        return Ok(());
    }
    Err(FormatError::unsupported(format!("the VHDX requires region {id}, which is unknown")))
}

/// The regions, by the first of the two tables that is undamaged; whether both were.
pub(super) fn read(reader: &dyn ReadAt, file_size: u64, log: Place) -> Result<(Regions, bool), FormatError> {
    let mut valid = Vec::new();
    for place in PLACES {
        let bytes = read_array::<TABLE_BYTES>(reader, place, "VHDX region table")?;
        if bytes.starts_with(SIGNATURE) && checksum(&bytes[..], AT_CHECKSUM) == le32(&bytes[..], AT_CHECKSUM) {
            valid.push(bytes);
        }
    }
    let first = valid.first().ok_or_else(|| FormatError::corrupt("both region tables of the VHDX are damaged"))?;
    if valid.last() != Some(first) {
        return Err(FormatError::corrupt("the two region tables of the VHDX are not the same"));
    }
    Ok((Regions::decode(first, file_size, log)?, valid.len() == 2))
}
