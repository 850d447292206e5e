//! A pool of block encoders, with their compression contexts.

use crate::buffers::Sealed;
use parking_lot::Mutex;
use sluice_proto::digests::grain_digest;
use sluice_proto::header::Header;
use sluice_proto::keys::DataKey;
use sluice_proto::segment::{BlockEncoder, EncodedBlock};
use sluice_proto::{BlockNo, Digest, Extent, GRAIN_SECTORS, SectorCount};
use std::sync::Arc;

/// A block, encoded, and what was learnt of it on the way.
pub struct Encoded {
    /// The block.
    pub block: EncodedBlock,
    /// Bytes of its plaintext.
    pub plain_bytes: u64,
    /// The digests of its whole grains, where they were asked for.
    pub grains: Vec<(u64, Digest)>,
}

/// The digests of the grains in `extents`, which begin and end at grains but for the disk's end.
fn grains_of(extents: &[Extent], mut data: &[u8]) -> Vec<(u64, Digest)> {
    let mut grains = Vec::new();
    for extent in extents {
        let (mut bytes, rest) = data.split_at(extent.bytes().0 as usize);
        data = rest;
        let mut grain = extent.start.grain();
        debug_assert_eq!(extent.start.0 % GRAIN_SECTORS, 0);
        while !bytes.is_empty() {
            let (one, more) = bytes.split_at(bytes.len().min(sluice_proto::GRAIN_BYTES as usize));
            grains.push((grain, grain_digest(one)));
            (bytes, grain) = (more, grain + 1);
        }
    }
    grains
}

/// The pool.
pub struct Encoders {
    make: Box<dyn Fn() -> BlockEncoder + Send + Sync>,
    idle: Mutex<Vec<BlockEncoder>>,
    buffers: Arc<Sealed>,
    with_grains: bool,
}

impl Encoders {
    /// Encoders for one attempt at a cycle whose stream has `stream` sectors, which encode into `buffers`.
    pub fn new(key: &DataKey, header: &Header, stream: SectorCount, level: i32, buffers: Arc<Sealed>) -> Self {
        let (key, header) = (key.clone(), header.clone());
        let make = Box::new(move || BlockEncoder::new(&key, &header, stream, level));
        Self { make, idle: Mutex::default(), buffers, with_grains: false }
    }

    /// The same, telling the digests of whole grains too.
    #[must_use]
    pub fn with_grains(mut self, wanted: bool) -> Self {
        self.with_grains = wanted;
        self
    }

    /// Encodes the block that `data` is the plaintext of, by an encoder that nobody uses: there come to be as many as
    /// threads that call this at once.
    pub fn encode(&self, block: BlockNo, extents: &[Extent], data: &[u8]) -> Encoded {
        let idle = self.idle.lock().pop();
        let mut encoder = idle.unwrap_or_else(|| (self.make)());
        let encoded = encoder.encode(block, extents, data, self.buffers.blocks.take());
        self.idle.lock().push(encoder);
        let grains = if self.with_grains { grains_of(extents, data) } else { Vec::new() };
        Encoded { block: encoded, plain_bytes: data.len() as u64, grains }
    }

    /// Where buffers come from, and go back to.
    pub fn buffers(&self) -> &Sealed {
        &self.buffers
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        // One long cycle shall not hold what several that have ended used.
        self.buffers.keep_for(Arc::strong_count(&self.buffers) - 1);
    }
}
