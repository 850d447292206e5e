//! What is small and called often, each by itself: bitmap, frame codec, tracker drain, throttle.
//!
//! `cargo bench -p sluice-bench`, with a name behind it for one of them. The drain needs root, as it reads a real
//! tracker.
#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluice_agent::tracker::Tracker;
use sluice_agent::tracker::ebpf::EbpfTracker;
use sluice_appliance::throttle::{Limit, Scheduler};
use sluice_platform::buf::AlignedBuf;
use sluice_platform::direct::DirectFile;
use sluice_platform::system::OsEntropy;
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::keys::DataKey;
use sluice_proto::segment::{BlockDecoder, BlockEncoder, FrameData, Segment, SegmentWriter};
use sluice_proto::{BlockNo, CycleNo, DiskId, Extent, FormatError, Generation, SectorBitmap, SectorCount};
use sluice_test_support::devices::Loop;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Places on a disk, the same in every run (a linear congruential generator, Knuth's MMIX).
fn places(count: u64, below: u64) -> impl Iterator<Item = u64> {
    let mut state = 1_u64;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 20) % below
    })
}

/// Sectors of a disk of 1 TiB.
const DISK: SectorCount = SectorCount((1 << 40) / 512);
/// Writes of 4 KiB in a busy interval.
const WRITES: u64 = 16_384;

fn writes() -> impl Iterator<Item = Extent> {
    places(WRITES, DISK.0 / 8).map(|place| Extent::new(place * 8, 8))
}

fn bitmap(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitmap");
    group.throughput(Throughput::Elements(WRITES));
    group.bench_function("set", |b| b.iter(|| SectorBitmap::from_extents(writes())));
    let scattered = SectorBitmap::from_extents(writes());
    let other = SectorBitmap::from_extents(writes().map(|extent| Extent::new(extent.start.0 ^ 64, 8)));
    group.bench_function("runs", |b| b.iter(|| scattered.runs().count()));
    group.bench_function("union", |b| {
        b.iter_batched(|| scattered.clone(), |mut union| union.union_with(black_box(&other)), BatchSize::LargeInput);
    });
    group.bench_function("encode", |b| b.iter(|| scattered.encode()));
    let encoded = scattered.encode();
    group.bench_function("decode", |b| b.iter(|| SectorBitmap::decode(&encoded, DISK)));
    group.finish();
}

const BLOCK: usize = 1 << 20;

/// A block as disks have them: a quarter of it zeros, half text-like, a quarter random.
fn block() -> Vec<u8> {
    let random = places(BLOCK as u64 / 4, 256).map(|byte| byte as u8);
    let text = places(BLOCK as u64 / 16, 64).flat_map(|word| format!("{word:8}").into_bytes());
    std::iter::repeat_n(0, BLOCK / 4).chain(text).chain(random).take(BLOCK).collect()
}

fn header() -> Header {
    Header {
        kind: ObjectKind::Segment,
        suite: Suite::Aes256Gcm,
        disk: DiskId([1; 16]),
        generation: Generation(1),
        cycle: CycleNo(1),
        salt: [2; 32],
        fields: [0; 3],
    }
}

fn frames(c: &mut Criterion) {
    let (data, key, header) = (block(), DataKey::new([3; 32]), header());
    let stream = SectorCount(data.len() as u64 / 512);
    let whole = [Extent::new(0, stream.0)];
    let scattered: Vec<Extent> = (0..stream.0 / 8).map(|i| Extent::new(i * 24, 8)).collect();
    let mut group = c.benchmark_group("frames");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for (name, extents) in [("a block in one piece", &whole[..]), ("a block of 4 KiB pieces", &scattered)] {
        let disk = SectorCount(extents.last().map_or(0, |last| last.end().0));
        let mut encoder = BlockEncoder::new(&key, &header, stream, 1);
        let mut spare = Vec::new();
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| spare = encoder.encode(BlockNo(0), extents, &data, std::mem::take(&mut spare)).bytes);
        });
        let mut writer = SegmentWriter::new(&key, &header, BlockNo(0));
        writer.push(&encoder.encode(BlockNo(0), extents, &data, Vec::new()));
        let object = writer.finish();
        let mut decoder = BlockDecoder::new(stream);
        group.bench_function(format!("decode {name}"), |b| b.iter(|| decode(&mut decoder, &key, disk, &object)));
    }
    group.finish();
}

