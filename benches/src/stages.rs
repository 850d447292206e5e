//! What each stage of an initial cycle costs by itself, with the product's own code.
//!
//! Costs are CPU seconds, so that waiting for the disk or for other processes is not in them. What the kernel's own
//! threads do (the loop device's, for one) is told apart.

mod tls;

use crate::bench::Plan;
use crate::disk::Disk;
use crate::machine::processors;
use crate::measure::{Cost, machine_cpu, own_cpu};
use crate::report::Measured;
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use sluice_cache_store::{CacheStore, StoreOptions};
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
use std::ops::Range;
use std::sync::Arc;
use tls::Tls;
use tokio::runtime::Runtime;

const BLOCK: usize = 1 << 20;
const LEVEL: i32 = 1;

/// The row of the bound.
pub const BOUND: &str = "CPU bound";
/// The row of what it is exceeded by.
pub const OVER_BOUND: &str = "sluice's wall over the CPU bound";

/// Stages that an initial cycle by three processes can't be without; those with a letter are parts of these.
const READ: &str = "1 read";
const ENCODE: &str = "2 encode: digests, zstd 1, AES-256-GCM";
const OBJECT: &str = "3 BLAKE3 of segments, at each of the three";
const TLS: &str = "4 TLS over loopback, both ends";
const STORE: &str = "5 cache: put and get";
const DECODE: &str = "6 decode: open, unzip, digests";
const WRITE: &str = "7 write";
const BACK: &str = "8 read back and BLAKE3";
const IN_SUM: [&str; 8] = [READ, ENCODE, OBJECT, TLS, STORE, DECODE, WRITE, BACK];

/// Measures them one by one on one thread, round after round.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let disk = Disk::with_debian(plan)?;
    measured.note(&disk.holds);
    let blocks = 0..plan.disk_bytes / BLOCK as u64;
    for _ in 0..plan.rounds(5) {
        disk.warm()?;
        let (costs, bytes) = pass(&disk, plan.disk_bytes, blocks.clone(), true)?;
        let gib = plan.disk_bytes as f64 / f64::from(1 << 30);
        for (stage, seconds) in &costs {
            measured.add(&format!("{stage}, per GiB of disk"), "CPU s", seconds / gib);
        }
        let sum: f64 = IN_SUM.iter().filter_map(|stage| costs.get(stage)).sum();
        measured.add("sum of 1 to 8, per GiB of disk", "CPU s", sum / gib);
        measured.add("bytes sealed per byte of disk", "x", bytes as f64 / plan.disk_bytes as f64);
    }
    measured.note("one thread; a stage with a letter is a part of the one with the same number");
    let rows = IN_SUM.map(|stage| format!("{stage}, per GiB of disk"));
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    measured.bars("stages", "What each stage costs, CPU seconds per GiB of disk", &rows);
    Ok(())
}

/// Measures the CPU bound of this disk's initial cycle, and what a cycle came to beside it. All stages run on as many
/// threads as there are processors, each on a part of the disk: what two of them cost beside each other, on processors
/// that share caches, is more than what one costs alone.
pub fn bound(disk: &Disk, plan: &Plan, ours: Cost, measured: &mut Measured) -> Result<()> {
    disk.warm()?;
    let (count, blocks) = (processors() as u64, plan.disk_bytes / BLOCK as u64);
    let (own, machine) = (own_cpu(), machine_cpu());
    std::thread::scope(|scope| -> Result<()> {
        let part = |i: u64| blocks * i / count..blocks * (i + 1) / count;
        let threads: Vec<_> =
            (0..count).map(|i| scope.spawn(move || pass(disk, plan.disk_bytes, part(i), false))).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a stage panicked"))??;
        }
        Ok(())
    })?;
    let (own, machine) = (own_cpu() - own, machine_cpu() - machine);
    let bound = own / count as f64;
    measured.add(BOUND, "s", bound);
    measured.add(OVER_BOUND, "x", ours.wall / bound);
    measured.add("CPU bound, with all that the machine did meanwhile", "s", machine / count as f64);
    measured.add("sluice's CPU over the sum of the stages", "x", ours.cpu / own);
    Ok(())
}

