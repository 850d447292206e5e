//! Recognising and checking images, and finding their bytes.

use super::io::read_error;
use super::{Format, FormatError, FormatErrorKind, ReadAt, raw, vhd, vhdx};
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES};

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Valid, but some program will not like it, or something was cut short and is mended at the next write.
    Warning,
}

/// Something that `sluice inspect` says of an image that could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// One sentence for people.
    pub text: String,
}

/// A part of the disk and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// Which sectors of the disk.
    pub disk: Extent,
    /// The byte of the file that holds the first of them, the others following; `None` where they read as zeros.
    pub file_offset: Option<u64>,
}

/// An image whose metadata was read and found valid.
#[derive(Debug)]
pub struct OpenedImage {
    /// The format. A VHDX counts as fixed where all its blocks are present and in order, whoever made it.
    pub format: Format,
    /// Bytes of the disk that a guest sees. Only a raw image's may be no whole number of sectors.
    pub virtual_size: ByteCount,
    /// Bytes of the file when it was opened.
    pub file_size: ByteCount,
    /// The image's own id, if its format has one.
    pub uuid: Option<uuid::Uuid>,
    /// Name and value of what else the metadata say, for `sluice inspect`.
    pub facts: Vec<(&'static str, String)>,
    /// What is remarkable.
    pub findings: Vec<Finding>,
    pub(super) map: Map,
    /// A VHDX's headers and what its log holds; `None` for the others.
    pub(super) vhdx: Option<vhdx::Session>,
}

/// Where the disk's bytes are.
#[derive(Debug)]
pub(super) enum Map {
    Linear { start: u64 },
    Vhd(vhd::DynamicVhd),
    Vhdx(vhdx::DynamicVhdx),
}

/// Opens an image of a format that is found out from its bytes; what bears no known mark is raw.
///
/// For people's tools only: the first and the last sector of a raw image are its guest's to write, who could make it
/// look like anything. Who knows the format uses [`open_as`].
pub fn open(reader: &dyn ReadAt, file_size: ByteCount) -> Result<OpenedImage, FormatError> {
    if vhdx::claims(reader, file_size.0)? {
        vhdx::open(reader, file_size.0)
    } else if vhd::claims(reader, file_size.0)? {
        vhd::open(reader, file_size.0, None)
    } else {
        raw::open(file_size.0)
    }
}

/// Opens an image that must be of this format.
pub fn open_as(format: Format, reader: &dyn ReadAt, file_size: ByteCount) -> Result<OpenedImage, FormatError> {
    let image = match format {
        Format::Raw => raw::open(file_size.0)?,
        Format::Vhd | Format::VhdDynamic => vhd::open(reader, file_size.0, Some(format))?,
        Format::Vhdx | Format::VhdxDynamic => vhdx::open(reader, file_size.0)?,
    };
    // A dynamic VHDX that happens to be full and in order is as good as a fixed one, and is written in the same way.
    let full = format == Format::VhdxDynamic && image.format == Format::Vhdx;
    if image.format == format || full {
        return Ok(image);
    }
    Err(FormatError::not_this(format!("the image is {}, not {format}: give --format {0}", image.format)))
}

impl OpenedImage {
    pub(super) fn new(format: Format, virtual_size: ByteCount, file_size: u64, map: Map) -> Self {
        Self {
            format,
            virtual_size,
            file_size: ByteCount(file_size),
            uuid: None,
            facts: Vec::new(),
            findings: Vec::new(),
            map,
            vhdx: None,
        }
    }

    pub(super) fn find(&mut self, severity: Severity, text: impl Into<String>) {
        self.findings.push(Finding { severity, text: text.into() });
    }

    /// For raw and fixed images: the byte of the file that holds byte 0 of the disk; all others follow in order.
    pub fn linear_start(&self) -> Option<u64> {
        match self.map {
            Map::Linear { start } => Some(start),
            _ => None,
        }
    }

    /// Where these sectors of the disk are, in order and without gaps. `reader` is the image itself.
    pub fn resolve_read(&self, reader: &dyn ReadAt, disk: Extent) -> Result<Vec<ReadRange>, FormatError> {
        check_range(disk, self.virtual_size)?;
        self.map.resolve_read(reader, disk)
    }

    /// Reads these sectors into `buf`, which has exactly their length. The last sector of a raw image with a partial
    /// one is filled up with zeros.
    pub fn read(&self, reader: &dyn ReadAt, disk: Extent, buf: &mut [u8]) -> Result<(), FormatError> {
        check_range(disk, self.virtual_size)?;
        if buf.len() as u64 != disk.bytes().0 {
            return Err(FormatError::new(FormatErrorKind::OutOfRange, format!("{disk} do not fit the buffer")));
        }
        for range in self.map.resolve_read(reader, disk)? {
            let from = (range.disk.start.offset() - disk.start.offset()) as usize;
            let part = &mut buf[from..from + range.disk.bytes().0 as usize];
            part.fill(0);
            let Some(offset) = range.file_offset else { continue };
            let present = (self.virtual_size.0 - range.disk.start.offset()).min(part.len() as u64) as usize;
            reader.read_at(offset, &mut part[..present]).map_err(|e| read_error("disk's data", offset, e))?;
        }
        Ok(())
    }
}

impl Map {
    pub(super) fn resolve_read(&self, reader: &dyn ReadAt, disk: Extent) -> Result<Vec<ReadRange>, FormatError> {
        match self {
            Self::Linear { start } => {
                let file_offset = Some(start + disk.start.offset());
                Ok(if disk.is_empty() { Vec::new() } else { vec![ReadRange { disk, file_offset }] })
            }
            Self::Vhd(map) => map.resolve_read(reader, disk),
            Self::Vhdx(map) => Ok(map.resolve_read(disk)),
        }
    }
}

/// Refuses sectors behind the end of the disk.
pub(super) fn check_range(disk: Extent, size: ByteCount) -> Result<(), FormatError> {
    if disk.is_within(size.sectors_ceil()) {
        return Ok(());
    }
    let text = format!("{} sectors from sector {} are not on the disk of {size} bytes", disk.len, disk.start);
    Err(FormatError::new(FormatErrorKind::OutOfRange, text))
}

/// Adds a range, as a longer last one where it goes on where that ends.
pub(super) fn push_range(ranges: &mut Vec<ReadRange>, disk: Extent, file_offset: Option<u64>) {
    if let Some(last) = ranges.last_mut()
        && last.file_offset.map(|offset| offset + last.disk.bytes().0) == file_offset
        && last.disk.end() == disk.start
    {
        last.disk.len.0 += disk.len.0;
        return;
    }
    if !disk.is_empty() {
        ranges.push(ReadRange { disk, file_offset });
    }
}

/// The parts of `disk` by blocks of `block_bytes`: block number and sectors, in order.
pub(super) fn by_block(disk: Extent, block_bytes: u64) -> impl Iterator<Item = (u64, Extent)> {
    let per_block = block_bytes / SECTOR_BYTES;
    let mut at = disk.start.0;
    std::iter::from_fn(move || {
        let left = disk.end().0.checked_sub(at).filter(|left| *left > 0)?;
        let block = at / per_block;
        let part = Extent::new(at, left.min((block + 1) * per_block - at));
        at += part.len.0;
        Some((block, part))
    })
}
