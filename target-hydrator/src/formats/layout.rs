//! What a new image starts with.

use super::{Format, FormatError, FormatErrorKind, Step, raw, vhd, vhdx};
use sluice_proto::env::Entropy;
use sluice_proto::{ByteCount, DISK_SECTORS_MAX, SECTOR_BYTES};

/// What VHD and VHDX sizes are rounded up to: Azure takes whole MiB only (its rule for VHDs), and VHDX blocks are
/// whole MiB (MS-VHDX section 2.6.2.1).
pub(super) const SIZE_UNIT: u64 = 1 << 20;

/// The logical sector size that a VHDX declares to its guest. VHD and raw know only 512.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogicalSector {
    /// 512 bytes: what QEMU and Azure take.
    #[default]
    B512,
    /// 4096 bytes: for disks whose file systems were made for it; QEMU refuses these.
    B4096,
}

impl LogicalSector {
    /// The size in bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// A new image: its sizes and the metadata to write. Made without looking at any file.
#[derive(Debug)]
pub struct Layout {
    /// The format that it is of.
    pub format: Format,
    /// Bytes of the disk that it replicates; may be no whole number of sectors. The image doesn't record it.
    pub source_size: ByteCount,
    /// Bytes of the disk that a guest sees: `source_size` rounded up by the format's rules, zeros behind the source.
    pub virtual_size: ByteCount,
    /// Bytes of the file as created. Only a dynamic image's file grows later.
    pub file_size: ByteCount,
    /// For raw and fixed images: the byte of the file that holds byte 0 of the disk; all others follow in order.
    pub linear_start: Option<u64>,
    /// The id that the image bears, if its format has room for one.
    pub uuid: Option<uuid::Uuid>,
    /// Pieces that make the file an image of its format; written after the table.
    pub(super) pieces: Vec<(u64, Vec<u8>)>,
    /// What stands at the file's end, if anything: a VHD's footer.
    pub(super) tail: Option<(u64, Vec<u8>)>,
    pub(super) table: NewTable,
}

/// A new image's block table, made in chunks: that of 64 TiB is many MiB.
#[derive(Debug)]
pub(super) enum NewTable {
    None,
    /// Nothing allocated, `bytes` long (whole sectors).
    VhdFree {
        offset: u64,
        bytes: u64,
    },
    /// Every block present, in order.
    VhdxFull {
        offset: u64,
        geometry: vhdx::Geometry,
        data_start: u64,
    },
}

impl Layout {
    /// Lays out a new image for a disk of `source_size` bytes. `unix_ms` dates a VHD; `ids` makes its ids.
    pub fn create(
        format: Format,
        source_size: ByteCount,
        ids: &dyn Entropy,
        unix_ms: u64,
    ) -> Result<Self, FormatError> {
        Self::create_with(format, source_size, LogicalSector::B512, ids, unix_ms)
    }

    /// The same with the logical sector size for VHDX.
    pub fn create_with(
        format: Format,
        source_size: ByteCount,
        sector: LogicalSector,
        ids: &dyn Entropy,
        unix_ms: u64,
    ) -> Result<Self, FormatError> {
        check_size(format, source_size)?;
        if sector != LogicalSector::B512 && !matches!(format, Format::Vhdx | Format::VhdxDynamic) {
            return Err(FormatError::unsupported(format!(
                "a {format} image has sectors of 512 bytes; only VHDX can declare 4096"
            )));
        }
        Ok(match format {
            Format::Raw => raw::layout(source_size),
            Format::Vhd => vhd::fixed_layout(source_size, ids, unix_ms),
            Format::VhdDynamic => vhd::dynamic_layout(source_size, ids, unix_ms),
            Format::Vhdx => vhdx::fixed_layout(source_size, sector, ids),
            Format::VhdxDynamic => vhdx::dynamic_layout(source_size, sector, ids),
        })
    }