/// CPU seconds by stage, and bytes of the sealed segments, of one pass over some blocks. Where `parts` is asked for,
/// parts of stages are measured too.
fn pass(disk: &Disk, bytes: u64, blocks: Range<u64>, parts: bool) -> Result<(BTreeMap<&'static str, f64>, u64)> {
    let source = DirectFile::open(disk.path())?;
    let name = |suffix: &str| disk.beside(&format!("stages-{}{suffix}", blocks.start));
    let target = OpenOptions::new().write(true).create(true).open(name(".raw"))?;
    let mut pass = Pass::new(bytes / SECTOR_BYTES, target, &name("-cache"), parts)?;
    let mut buffer = AlignedBuf::zeroed(BLOCK);
    for block in blocks.clone() {
        let (back, read) = pass.time(READ, |_| source.read_at_blocking(block * BLOCK as u64, buffer, BLOCK));
        read?;
        pass.encode(block, &back)?;
        buffer = back;
        if pass.writer.as_ref().is_some_and(SegmentWriter::is_full) {
            pass.ship()?;
        }
    }
    pass.ship()?;
    pass.time(WRITE, |pass| pass.target.sync_data_blocking())?;
    std::fs::remove_file(name(".raw"))?;
    std::fs::remove_dir_all(name("-cache"))?;
    Ok((pass.costs, pass.sealed_bytes))
}

struct Pass {
    costs: BTreeMap<&'static str, f64>,
    parts: bool,
    stream: SectorCount,
    key: DataKey,
    header: Header,
    encoder: BlockEncoder,
    decoder: BlockDecoder,
    zstd: zstd::bulk::Compressor<'static>,
    zipped: Vec<u8>,
    writer: Option<SegmentWriter>,
    spare: Vec<u8>,
    sealed_bytes: u64,
    tls: Tls,
    store: Arc<dyn CacheStore>,
    runtime: Runtime,
    target: DirectFile,
    /// For what is written and read back: a block's data, of which zeros are left out.
    plain: AlignedBuf,
}

impl Pass {
    fn new(sectors: u64, target: DirectFile, cache: &std::path::Path, parts: bool) -> Result<Self> {
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
        std::fs::create_dir(cache)?;
        let store = sluice_cache_store::open(&format!("file://{}", cache.display()), &StoreOptions::default())?;
        Ok(Self {
            costs: BTreeMap::new(),
            parts,
            stream,
            encoder: BlockEncoder::new(&key, &header, stream, LEVEL),
            decoder: BlockDecoder::new(stream),
            zstd: zstd::bulk::Compressor::new(LEVEL)?,
            zipped: Vec::new(),
            writer: None,
            spare: Vec::new(),
            sealed_bytes: 0,
            tls: Tls::connect()?,
            store,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            target,
            plain: AlignedBuf::zeroed(BLOCK),
            key,
            header,
        })
    }

    fn time<T>(&mut self, stage: &'static str, work: impl FnOnce(&mut Self) -> T) -> T {
        if !self.parts {
            return work(self);
        }
        let before = own_cpu();
        let made = work(self);
        *self.costs.entry(stage).or_default() += own_cpu() - before;
        made
    }

    fn encode(&mut self, block: u64, data: &[u8]) -> Result<()> {
        let extent = Extent::new(block * BLOCK as u64 / SECTOR_BYTES, data.len() as u64 / SECTOR_BYTES);
        let (stream, spare) = (self.stream, std::mem::take(&mut self.spare));
        let encoded = self.time(ENCODE, |pass| pass.encoder.encode(BlockNo(block), &[extent], data, spare));
        if self.parts {
            self.time("2a BLAKE3 of blocks", |_| hash(block, stream, data));
            let grains = data.chunks(GRAIN_BYTES as usize).filter(|grain| grain.iter().any(|byte| *byte != 0));
            let joined = grains.collect::<Vec<_>>().concat();
            let mut zipped = std::mem::take(&mut self.zipped);
            zipped.clear();
            zipped.reserve(zstd::zstd_safe::compress_bound(joined.len()));
            self.time("2b zstd 1", |pass| pass.zstd.compress_to_buffer(&joined, &mut zipped))?;
            let key = self.key.object_key(&self.header);
            let part = Part { block, frame: 0 };
            self.time("2c AES-256-GCM", |_| key.seal(part, &[], std::hint::black_box(&mut zipped), 0));
            self.zipped = zipped;
        }
        let (key, header) = (&self.key, &self.header);
        let writer = self.writer.get_or_insert_with(|| SegmentWriter::new(key, header, BlockNo(block)));
        writer.push(&encoded);
        self.spare = encoded.bytes;
        Ok(())
    }

