//! Opening VHDXs: identifier, headers, log, regions, metadata, table, each checked before the next is looked at.

use super::super::open::{Map, OpenedImage, Severity};
use super::super::{Format, FormatError, ReadAt};
use super::bat::{self, Geometry};
use super::dynamic::DynamicVhdx;
use super::header::{self, Header};
use super::log::{self, Replay};
use super::metadata::Metadata;
use super::overlay::Overlaid;
use super::region::{self, Place, Regions};
use super::session::Session;
use super::{FILE_BYTES_MAX, MIB};
use sluice_proto::ByteCount;

/// True where the file begins as a VHDX does.
pub(in crate::formats) fn claims(reader: &dyn ReadAt, file_size: u64) -> Result<bool, FormatError> {
    Ok(file_size >= MIB && header::read_identifier(reader)?.is_some())
}

/// Opens a VHDX, fixed or dynamic. What its log holds is taken into account and not written.
pub(in crate::formats) fn open(reader: &dyn ReadAt, file_size: u64) -> Result<OpenedImage, FormatError> {
    if file_size > FILE_BYTES_MAX {
        return Err(FormatError::unsupported(format!("the file has {file_size} bytes, more than any VHDX")));
    }
    let identifier = if file_size < MIB { None } else { header::read_identifier(reader)? };
    let Some(creator) = identifier else {
        return Err(FormatError::not_this("not a VHDX: the file does not begin with \"vhdxfile\""));
    };
    let (place, header) = header::read_current(reader, file_size)?;
    let replay = if header.log.is_nil() { None } else { Some(log::read(reader, &header, file_size)?) };
    let changes = replay.as_ref().map_or(&[][..], |replay| &replay.changes);
    let new_size = replay.as_ref().map_or(file_size, |replay| replay.last_file_offset.max(file_size));
    let overlaid = Overlaid { reader, file_size, new_size, changes };
    let mut image = open_regions(&overlaid, &header, replay.as_ref(), file_size, new_size)?;
    image.facts.insert(0, ("creator", creator));
    image.vhdx = Some(Session::new((place, header), replay, file_size));
    Ok(image)
}

/// The rest, through the log's changes.
fn open_regions(
    reader: &Overlaid<'_>,
    header: &Header,
    replay: Option<&Replay>,
    file_size: u64,
    new_size: u64,
) -> Result<OpenedImage, FormatError> {
    let log = Place { offset: header.log_offset, length: u64::from(header.log_length) };
    let (regions, both_tables) = region::read(reader, new_size, log)?;
    if let Some(replay) = replay {
        check_replay(replay, &regions)?;
    }
    let metadata = Metadata::read(reader, regions.metadata)?;
    let geometry = Geometry::new(metadata.disk_bytes, u64::from(metadata.block_bytes), metadata.logical_sector);
    let table = bat::read(reader, regions.bat, &geometry, new_size)?;
    let end = bat::check_places(&table, &geometry, &regions.taken, new_size)?;
    let present = table.used().count();
    let (format, map) = match bat::linear_start(&table, &geometry) {
        Some(start) => (Format::Vhdx, Map::Linear { start }),
        None => (Format::VhdxDynamic, Map::Vhdx(DynamicVhdx::new(geometry, regions.bat, table, end))),
    };
    let mut image = OpenedImage::new(format, ByteCount(metadata.disk_bytes), file_size, map);
    describe(&mut image, &metadata, &geometry, present);
    if let Some(replay) = replay {
        let text = format!(
            "the file was not closed properly: its log holds {} changes, which are applied when it is written to",
            replay.changes.len()
        );
        image.find(Severity::Warning, text);
    }
    if !both_tables {
        image.find(Severity::Warning, "one of the two region tables is damaged; the other was used");
    }
    Ok(image)
}

fn describe(image: &mut OpenedImage, metadata: &Metadata, geometry: &Geometry, present: usize) {
    image.uuid = Some(metadata.disk_id);
    let (logical, physical) = (metadata.logical_sector, metadata.physical_sector);
    image.facts.push(("block size", format!("{} bytes", metadata.block_bytes)));
    image.facts.push(("blocks present", format!("{present} of {}", geometry.blocks)));
    image.facts.push(("sector size", format!("logical {logical}, physical {physical} bytes")));
    if logical != 512 {
        image.find(Severity::Info, "its sectors of 4096 bytes are valid, but QEMU refuses them");
    }
    if metadata.leave_allocated && image.format == Format::VhdxDynamic {
        image.find(Severity::Info, "it calls itself fixed, but not all its blocks are present and in order");
    }
}

/// The log is for tables (section 2.3): a change anywhere else would be data that we read past it.
fn check_replay(replay: &Replay, regions: &Regions) -> Result<(), FormatError> {
    let tables = Place { offset: region::PLACES[0], length: MIB - region::PLACES[0] };
    let places = [tables, regions.bat, regions.metadata];
    let stray = replay.changes.iter().find(|c| !places.iter().any(|place| place.holds(c.offset, c.len())));
    let Some(change) = stray else { return Ok(()) };
    Err(FormatError::corrupt(format!("the VHDX log changes byte {}, where no table is", change.offset)))
}
