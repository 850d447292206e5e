//! A source disk in memory and the cycles that an agent would make of it, with the real codecs.

use sluice_cache_store::{CacheStore, MemoryStore};
use sluice_proto::cycle::{Consistency, CycleKind, State as CycleState, TrackerKind};
use sluice_proto::digests::NUMBER_BYTES;
use sluice_proto::env::Entropy;
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use sluice_proto::manifest::{MANIFEST_NAME, Manifest, Previous, SegmentEntry, cycle_folder};
use sluice_proto::segment::{BlockEncoder, SegmentWriter};
use sluice_proto::stream::{Blocks, StreamDigest};
use sluice_proto::wire::{CycleRef, StoredSegment, Work};
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, DiskId, Extent, Generation, SectorBitmap, SectorCount};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk that is protected.
pub(crate) struct Source {
    pub disk: DiskId,
    pub bytes: Vec<u8>,
    pub generation: Generation,
    pub key: DataKey,
    pub signer: SigningKey,
    pub hydrator: Arc<HydratorKey>,
    pub store: Arc<MemoryStore>,
    pub suite: Suite,
    /// Blocks in a segment; few, so that small disks have several segments.
    pub blocks_per_segment: u64,
    random: u64,
}

/// "Random" bytes: every comparison has one number, which a resync is planned by, but each mark of a writer is another.
pub(crate) struct Nines;

impl Entropy for Nines {
    fn fill(&self, bytes: &mut [u8]) {
        static MARKS: AtomicU64 = AtomicU64::new(1);
        match bytes.len() {
            8 => bytes.copy_from_slice(&MARKS.fetch_add(1, Ordering::Relaxed).to_le_bytes()),
            _ => bytes.fill(9),
        }
    }
}

/// The number of every comparison.
fn number() -> Digest {
    let mut salt = [0; 32];
    Nines.fill(&mut salt[..NUMBER_BYTES]);
    Digest(salt)
}

/// A cycle in the cache store.
#[derive(Clone)]
pub(crate) struct Shipped {
    pub work: Work,
    pub manifest: Manifest,
    /// Keys of its segments in the store.
    pub segments: Vec<String>,
    pub folder: String,
}

impl Shipped {
    pub fn reference(&self) -> CycleRef {
        CycleRef { cycle: self.work.cycle, manifest: self.work.manifest.expect("committed") }
    }
    /// The work of before the commit, when all segments are stored.
    pub fn ahead(&self) -> Work {
        let stored = self.manifest.segments.iter().map(stored).collect();
        Work { manifest: None, stored, ..self.work.clone() }
    }
    pub fn manifest_key(&self) -> String {
        format!("{}/{MANIFEST_NAME}", self.folder)
    }
}

impl Source {
    /// A disk of so many bytes: half of it data that repeats for a seed, a quarter text, a quarter zeros.
    pub fn new(len: u64, seed: u64, store: Arc<MemoryStore>) -> Self {
        let mut source = Self {
            disk: DiskId([seed as u8 + 1; 16]),
            bytes: vec![0; len as usize],
            generation: Generation(1),
            key: DataKey::new([7; 32]),
            signer: SigningKey::from_seed(&[seed as u8; 32]),
            hydrator: Arc::new(HydratorKey::generate().expect("a key pair")),
            store,
            suite: Suite::Aes256Gcm,
            blocks_per_segment: 1,
            random: seed * 2 + 1,
        };
        let half = source.bytes.len() / 2 / 8 * 8;
        for at in (0..half).step_by(8) {
            let word = source.next().to_le_bytes();
            source.bytes[at..at + 8].copy_from_slice(&word);
        }
        let three_quarters = source.bytes.len() / 4 * 3;
        for (at, byte) in source.bytes[half..three_quarters].iter_mut().enumerate() {
            *byte = (at / 4096) as u8 | 1;
        }
        source
    }

    /// The next of a row of numbers that repeats for a seed (xorshift64).
    pub fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub fn sectors(&self) -> SectorCount {
        ByteCount(self.bytes.len() as u64).sectors_ceil()
    }