fn decode(decoder: &mut BlockDecoder, key: &DataKey, disk: SectorCount, object: &[u8]) {
    let segment = Segment::parse(object).expect("a segment");
    let object_key = segment.key(key);
    let see = |_, data: FrameData<'_>| {
        if let FrameData::Bytes(bytes) = data {
            black_box(bytes);
        }
        Ok::<_, FormatError>(())
    };
    decoder.decode(&segment, &object_key, 0, disk, see).expect("a block");
}

/// A tracker of a disk of 8 GiB; what it pinned goes with it.
struct Tracked {
    tracker: EbpfTracker,
    pins: PathBuf,
    disk: Loop,
    _folder: tempfile::TempDir,
}

impl Tracked {
    const BYTES: u64 = 8 << 30;

    fn start() -> Self {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let disk = Loop::new(folder.path(), "disk.img", Self::BYTES, 512);
        let pins = Path::new("/sys/fs/bpf/sluice").join(format!("bench-{}", std::process::id()));
        let attached = EbpfTracker::attach(disk.path(), &pins, None, &OsEntropy::new()).expect("a tracker");
        Self { tracker: attached.tracker, pins, disk, _folder: folder }
    }

    fn write(&self, count: u64) {
        let file = DirectFile::open_rw(self.disk.path()).expect("the disk opens");
        let mut buffer = AlignedBuf::zeroed(4096);
        for place in places(count, Self::BYTES / 4096) {
            let (back, written) = file.write_at_blocking(place * 4096, buffer, 0..4096);
            written.expect("the disk takes writes");
            buffer = back;
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // In a drop there is nobody to tell.
        drop(EbpfTracker::detach(&self.pins));
    }
}

/// What is marked stays until it is released: each swap finds, reads and returns all of it.
fn drain(c: &mut Criterion) {
    if !sluice_test_support::command::is_root("drain") {
        return;
    }
    let mut group = c.benchmark_group("drain");
    let mut tracked = Tracked::start();
    let mut number = 0;
    group.bench_function("nothing", |b| {
        b.iter(|| {
            let swap = tracked.tracker.swap().expect("a swap");
            number += 1;
            tracked.tracker.release(number).expect("a release");
            swap.dirty.is_empty()
        });
    });
    tracked.write(WRITES);
    group.throughput(Throughput::Elements(WRITES));
    group.bench_function("16384 writes of 4 KiB", |b| b.iter(|| tracked.tracker.swap().expect("a swap").dirty.count()));
    group.finish();
}

fn throttle(c: &mut Criterion) {
    const REQUESTS: u64 = 1024;
    let mut group = c.benchmark_group("throttle");
    group.throughput(Throughput::Elements(REQUESTS));
    for disks in [1, 32] {
        let limit: Limit = "1Gbit/s".parse().expect("a limit");
        group.bench_function(format!("{REQUESTS} pieces of {disks} disks"), |b| {
            b.iter(|| {
                let mut scheduler = Scheduler::new(limit, Duration::ZERO);
                (0..REQUESTS).for_each(|i| _ = scheduler.submit(i % disks, 16 << 10));
                let (mut now, mut granted) = (Duration::ZERO, Vec::new());
                while granted.len() < REQUESTS as usize {
                    now += Duration::from_millis(2);
                    scheduler.advance(now, limit, &mut granted);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bitmap, frames, drain, throttle);
criterion_main!(benches);
