//! The checker: images of the device, and whether every change between them was marked.

use sluice_agent::tracker::{Doubt, Tracker};
use sluice_platform::AlignedBuf;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::{Extent, Sector};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const CHUNK: usize = 1 << 20;

/// Follows a device, swap by swap.
pub struct Model {
    device: File,
    buffer: AlignedBuf,
    /// The device as it was read after the last swap.
    image: Vec<u8>,
    /// What was marked in the interval before the last swap, and before the one before it.
    marked: [SectorBitmap; 2],
    /// Sectors that changed between the two last reads and were not marked before the last swap: the next must mark them.
    owed: SectorBitmap,
    /// A replica that copies, after each swap, what is marked: what the product does.
    replica: Vec<u8>,
    pub swaps: u64,
    pub changed: u64,
    pub marked_total: u64,
}

impl Model {
    /// Reads the device at rest, whole, after a first swap.
    pub fn begin(path: &Path, bytes: u64, tracker: &mut dyn Tracker) -> Self {
        let device = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).expect("the device");
        tracker.swap().expect("a first swap");
        tracker.release(tracker.released() + 1).expect("a first release");
        let mut model = Self {
            device,
            buffer: AlignedBuf::zeroed(CHUNK),
            image: vec![0; bytes as usize],
            marked: Default::default(),
            owed: SectorBitmap::new(),
            replica: Vec::new(),
            swaps: 0,
            changed: 0,
            marked_total: 0,
        };
        model.image = model.read();
        model.replica = model.image.clone();
        model
    }

    fn read(&mut self) -> Vec<u8> {
        let mut image = vec![0; self.image.len()];
        for (i, chunk) in image.chunks_mut(CHUNK).enumerate() {
            let length = chunk.len();
            self.device.read_exact_at(&mut self.buffer[..length], (i * CHUNK) as u64).expect("the device is read");
            chunk.copy_from_slice(&self.buffer[..length]);
        }
        image
    }

    /// Swaps, reads the device while writers go on, and checks the interval that ended.
    ///
    /// A sector that differs between the last read and this one was written between them. If the write ended before this
    /// swap, this interval marks it; if after, the next one does. A write that was in flight all along, over two swaps,
    /// was marked in the interval before.
    pub fn step(&mut self, tracker: &mut dyn Tracker) {
        let swap = tracker.swap().expect("swap");
        assert_eq!(swap.doubt, None, "nothing here gives cause for doubt");
        tracker.release(tracker.released() + 1).expect("release");
        self.swaps += 1;
        self.marked_total += swap.dirty.count().0;

        let mut missing = std::mem::take(&mut self.owed);
        missing.subtract(&swap.dirty);
        missing.subtract(&self.marked[1]);
        assert!(missing.is_empty(), "swap {}: changed, never marked: {:?}", self.swaps, first_runs(&missing));

        let now = self.read();
        let mut owed = differences(&self.image, &now);
        self.changed += owed.count().0;
        for run in swap.dirty.runs() {
            let range = run.start.0 as usize * 512..run.end().0 as usize * 512;
            self.replica[range.clone()].copy_from_slice(&now[range]);
        }
        owed.subtract(&swap.dirty);
        self.owed = owed;
        self.image = now;
        self.marked = [swap.dirty, std::mem::take(&mut self.marked[0])];
    }

    /// With all writers at rest: nothing is owed, the replica is the device, and a further interval is empty.
    pub fn finish(mut self, tracker: &mut dyn Tracker) {
        self.step(tracker);
        assert!(self.owed.is_empty(), "changed, never marked: {:?}", first_runs(&self.owed));
        let different = differences(&self.image, &self.replica);
        assert!(different.is_empty(), "the replica differs: {:?}", first_runs(&different));
        let idle = tracker.swap().expect("an idle swap");
        assert!(idle.dirty.is_empty() && idle.doubt.is_none(), "marks on an idle device: {:?}", idle);
    }
}

fn first_runs(bitmap: &SectorBitmap) -> Vec<Extent> {
    bitmap.runs().take(8).collect()
}

/// The sectors in which two images differ.
pub fn differences(a: &[u8], b: &[u8]) -> SectorBitmap {
    let mut different = SectorBitmap::new();
    for (big, (x, y)) in a.chunks(1 << 16).zip(b.chunks(1 << 16)).enumerate() {
        if x == y {
            continue;
        }
        for (small, (x, y)) in x.chunks(512).zip(y.chunks(512)).enumerate() {
            if x != y {
                different.set(Extent { start: Sector((big * 128 + small) as u64), ..Extent::new(0, 1) });
            }
        }
    }
    different
}

/// Attaches for a test: from nothing, which is what the doubt must say.
pub fn must_begin(doubt: Option<Doubt>) {
    assert_eq!(doubt, Some(Doubt::Begun));
}