    pub(super) fn new(format: Format, source_size: ByteCount, virtual_size: ByteCount, file_size: u64) -> Self {
        Self {
            format,
            source_size,
            virtual_size,
            file_size: ByteCount(file_size),
            linear_start: None,
            uuid: None,
            pieces: Vec::new(),
            tail: None,
            table: NewTable::None,
        }
    }

    /// What turns an empty file into the image, which is valid only after the last step. Chunks of at most 1 MiB.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        let tail = self.tail.iter().map(|(offset, bytes)| Step::Write(*offset, bytes.clone()));
        std::iter::once(Step::SetLen(self.file_size.0))
            .chain(self.table_steps())
            .chain(tail)
            .chain([Step::Sync])
            .chain(self.head_steps())
    }

    /// The block table alone.
    pub(super) fn table_steps(&self) -> impl Iterator<Item = Step> + '_ {
        (0..).map_while(|chunk| self.table.chunk(chunk)).map(|(offset, bytes)| Step::Write(offset, bytes))
    }

    /// What makes the file an image.
    pub(super) fn head_steps(&self) -> impl Iterator<Item = Step> + '_ {
        let pieces = self.pieces.iter().map(|(offset, bytes)| Step::Write(*offset, bytes.clone()));
        pieces.chain([Step::Sync])
    }
}

impl NewTable {
    const CHUNK: u64 = 1 << 20;

    /// The chunks that hold the bytes from `from` to `to` of the file.
    pub(super) fn chunks_at(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
        let start = match self {
            Self::None => u64::MAX,
            Self::VhdFree { offset, .. } | Self::VhdxFull { offset, .. } => *offset,
        };
        let number = |at: u64| at.saturating_sub(start) / Self::CHUNK;
        let last = if to > start { number(to - 1) + 1 } else { 0 };
        (number(from)..last).map_while(|chunk| self.chunk(chunk))
    }

    fn chunk(&self, number: u64) -> Option<(u64, Vec<u8>)> {
        let from = number * Self::CHUNK;
        match self {
            Self::None => None,
            Self::VhdFree { offset, bytes } => {
                let len = bytes.saturating_sub(from).min(Self::CHUNK);
                (len > 0).then(|| (offset + from, vec![0xff; len as usize]))
            }
            Self::VhdxFull { offset, geometry, data_start } => {
                let entries = Self::CHUNK / 8;
                let mut bytes = geometry.full_entries(number * entries, entries, *data_start);
                // Whole sectors are written; the rest of the table's region is zero anyway.
                bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES as usize), 0);
                (!bytes.is_empty()).then_some((offset + from, bytes))
            }
        }
    }
}

/// The size that a guest sees for a source of so many bytes.
pub(super) fn rounded(source: ByteCount) -> ByteCount {
    ByteCount(source.0.next_multiple_of(SIZE_UNIT))
}

/// Whether the format holds a source of so many bytes.
pub(super) fn check_size(format: Format, source: ByteCount) -> Result<(), FormatError> {
    let refuse = |text: String| Err(FormatError::new(FormatErrorKind::Size, text));
    if source.0 == 0 {
        return refuse("the source is empty: there is no disk to replicate".into());
    }
    if source.0 > DISK_SECTORS_MAX * SECTOR_BYTES {
        return refuse(format!(
            "the source has {} bytes; Sluice and VHDX hold disks of at most 64 TiB ({} bytes)",
            source,
            DISK_SECTORS_MAX * SECTOR_BYTES
        ));
    }
    if matches!(format, Format::Vhd | Format::VhdDynamic) && source.0 > vhd::SIZE_MAX {
        return refuse(format!(
            "the source has {} GiB ({source} bytes), a VHD holds at most 2040 GiB: use --format {}",
            source.0.div_ceil(1 << 30),
            if format == Format::Vhd { "vhdx" } else { "vhdx-dynamic" },
        ));
    }
    Ok(())
}