    /// The disk, its last sector filled up with zeros.
    pub fn padded(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.sectors().bytes().0 as usize, 0);
        bytes
    }

    /// Writes new data over some sectors and gives them as the next cycle's plan.
    pub fn scribble(&mut self, extents: &[Extent]) -> SectorBitmap {
        for extent in extents {
            let byte = self.next() as u8;
            let end = (extent.end().offset() as usize).min(self.bytes.len());
            self.bytes[extent.start.offset() as usize..end].fill(byte);
        }
        SectorBitmap::from_extents(extents.iter().copied())
    }

    pub fn full(&self) -> SectorBitmap {
        SectorBitmap::full(self.sectors())
    }

    /// Removes a segment from the store.
    pub async fn remove(&self, shipped: &Shipped, name: &str) {
        self.store.delete(&format!("{}/{name}", shipped.folder)).await.expect("deleted");
    }

    pub fn envelope(&self) -> KeyEnvelope {
        KeyEnvelope::wrap(&self.key, self.disk, self.generation, self.hydrator.public(), &self.signer).expect("a key")
    }

    /// Ships a cycle: segments and manifest are in the store afterwards.
    pub async fn ship(
        &mut self,
        kind: CycleKind,
        cycle: u64,
        plan: SectorBitmap,
        previous: Option<CycleRef>,
    ) -> Shipped {
        self.ship_with(kind, cycle, plan, previous, |_| {}).await
    }

    /// The same; `change` may spoil the manifest before it is sealed.
    pub async fn ship_with(
        &mut self,
        kind: CycleKind,
        cycle: u64,
        plan: SectorBitmap,
        previous: Option<CycleRef>,
        change: impl FnOnce(&mut Manifest),
    ) -> Shipped {
        let folder = cycle_folder(self.disk, self.generation, CycleNo(cycle));
        let (entries, digest) = self.ship_segments(CycleNo(cycle), &plan, &folder).await;
        let whole = (kind == CycleKind::Final).then(|| Digest::of(&self.padded()));
        let mut manifest = Manifest {
            disk: self.disk,
            generation: self.generation,
            cycle: CycleNo(cycle),
            suite: self.suite,
            salt: self.salt(),
            kind,
            consistency: Consistency::Fuzzy,
            tracker: TrackerKind::Scan,
            disk_bytes: ByteCount(self.bytes.len() as u64),
            previous: previous.map(|p| Previous { cycle: p.cycle, manifest: p.manifest }),
            plan,
            segments: entries,
            digest,
            whole_disk: whole,
            comparison: (kind == CycleKind::Resync).then(number),
        };
        change(&mut manifest);
        let bytes = manifest.encode(&self.key);
        let hash = Digest::of(&bytes);
        self.store.put(&format!("{folder}/{MANIFEST_NAME}"), bytes.into()).await.expect("stored");
        let segments = manifest.segments.iter().map(|entry| format!("{folder}/{}", entry.name())).collect();
        let mut work = self.work(kind, cycle, manifest.plan.count(), previous);
        work.state = CycleState::Committed;
        work.manifest = Some(hash);
        Shipped { work, manifest, segments, folder }
    }

    /// What the appliance would say of a cycle that is being shipped.
    pub fn work(&self, kind: CycleKind, cycle: u64, sectors: SectorCount, previous: Option<CycleRef>) -> Work {
        Work {
            disk: self.disk,
            name: "host sda".into(),
            size: ByteCount(self.bytes.len() as u64),
            generation: self.generation,
            envelope: self.envelope(),
            cycle: CycleNo(cycle),
            kind,
            state: CycleState::Shipping,
            sectors,
            stored: Vec::new(),
            manifest: None,
            verified: previous,
            applied: sluice_proto::BlockNo(0),
            digests_wanted: false,
            read_rate: None,
        }
    }

    fn salt(&mut self) -> [u8; 32] {
        let mut salt = [0; 32];
        salt.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_le_bytes()));
        salt
    }

    /// Makes and stores the segments of a plan; gives their entries and the stream's digest.
    pub async fn ship_segments(
        &mut self,
        cycle: CycleNo,
        plan: &SectorBitmap,
        folder: &str,
    ) -> (Vec<SegmentEntry>, Digest) {
        let blocks: Vec<_> = Blocks::of(plan).collect();
        let (mut entries, mut digest) = (Vec::new(), StreamDigest::default());
        let disk = self.padded();
        for group in blocks.chunks(self.blocks_per_segment as usize) {
            let header = Header {
                kind: ObjectKind::Segment,
                suite: self.suite,
                disk: self.disk,
                generation: self.generation,
                cycle,
                salt: self.salt(),
                fields: [0; 3],
            };
            let mut encoder = BlockEncoder::new(&self.key, &header, plan.count(), 1);
            let mut writer = SegmentWriter::new(&self.key, &header, group[0].0);
            for (block, extents) in group {
                let mut data = Vec::new();
                for extent in extents {
                    data.extend_from_slice(&disk[extent.start.offset() as usize..extent.end().offset() as usize]);
                }
                let encoded = encoder.encode(*block, extents, &data, Vec::new());
                digest.push(encoded.cv);
                writer.push(&encoded);
            }
            let (first, blocks, name) = (writer.first(), writer.blocks(), writer.name());
            let bytes = writer.finish();
            let (len, hash) = (ByteCount(bytes.len() as u64), Digest::of(&bytes));
            entries.push(SegmentEntry { first, blocks, len, hash, salt: Digest(header.salt) });
            self.store.put(&format!("{folder}/{name}"), bytes.into()).await.expect("stored");
        }
        (entries, digest.finish())
    }
}

/// A segment as the appliance tells of it before the commit.
pub(crate) fn stored(entry: &SegmentEntry) -> StoredSegment {
    StoredSegment {
        name: entry.name(),
        first: BlockNo(entry.first.0),
        blocks: entry.blocks,
        len: entry.len,
        hash: entry.hash,
    }
}
