//! A pool of block encoders, with their compression contexts, and of the buffers that blocks and segments are laid into.

use parking_lot::Mutex;
use sluice_proto::digests::grain_digest;
use sluice_proto::header::Header;
use sluice_proto::keys::DataKey;
use sluice_proto::segment::{BlockEncoder, EncodedBlock};
use sluice_proto::{BlockNo, Digest, Extent, GRAIN_SECTORS, SectorCount};

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
    blocks: Spares,
    segments: Spares,
    with_grains: bool,
}

/// Buffers that are not in use. Large ones that are freed and asked for anew leave holes that nothing else fills.
#[derive(Default)]
pub struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// One that was used before, or one without room.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Gives one back, to be filled again.
    pub fn give_back(&self, bytes: Vec<u8>) {
        self.0.lock().push(bytes);
    }
}

impl Encoders {
    /// Encoders for one attempt at a cycle whose stream has `stream` sectors.
    pub fn new(key: &DataKey, header: &Header, stream: SectorCount, level: i32) -> Self {
        let (key, header) = (key.clone(), header.clone());
        let make = Box::new(move || BlockEncoder::new(&key, &header, stream, level));
        let (blocks, segments) = (Spares::default(), Spares::default());
        Self { make, idle: Mutex::default(), blocks, segments, with_grains: false }
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
        let encoded = encoder.encode(block, extents, data, self.blocks.take());
        self.idle.lock().push(encoder);
        let grains = if self.with_grains { grains_of(extents, data) } else { Vec::new() };
        Encoded { block: encoded, plain_bytes: data.len() as u64, grains }
    }

    /// Buffers for encoded blocks.
    pub fn blocks(&self) -> &Spares {
        &self.blocks
    }

    /// Buffers for segments.
    pub fn segments(&self) -> &Spares {
        &self.segments
    }
}
