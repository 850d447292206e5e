//! Tests of the formats, against a plain model, QEMU and independent readers.

mod crash;
mod disk;
mod export;
mod foreign;
mod grow;
mod hostile;
mod in_place;
mod layout;
mod qemu;

use super::{Format, Layout, run_steps};
use sluice_proto::ByteCount;
use sluice_proto::env::Entropy;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// 2026-11-20.
const NOW_MS: u64 = 1_795_132_800_000;

/// Numbers that look random and are the same in every run (SplitMix64).
pub(super) struct TestIds(AtomicU64);

impl TestIds {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&self, n: u64) -> u64 {
        self.next() % n
    }
    fn bytes(&self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.fill(&mut bytes);
        bytes
    }
}

impl Entropy for TestIds {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn new_layout(format: Format, size: u64) -> Layout {
    Layout::create(format, ByteCount(size), &TestIds::new(1), NOW_MS).expect("a layout")
}

/// A new image in a file.
fn new_file(path: &Path, format: Format, size: u64) -> (File, Layout) {
    let layout = new_layout(format, size);
    let mut file = File::options().read(true).write(true).create_new(true).open(path).expect("a new file");
    run_steps(&mut file, layout.steps()).expect("the layout's steps");
    (file, layout)
}

fn file_size(file: &File) -> ByteCount {
    ByteCount(file.metadata().expect("metadata").len())
}
