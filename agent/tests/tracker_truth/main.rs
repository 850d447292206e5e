//! The tracker truth test: whatever is written, however, while the bitmap is swapped, every sector that changed is marked.
//!
//! Needs root and BPF. Without root it says so and passes; as root, a machine that cannot track fails it.

mod detached;
mod devices;
mod model;
mod pinned;
mod ranges;
mod raw;
mod writers;

use devices::{Loop, Pins, Zram};
use model::Model;
use sluice_agent::tracker::ebpf::{self, EbpfTracker, Options};
use sluice_proto::env::Entropy;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Random bytes for epochs.
struct Urandom;

impl Entropy for Urandom {
    fn fill(&self, out: &mut [u8]) {
        File::open("/dev/urandom").and_then(|mut f| f.read_exact(out)).expect("random bytes");
    }
}

/// False where the test cannot run as it is no root; panics where root cannot track.
fn can_track() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: tracking needs root; run the tests as root to have it tested");
        return false;
    }
    if let Err(why) = ebpf::available() {
        panic!("this machine cannot track by eBPF, so its truth is not tested: {why}");
    }
    true
}

/// Writes of all kinds in the four device tests together; SLUICE_WRITES says otherwise.
const WRITES: u64 = 1_000_000;

fn writes(share: u64) -> u64 {
    let all = std::env::var("SLUICE_WRITES").ok().and_then(|text| text.parse().ok()).unwrap_or(WRITES);
    all * share / 100
}

/// `count` writes by four threads while intervals are swapped as fast as the device can be read between them.
fn truth(name: &str, device: &Path, block: u64, count: u64, options: Options) {
    let seed = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let mut bytes = [0; 8];
        Urandom.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    eprintln!("{name}: seed {seed} (SLUICE_SEED)");
    let bytes = devices::run("blockdev", &["--getsize64", &device.display().to_string()]).parse().expect("a size");
    let pins = Pins::new(name);
    let attached = EbpfTracker::attach_with(options, device, &pins.0, None, &Urandom).expect("attached");
    model::must_begin(attached.doubt);
    let mut tracker = attached.tracker;
    let mut model = Model::begin(device, bytes, &mut tracker);
    let budget = AtomicU64::new(count);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let writer = writers::Writer::open(device, bytes, block, seed.wrapping_add(i));
                let budget = &budget;
                scope.spawn(move || writer.run(budget))
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            model.step(&mut tracker);
        }
    });
    assert_eq!(budget.load(Ordering::Relaxed), 0);
    let (swaps, changed, marked) = (model.swaps, model.changed, model.marked_total);
    model.finish(&mut tracker);
    let skipped = tracker.skipped_runs().expect("counts");
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{name}: {count} writes in {seconds:.1} s, {swaps} swaps, {changed} sectors changed between reads, \
         {marked} marked, skipped runs {skipped:?}"
    );
    assert!(swaps >= 2, "the writes were over before a swap fell among them");
}

#[test]
fn loop_device_with_512_byte_sectors_and_an_odd_size() {
    if can_track() {
        let folder = devices::folder();
        let disk = Loop::sparse(folder.path(), (64 << 20) + 3 * 512, &[]);
        truth("loop512", &disk.path, 512, writes(40), Options::default());
    }
}

#[test]
fn loop_device_with_4096_byte_sectors() {
    if can_track() {
        let folder = devices::folder();
        let disk = Loop::sparse(folder.path(), 64 << 20, &["--sector-size", "4096"]);
        truth("loop4096", &disk.path, 4096, writes(15), Options::default());
    }
}

#[test]
fn zram() {
    if can_track() {
        let disk = Zram::new(64 << 20);
        truth("zram", &disk.path, 4096, writes(25), Options::default());
    }
}

#[test]
fn partition() {
    if can_track() {
        let folder = devices::folder();
        let disk = Loop::sparse(folder.path(), 72 << 20, &["--partscan"]);
        let partition = disk.partition(2049, 100_003);
        truth("partition", &partition, 512, writes(20), Options::default());
    }
}

/// With 256 leaves for 1,024 grains most writes find no room for their precise marks.
#[test]
fn without_room_it_is_coarser_never_wrong() {
    if can_track() {
        let folder = devices::folder();
        let disk = Loop::sparse(folder.path(), 64 << 20, &[]);
        truth("overflow", &disk.path, 512, 30_000, Options { leaf_bits: 8, ..Options::default() });
    }
}
