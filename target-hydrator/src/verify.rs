//! Two whole disks compared, sector by sector: `sluice verify`.

use crate::formats::{Format, OpenedImage, open, open_as};
use crate::target::{TargetError, TargetErrorKind, read_only};
use futures_util::{StreamExt, TryStreamExt, stream};
use sluice_platform::{AlignedBuf, DirectFile};
use sluice_proto::stream::{BlockCv, BlockHasher, StreamDigest};
use sluice_proto::{BLOCK_SECTORS, BlockNo, ByteCount, Digest, Extent, SECTOR_BYTES, SectorCount};
use std::path::Path;
use std::sync::Arc;
use tokio::time::Instant;

/// Blocks in flight: 4 MiB of each side.
const LANES: usize = 4;
/// Differing extents that are listed.
pub const LISTED_MAX: usize = 1000;

/// What two disks came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// True where every sector is equal. A longer disk must hold zeros behind the shorter one's end.
    pub equal: bool,
    /// Where they differ, ascending; the first [`LISTED_MAX`] extents.
    pub differing: Vec<Extent>,
    /// How many extents differ in all.
    pub differing_extents: u64,
    /// How many sectors differ in all.
    pub differing_sectors: SectorCount,
    /// BLAKE3 of the source, its last sector filled up with zeros.
    pub source_digest: Digest,
    /// BLAKE3 of as much of the target.
    pub target_digest: Digest,
    /// The bytes that were compared: those of the longer disk.
    pub bytes: ByteCount,
    /// How long it took.
    pub seconds: f64,
}

