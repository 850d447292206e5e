//! What the tests stand on: a disk, its tracker, durable records and an appliance with a target, all in memory, all
//! failing on command.

mod appliance;
mod disk;
mod fault;
mod records;
mod target;

pub(crate) use appliance::Fake;
pub(crate) use disk::{MemDisk, MemTracker};
pub(crate) use fault::Fault;
pub(crate) use records::MemRecords;

use crate::Workers;
use crate::capture::{Capture, CaptureOptions};
use crate::journal::{Identity, Journal, JournalError, Records};
use crate::tracker::ebpf::EbpfTracker;
use parking_lot::Mutex;
use sluice_proto::env::Entropy;
use sluice_proto::header::Suite;
use sluice_proto::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use sluice_proto::{DiskId, Generation};
use std::path::PathBuf;
use std::sync::Arc;

/// A folder of pins; the tracking in it ends when dropped.
pub(crate) struct Pins(pub(crate) PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        drop(EbpfTracker::detach(&self.0));
    }
}

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        out.chunks_mut(8).for_each(|chunk| {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        });
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Entropy from dice; never the same bytes twice.
pub(crate) struct Seeded(Mutex<Dice>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Dice::new(seed))))
    }
}

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill(out);
    }
}

pub(crate) const DISK: DiskId = DiskId([0xd1; 16]);
pub(crate) const GENERATION: Generation = Generation(1);

pub(crate) fn key() -> DataKey {
    DataKey::new([0x4b; 32])
}

/// The key wrapped for a generation.
pub(crate) fn envelope(generation: Generation) -> KeyEnvelope {
    let hydrator = HydratorKey::generate().expect("a key pair");
    let signer = SigningKey::from_seed(&[7; 32]);
    KeyEnvelope::wrap(&key(), DISK, generation, hydrator.public(), &signer).expect("an envelope")
}

/// A new disk's identity, for a source of this size.
pub(crate) fn identity(disk: &MemDisk) -> Identity {
    Identity::new(DISK, disk.bytes(), &key(), envelope(GENERATION))
}

/// The journal in `records`, made where there is none.
pub(crate) fn journal(records: &MemRecords, disk: &MemDisk) -> Result<Journal, JournalError> {
    let boxed: Box<dyn Records> = Box::new(records.clone());
    match Journal::open(boxed)? {
        Ok(journal) => Ok(journal),
        Err(records) => Journal::create(records, identity(disk)),
    }
}

/// A capture of `disk` that ships to `api`. `seed` must differ between runs of an agent.
pub(crate) fn capture(disk: &MemDisk, api: &Arc<Fake>, suite: Suite, seed: u64) -> Capture {
    let options = CaptureOptions { suite, ..CaptureOptions::default() };
    Capture::new(Arc::new(disk.clone()), api.clone(), Workers::inline(), Seeded::new(seed), options)
}
