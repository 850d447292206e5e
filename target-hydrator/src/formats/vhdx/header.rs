//! The file identifier and the two headers (sections 2.2.1 and 2.2.2).
//!
//! Of the two headers the valid one with the higher sequence number counts. A change is written over the other, so
//! that a torn write leaves the old one in force.

use super::super::io::{le16, le32, le64, put_le16, put_le32, put_le64, read_array};
use super::super::{FormatError, ReadAt};
use super::{MIB, checksum, guids};
use uuid::Uuid;

const IDENTIFIER: &[u8; 8] = b"vhdxfile";
/// Bytes in a header.
const HEADER_BYTES: usize = 4096;
/// Where the two headers lie.
const PLACES: [u64; 2] = [64 << 10, 128 << 10];
const SIGNATURE: &[u8; 4] = b"head";
const AT_CHECKSUM: usize = 4;
const AT_SEQUENCE: usize = 8;
const AT_FILE_WRITE: usize = 16;
const AT_DATA_WRITE: usize = 32;
const AT_LOG: usize = 48;
const AT_LOG_VERSION: usize = 64;
const AT_VERSION: usize = 66;
const AT_LOG_LENGTH: usize = 68;
const AT_LOG_OFFSET: usize = 72;

/// The fields of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    /// New whenever a program begins to write to the file.
    pub(super) file_write: Uuid,
    /// New whenever a program begins to change what the guest sees.
    pub(super) data_write: Uuid,
    /// Nil where the log holds nothing to be applied.
    pub(super) log: Uuid,
    pub(super) log_length: u32,
    pub(super) log_offset: u64,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(SIGNATURE);
        put_le64(&mut bytes, AT_SEQUENCE, self.sequence);
        guids::put(&mut bytes, AT_FILE_WRITE, self.file_write);
        guids::put(&mut bytes, AT_DATA_WRITE, self.data_write);
        guids::put(&mut bytes, AT_LOG, self.log);
        put_le16(&mut bytes, AT_LOG_VERSION, 0);
        put_le16(&mut bytes, AT_VERSION, 1);
        put_le32(&mut bytes, AT_LOG_LENGTH, self.log_length);
        put_le64(&mut bytes, AT_LOG_OFFSET, self.log_offset);
        let sum = checksum(&bytes, AT_CHECKSUM);
        put_le32(&mut bytes, AT_CHECKSUM, sum);
        bytes
    }

    /// `None` for a header that is torn, empty or foreign.
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<(u16, Self)> {
        let valid = bytes.starts_with(SIGNATURE) && checksum(bytes, AT_CHECKSUM) == le32(bytes, AT_CHECKSUM);
        let header = || Self {
            sequence: le64(bytes, AT_SEQUENCE),
            file_write: guids::get(bytes, AT_FILE_WRITE),
            data_write: guids::get(bytes, AT_DATA_WRITE),
            log: guids::get(bytes, AT_LOG),
            log_length: le32(bytes, AT_LOG_LENGTH),
            log_offset: le64(bytes, AT_LOG_OFFSET),
        };
        valid.then(|| (le16(bytes, AT_VERSION), header()))
    }
}

/// The header in force, and which of the two places it was read from.
pub(super) fn read_current(reader: &dyn ReadAt, file_size: u64) -> Result<(usize, Header), FormatError> {
    let read =
        |place: u64| read_array::<HEADER_BYTES>(reader, place, "VHDX header").map(|bytes| Header::decode(&bytes));
    let both = [read(PLACES[0])?, read(PLACES[1])?];
    let newest = both.into_iter().enumerate().filter_map(|(i, h)| h.map(|h| (i, h))).max_by_key(|(_, h)| h.1.sequence);
    let Some((place, (version, header))) = newest else {
        return Err(FormatError::corrupt("both headers of the VHDX are damaged"));
    };
    if version != 1 {
        return Err(FormatError::unsupported(format!("VHDX version {version} is unknown")));
    }
    let log_end = header.log_offset.checked_add(u64::from(header.log_length));
    let whole = |n: u64| n >= MIB && n.is_multiple_of(MIB);
    if !whole(header.log_offset) || !whole(u64::from(header.log_length)) || log_end.is_none_or(|end| end > file_size) {
        return Err(FormatError::corrupt(format!(
            "the VHDX header puts a log of {} bytes at byte {}: not in whole MiB within the file",
            header.log_length, header.log_offset
        )));
    }
    Ok((place, header))
}

/// Where header number `place`, 0 or 1, is written.
pub(super) fn place(place: usize) -> u64 {
    PLACES[place & 1]
}

/// The file identifier, whose creator no program should go by.
pub(super) fn identifier() -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..8].copy_from_slice(IDENTIFIER);
    for (place, unit) in bytes[8..520].chunks_exact_mut(2).zip("Sluice".encode_utf16()) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
    bytes
}

/// The creator that a file identifier names; `None` where it is none.
pub(super) fn read_identifier(reader: &dyn ReadAt) -> Result<Option<String>, FormatError> {
    let bytes = read_array::<520>(reader, 0, "VHDX file identifier")?;
    let units = bytes[8..].chunks_exact(2).map(|pair| le16(pair, 0)).take_while(|unit| *unit != 0);
    let creator: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Ok(bytes.starts_with(IDENTIFIER).then(|| creator.escape_default().to_string()))
}
