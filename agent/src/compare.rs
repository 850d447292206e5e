//! Comparing the source with what the target holds, grain by grain, so that only differences are shipped.

mod reference;
mod table;

pub use reference::{Adopting, Reference, RemoteReference};
pub use table::{Base, LocalTable};

use crate::capture::{Capture, CaptureError};
use crate::workers::Place;
use futures_util::stream::{self, StreamExt};
use sluice_proto::digests::{PART_GRAINS, ZERO_GRAIN, grain_digest, part_count};
use sluice_proto::stream::{BlockHasher, Blocks, StreamDigest};
use sluice_proto::{
    BLOCK_SECTORS, BlockNo, Digest, Extent, GRAIN_BYTES, GRAIN_SECTORS, SECTOR_BYTES, SectorBitmap, SectorCount,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Reads the whole source and returns the grains whose digest is not the reference's.
///
/// `read_rate` bounds the reading, in bytes a second.
///
/// # Errors
/// A source or reference that can't be read.
pub async fn differing(
    capture: &Capture,
    reference: &mut dyn Reference,
    read_rate: Option<u64>,
) -> Result<SectorBitmap, CaptureError> {
    let disk = capture.source.size().sectors_ceil();
    let place = capture.workers.place(disk.bytes().0);
    let mut pace = Pace::new(read_rate);
    let mut found = SectorBitmap::new();
    for part in 0..part_count(disk) {
        let digests = Arc::new(reference.part(part).await?);
        let first = part * PART_GRAINS * GRAIN_SECTORS;
        // By the disk's size, not by what came: a grain without a digest differs.
        let len = (PART_GRAINS * GRAIN_SECTORS).min(disk.0 - first);
        let chunks = chunks_of(Extent::new(first, len));
        let compared = stream::iter(chunks)
            .map(|chunk| compare_chunk(capture, place, chunk, first, digests.clone()))
            .buffered(capture.options.buffers.max(1));
        let mut compared = std::pin::pin!(compared);
        while let Some(result) = compared.next().await {
            let (chunk, different) = result?;
            different.into_iter().for_each(|extent| found.set(extent));
            capture.counts.bytes_compared.fetch_add(chunk.bytes().0, Ordering::Relaxed);
            pace.after(chunk.bytes().0).await;
        }
    }
    Ok(found)
}

/// BLAKE3 of the whole source, the last sector filled up with zeros.
///
/// # Errors
/// A source that can't be read.
pub async fn whole_digest(capture: &Capture) -> Result<Digest, CaptureError> {
    let disk = capture.source.size().sectors_ceil();
    let blocks = Blocks::from_runs(std::iter::once(Extent::new(0, disk.0)));
    let cvs = stream::iter(blocks)
        .map(|(block, extents)| hash_block(capture, block, extents, disk))
        .buffered(capture.options.buffers.max(1));
    let mut cvs = std::pin::pin!(cvs);
    let mut digest = StreamDigest::default();
    while let Some(cv) = cvs.next().await {
        digest.push(cv?);
    }
    Ok(digest.finish())
}

async fn hash_block(
    capture: &Capture,
    block: BlockNo,
    extents: Vec<Extent>,
    disk: SectorCount,
) -> Result<sluice_proto::stream::BlockCv, CaptureError> {
    let buf = capture.pool.take().await;
    let (buf, read) = capture.source.read(&extents, buf).await;
    read?;
    capture.counts.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
    let hash = move || {
        let mut hasher = BlockHasher::new(block, disk);
        hasher.update(&buf);
        hasher.finish()
    };
    // For a final cycle, which somebody waits for.
    Ok(capture.workers.run(Place::FIRST, hash).await)
}

/// Cuts an extent into pieces of a block's size.
fn chunks_of(whole: Extent) -> impl Iterator<Item = Extent> + Send {
    let end = whole.end().0;
    (whole.start.0..end).step_by(BLOCK_SECTORS as usize).map(move |at| Extent::new(at, BLOCK_SECTORS.min(end - at)))
}

/// Compares the grains of one piece; `first` is the sector that `digests` begins at.
async fn compare_chunk(
    capture: &Capture,
    place: Place,
    chunk: Extent,
    first: u64,
    digests: Arc<Vec<Digest>>,
) -> Result<(Extent, Vec<Extent>), CaptureError> {
    let from = ((chunk.start.0 - first) / GRAIN_SECTORS) as usize;
    let next = capture.source.next_data(chunk.start.offset()).await?;
    if next.is_none_or(|data| data.start >= chunk.end().offset()) {
        // A hole: nothing to read.
        let grains = chunk.len.0.div_ceil(GRAIN_SECTORS) as usize;
        let different = |i: &usize| digests.get(from + i).is_none_or(|d| *d != ZERO_GRAIN);
        return Ok((chunk, (0..grains).filter(different).map(|i| grain_extent(chunk, i)).collect()));
    }
    capture.workers.precedence().give_way().await;
    let buf = capture.pool.take().await;
    let (buf, read) = capture.source.read(&[chunk], buf).await;
    read?;
    capture.counts.bytes_read.fetch_add(chunk.bytes().0, Ordering::Relaxed);
    let compare = move || {
        let grains = buf.chunks(GRAIN_BYTES as usize).enumerate();
        let different = grains.filter(|(i, bytes)| digests.get(from + i) != Some(&grain_digest(bytes)));
        different.map(|(i, _)| grain_extent(chunk, i)).collect()
    };
    Ok((chunk, capture.workers.run(place, compare).await))
}

/// The `i`th grain of a piece; the disk's last may be short.
fn grain_extent(chunk: Extent, i: usize) -> Extent {
    let start = chunk.start.0 + i as u64 * GRAIN_SECTORS;
    Extent::new(start, GRAIN_SECTORS.min(chunk.end().0 - start))
}

/// Keeps reading at or below a rate. Time in which nothing was read is not made up for.
struct Pace {
    rate: Option<u64>,
    free: Instant,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|r| r.max(SECTOR_BYTES)), free: Instant::now() }
    }

    async fn after(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_micros((u128::from(bytes) * 1_000_000 / u128::from(rate)) as u64);
        self.free = self.free.max(Instant::now()) + cost;
        tokio::time::sleep_until(self.free).await;
    }
}

#[cfg(test)]
mod tests;