    /// A segment's way from the agent to the target, and what of it is read back.
    fn ship(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let first = writer.first().0;
        let object = Bytes::from(self.time(ENCODE, |_| writer.finish()));
        self.sealed_bytes += object.len() as u64;
        self.time(OBJECT, |_| (0..3).for_each(|_| _ = std::hint::black_box(Digest::of(&object))));
        self.time(TLS, |pass| pass.tls.carry(&object))?;
        let back = self.time(STORE, |pass| {
            let (key, len) = (format!("segment-{first}"), object.len() as u64);
            pass.runtime.block_on(async {
                pass.store.put(&key, object.clone()).await?;
                let back = pass.store.get(&key, len).await?;
                pass.store.delete(&key).await?;
                Ok::<_, sluice_cache_store::StoreError>(back)
            })
        })?;
        let segment = Segment::parse(&back)?;
        let key = segment.key(&self.key);
        self.time(DECODE, |_| segment.block_cvs(&key))?;
        for position in 0..segment.blocks() as usize {
            let block = first + position as u64;
            let runs = self.time(DECODE, |pass| {
                let (decoder, plain, mut runs) = (&mut pass.decoder, &mut pass.plain, Vec::new());
                let decoded = decoder.decode(&segment, &key, position, pass.stream, |extent, data| {
                    let from = extent.start.offset() as usize % BLOCK;
                    let to = from + extent.bytes().0 as usize;
                    if let FrameData::Bytes(bytes) = data {
                        plain[from..to].copy_from_slice(bytes);
                        join(&mut runs, from..to);
                    }
                    Ok::<_, FormatError>(())
                })?;
                std::hint::black_box(decoded.cv);
                Ok::<_, FormatError>(runs)
            })?;
            self.write_and_read_back(block, runs)?;
        }
        Ok(())
    }

    fn write_and_read_back(&mut self, block: u64, runs: Vec<Range<usize>>) -> Result<()> {
        let at = block * BLOCK as u64;
        let mut buffer = std::mem::replace(&mut self.plain, AlignedBuf::new(0));
        for run in &runs {
            let (back, written) =
                self.time(WRITE, |pass| pass.target.write_at_blocking(at + run.start as u64, buffer, run.clone()));
            written.context("writing the target")?;
            buffer = back;
        }
        let stream = self.stream;
        let back = self.time(BACK, |pass| {
            let (mut hasher, mut end) = (BlockHasher::new(BlockNo(block), stream), 0);
            for run in &runs {
                hasher.update_zeros((run.start - end) as u64);
                let (back, read) = pass.target.read_at_blocking(at + run.start as u64, buffer, run.len());
                read?;
                hasher.update(&back[..run.len()]);
                (buffer, end) = (back, run.end);
            }
            hasher.update_zeros((BLOCK - end) as u64);
            std::hint::black_box(hasher.finish());
            Ok::<_, anyhow::Error>(buffer)
        });
        self.plain = back?;
        self.plain.set_len(BLOCK);
        Ok(())
    }
}

/// Adds a run to those before it, as a longer last one where it goes on where that ends.
fn join(runs: &mut Vec<Range<usize>>, run: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

fn hash(block: u64, stream: SectorCount, bytes: &[u8]) {
    let mut hasher = BlockHasher::new(BlockNo(block), stream);
    hasher.update(bytes);
    std::hint::black_box(hasher.finish());
}
