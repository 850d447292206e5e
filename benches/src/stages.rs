//! What each stage of an initial cycle costs by itself, with the product's own code, on one thread.
//!
//! Costs are CPU seconds, so that waiting for the disk or for other processes is not in them; what the kernel's own
//! threads do (the loop device's, for one) is not in them either.

use crate::bench::Plan;
use crate::disk::Disk;
use crate::measure::own_cpu;
use crate::report::Measured;
use anyhow::Result;
use sluice_platform::buf::AlignedBuf;
use sluice_platform::direct::{DirectFile, OpenOptions};
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::keys::{DataKey, Part};
use sluice_proto::segment::{BlockDecoder, BlockEncoder, FrameData, Segment, SegmentWriter};
use sluice_proto::stream::BlockHasher;
use sluice_proto::{
    BlockNo, CycleNo, Digest, DiskId, Extent, FormatError, GRAIN_BYTES, Generation, SECTOR_BYTES, SectorCount,
};
use std::collections::BTreeMap;

const BLOCK: usize = 1 << 20;
const LEVEL: i32 = 1;

/// CPU seconds by stage, for the whole disk.
#[derive(Debug, Default)]
pub struct Costs {
    seconds: BTreeMap<&'static str, f64>,
    /// Bytes that were read, and bytes of the sealed segments.
    bytes: (u64, u64),
}

/// Stages whose sum an initial cycle by three processes can't be below. The others are parts of these.
const IN_SUM: [&str; 9] = [
    "1 read",
    "2 encode: digests, zstd 1, AES-256-GCM",
    "3 TLS: seal and open",
    "4 appliance: object's BLAKE3",
    "5 cache: write and read",
    "6 hydrator: object's BLAKE3",
    "7 decode: open, unzip, digests",
    "8 write",
    "9 read back and BLAKE3",
];

impl Costs {
    fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let before = own_cpu();
        let made = work();
        *self.seconds.entry(stage).or_default() += own_cpu() - before;
        made
    }

    /// CPU seconds of all stages.
    pub fn total(&self) -> f64 {
        IN_SUM.iter().filter_map(|stage| self.seconds.get(stage)).sum()
    }
}

/// Measures them, round after round.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    for _ in 0..plan.rounds {
        let costs = of_disk(&disk, plan.disk_bytes)?;
        let gib = costs.bytes.0 as f64 / f64::from(1 << 30);
        for (stage, seconds) in &costs.seconds {
            measured.add(&format!("{stage}, per GiB of disk"), "CPU s", seconds / gib);
        }
        measured.add("sum of 1 to 9, per GiB of disk", "CPU s", costs.total() / gib);
        measured.add("bytes sealed per byte of disk", "x", costs.bytes.1 as f64 / costs.bytes.0 as f64);
    }
    measured.note("one thread; a stage with a letter is a part of the one with the same number");
    Ok(())
}

/// One pass over the disk.
pub fn of_disk(disk: &Disk, bytes: u64) -> Result<Costs> {
    disk.warm()?;
    let source = DirectFile::open(disk.path())?;
    let target = OpenOptions::new().write(true).create(true).open(disk.beside("stages.raw"))?;
    let cache = OpenOptions::new().write(true).create(true).open(disk.beside("stages.seg"))?;
    let mut pass = Pass::new(bytes / SECTOR_BYTES);
    let mut buffer = AlignedBuf::zeroed(BLOCK);
    for block in 0..bytes / BLOCK as u64 {
        let at = block * BLOCK as u64;
        let (back, read) = pass.costs.time("1 read", || source.read_at_blocking(at, buffer, BLOCK));
        read?;
        pass.encode(block, &back);
        let (back, written) = pass.costs.time("8 write", || target.write_at_blocking(at, back, 0..BLOCK));
        written?;
        let again = pass.costs.time("9 read back and BLAKE3", || {
            let (back, read) = target.read_at_blocking(at, back, BLOCK);
            hash(block, pass.stream, &back);
            read.map(|()| back)
        });
        buffer = again?;
        if pass.writer.as_ref().is_some_and(SegmentWriter::is_full) {
            pass.ship(&cache)?;
        }
    }
    pass.ship(&cache)?;
    pass.costs.time("8 write", || target.sync_data_blocking())?;
    for name in ["stages.raw", "stages.seg"] {
        std::fs::remove_file(disk.beside(name))?;
    }
    pass.costs.bytes.0 = bytes;
    Ok(pass.costs)
}

fn hash(block: u64, stream: SectorCount, bytes: &[u8]) {
    let mut hasher = BlockHasher::new(BlockNo(block), stream);
    hasher.update(bytes);
    std::hint::black_box(hasher.finish());
}