/// Compares two disks: images of any format, or devices. A format that isn't given is told by a file's contents, and is
/// raw for a device.
///
/// # Errors
/// One of them can't be opened or read: they could not be compared.
pub async fn compare(
    source: (&Path, Option<Format>),
    target: (&Path, Option<Format>),
    progress: impl Fn(ByteCount, ByteCount),
) -> Result<Comparison, TargetError> {
    let start = Instant::now();
    let (source, target) = (Arc::new(Side::open(source)?), Arc::new(Side::open(target)?));
    let stream = source.size.sectors_ceil();
    let whole = stream.0.max(target.size.sectors_ceil().0);
    let block = |number: u64| {
        let start = number * BLOCK_SECTORS;
        compare_block(source.clone(), target.clone(), Extent::new(start, (whole - start).min(BLOCK_SECTORS)), stream)
    };
    let mut blocks = stream::iter((0..whole.div_ceil(BLOCK_SECTORS)).map(block)).buffered(LANES);
    let (mut source_digest, mut target_digest) = (StreamDigest::default(), StreamDigest::default());
    let mut found = Differences::default();
    let mut done = 0;
    while let Some(block) = blocks.try_next().await? {
        if let Some((source, target)) = block.cvs {
            source_digest.push(source);
            target_digest.push(target);
        }
        block.differing.into_iter().for_each(|extent| found.push(extent));
        done += block.sectors;
        progress(SectorCount(done).bytes(), SectorCount(whole).bytes());
    }
    Ok(Comparison {
        equal: found.sectors == 0,
        differing_extents: found.extents,
        differing_sectors: SectorCount(found.sectors),
        differing: found.listed,
        source_digest: source_digest.finish(),
        target_digest: target_digest.finish(),
        bytes: SectorCount(whole).bytes(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

#[derive(Default)]
struct Differences {
    listed: Vec<Extent>,
    extents: u64,
    sectors: u64,
    end: Option<u64>,
}

impl Differences {
    fn push(&mut self, extent: Extent) {
        self.sectors += extent.len.0;
        let goes_on = self.end == Some(extent.start.0);
        self.end = Some(extent.end().0);
        if goes_on {
            if self.extents == self.listed.len() as u64
                && let Some(last) = self.listed.last_mut()
            {
                last.len.0 += extent.len.0;
            }
            return;
        }
        self.extents += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(extent);
        }
    }
}

struct Block {
    sectors: u64,
    /// Of source and target, as far as the source reaches.
    cvs: Option<(BlockCv, BlockCv)>,
    differing: Vec<Extent>,
}

async fn compare_block(
    source: Arc<Side>,
    target: Arc<Side>,
    extent: Extent,
    stream: SectorCount,
) -> Result<Block, TargetError> {
    let (source, target) = (source.read(extent).await?, target.read(extent).await?);
    let work = move || {
        let common = stream.0.saturating_sub(extent.start.0).min(extent.len.0);
        let cv = |side: &Option<AlignedBuf>| {
            let mut hasher = BlockHasher::new(BlockNo(extent.start.0 / BLOCK_SECTORS), stream);
            let len = common * SECTOR_BYTES;
            match side {
                Some(bytes) => hasher.update(&bytes[..len as usize]),
                None => hasher.update_zeros(len),
            }
            hasher.finish()
        };
        let cvs = (common > 0).then(|| (cv(&source), cv(&target)));
        let differing = differing(extent, source.as_deref(), target.as_deref());
        Block { sectors: extent.len.0, cvs, differing }
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| TargetError::new(crate::target::TargetErrorKind::Io, format!("comparing was cut off: {e}")))
}

/// The runs of sectors that differ; a side that is `None` is zeros.
fn differing(extent: Extent, source: Option<&[u8]>, target: Option<&[u8]>) -> Vec<Extent> {
    const ZEROS: [u8; SECTOR_BYTES as usize] = [0; SECTOR_BYTES as usize];
    if source == target {
        return Vec::new();
    }
    let sector = |side: Option<&[u8]>, at: usize| -> bool {
        let at = at * ZEROS.len()..(at + 1) * ZEROS.len();
        side.is_none_or(|bytes| bytes[at] == ZEROS)
    };
    let mut runs: Vec<Extent> = Vec::new();
    for number in 0..extent.len.0 as usize {
        let equal = match (source, target) {
            (Some(a), Some(b)) => {
                let at = number * ZEROS.len()..(number + 1) * ZEROS.len();
                a[at.clone()] == b[at]
            }
            _ => sector(source, number) && sector(target, number),
        };
        let at = extent.start.0 + number as u64;
        match runs.last_mut() {
            _ if equal => {}
            Some(run) if run.end().0 == at => run.len.0 += 1,
            _ => runs.push(Extent::new(at, 1)),
        }
    }
    runs
}

/// One of the two disks.
struct Side {
    file: DirectFile,
    image: OpenedImage,
    size: ByteCount,
}

impl Side {
    fn open((path, format): (&Path, Option<Format>)) -> Result<Self, TargetError> {
        let file = DirectFile::open(path)?;
        let file_size = file.size()?;
        let format = format.or(file.is_block_device().then_some(Format::Raw));
        let image = match format {
            Some(format) => open_as(format, &read_only(&file), file_size),
            None => open(&read_only(&file), file_size),
        };
        let image = image.map_err(|e| TargetError::format(&path.display().to_string(), e))?;
        if let (None, Ok(by_name)) = (format, Format::from_suffix(path))
            && image.format == Format::Raw
            && by_name != Format::Raw
        {
            // Compared as a raw disk it might well be equal, and no other program would take it for the image that it claims to be.
            let text = format!("{}: no {by_name} image, though its name says so: damaged, or cut off", path.display());
            return Err(TargetError::new(
                TargetErrorKind::NotOurs,
                format!("{text} (for a raw disk say raw as its format)"),
            ));
        }
        let size = image.virtual_size;
        Ok(Self { file, image, size })
    }

    /// The bytes of an extent, zeros behind the disk's end; `None` where all of it is zeros for certain.
    async fn read(&self, extent: Extent) -> Result<Option<AlignedBuf>, TargetError> {
        let Some(part) = extent.intersect(Extent::new(0, self.size.sectors_ceil().0)) else { return Ok(None) };
        let ranges = self.image.resolve_read(&read_only(&self.file), part);
        let ranges = ranges.map_err(|e| TargetError::format(&self.file.path().display().to_string(), e))?;
        let mut whole: Option<AlignedBuf> = None;
        for range in ranges {
            let Some(offset) = range.file_offset else { continue };
            let present = (self.size.0 - range.disk.start.offset()).min(range.disk.bytes().0);
            let data = self.file.next_data(offset).await?;
            if data.is_none_or(|data| data.start >= offset + present) {
                continue;
            }
            if range.disk == extent && present == extent.bytes().0 {
                let (bytes, result) =
                    self.file.read_at(offset, AlignedBuf::new(present as usize), present as usize).await;
                result?;
                return Ok(Some(bytes));
            }
            let (bytes, result) = self.file.read_at(offset, AlignedBuf::new(present as usize), present as usize).await;
            result?;
            let whole = whole.get_or_insert_with(|| AlignedBuf::zeroed(extent.bytes().0 as usize));
            let from = (range.disk.start.offset() - extent.start.offset()) as usize;
            whole[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests;