struct Pass {
    costs: Costs,
    stream: SectorCount,
    key: DataKey,
    header: Header,
    encoder: BlockEncoder,
    decoder: BlockDecoder,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    writer: Option<SegmentWriter>,
    spare: Vec<u8>,
    sealed: Vec<u8>,
}

impl Pass {
    fn new(sectors: u64) -> Self {
        let header = Header {
            kind: ObjectKind::Segment,
            suite: Suite::Aes256Gcm,
            disk: DiskId([1; 16]),
            generation: Generation(1),
            cycle: CycleNo(1),
            salt: [2; 32],
            fields: [0; 3],
        };
        let (key, stream) = (DataKey::new([3; 32]), SectorCount(sectors));
        Self {
            costs: Costs::default(),
            stream,
            encoder: BlockEncoder::new(&key, &header, stream, LEVEL),
            decoder: BlockDecoder::default(),
            zstd: zstd::bulk::Compressor::new(LEVEL).ok(),
            writer: None,
            spare: Vec::new(),
            sealed: Vec::new(),
            key,
            header,
        }
    }

    fn encode(&mut self, block: u64, data: &[u8]) {
        let extent = Extent::new(block * BLOCK as u64 / SECTOR_BYTES, BLOCK as u64 / SECTOR_BYTES);
        let (stream, spare) = (self.stream, std::mem::take(&mut self.spare));
        let (encoder, costs) = (&mut self.encoder, &mut self.costs);
        let work = || encoder.encode(BlockNo(block), &[extent], data, spare);
        let encoded = costs.time("2 encode: digests, zstd 1, AES-256-GCM", work);
        costs.time("2a BLAKE3 of blocks", || hash(block, stream, data));
        let grains = || data.chunks(GRAIN_BYTES as usize).filter(|grain| grain.iter().any(|byte| *byte != 0));
        costs.time("2b BLAKE3 of frames", || grains().for_each(|grain| _ = std::hint::black_box(Digest::of(grain))));
        if let Some(zstd) = &mut self.zstd {
            costs.time("2c zstd 1", || grains().for_each(|grain| drop(std::hint::black_box(zstd.compress(grain)))));
        }
        let (key, header) = (&self.key, &self.header);
        let writer = self.writer.get_or_insert_with(|| SegmentWriter::new(key, header, BlockNo(block)));
        writer.push(&encoded);
        self.spare = encoded.bytes;
    }

    /// A segment's way from the agent to the target.
    fn ship(&mut self, cache: &DirectFile) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let object = self.costs.time("2 encode: digests, zstd 1, AES-256-GCM", || writer.finish());
        self.costs.bytes.1 += object.len() as u64;
        self.tls(&object)?;
        for stage in ["4 appliance: object's BLAKE3", "6 hydrator: object's BLAKE3"] {
            self.costs.time(stage, || std::hint::black_box(Digest::of(&object)));
        }
        self.costs.time("5 cache: write and read", || -> Result<()> {
            let mut padded = AlignedBuf::zeroed(object.len().next_multiple_of(4096));
            padded[..object.len()].copy_from_slice(&object);
            let len = padded.len();
            let (padded, written) = cache.write_at_blocking(0, padded, 0..len);
            written?;
            Ok(cache.read_at_blocking(0, padded, len).1?)
        })?;
        let Self { decoder, key, stream, costs, .. } = self;
        costs.time("7 decode: open, unzip, digests", || decode(decoder, key, *stream, &object))?;
        Ok(())
    }

    /// What TLS does to it at both ends: records of 16 KiB are sealed and opened, by the same library.
    fn tls(&mut self, object: &[u8]) -> Result<()> {
        let key = self.key.object_key(&self.header);
        let (sealed, costs) = (&mut self.sealed, &mut self.costs);
        let mut opened = Vec::new();
        costs.time("3 TLS: seal and open", || {
            object.chunks(16 << 10).zip(0..).try_for_each(|(record, number)| {
                let part = Part { block: 0, frame: number };
                sealed.clear();
                sealed.extend_from_slice(record);
                key.seal(part, &[], sealed, 0);
                key.open(part, &[], sealed, &mut opened, "record")
            })
        })?;
        Ok(())
    }
}

fn decode(decoder: &mut BlockDecoder, key: &DataKey, disk: SectorCount, object: &[u8]) -> Result<(), FormatError> {
    let segment = Segment::parse(object)?;
    let object_key = segment.key(key);
    std::hint::black_box(segment.block_cvs(&object_key)?);
    for position in 0..segment.blocks() as usize {
        decoder.decode(&segment, &object_key, position, disk, |_, data| {
            if let FrameData::Bytes(bytes) = data {
                std::hint::black_box(bytes);
            }
            Ok::<_, FormatError>(())
        })?;
    }
    Ok(())
}
