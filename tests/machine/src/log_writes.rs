//! The log of a recorded disk, and what a power cut at some place in it leaves of the disk.
//!
//! The format is that of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst, structures in
//! drivers/md/dm-log-writes.c), as QEMU's block/blklogwrites.c writes it: a sector with magic, version, the number of
//! entries and the sector size; then for each entry a sector with place, length and flags, and the data that was
//! written. QEMU notes an operation when it is done, and before the guest hears of that.

use sluice_crash::Noise;
use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// What a disk writes whole or not at all.
const ATOM: usize = 512;
/// Where in an ext4 the second half of its superblock lies, with the checksum of both.
const SUPERBLOCK_REST: usize = 1536;

/// An operation of the recorded disk.
#[derive(Debug, Clone)]
struct Entry {
    /// Where it is on the disk, in bytes. Empty for a mere flush.
    place: Range<usize>,
    /// Where the data lies in the log; `None` where the place was discarded.
    data: Option<usize>,
    flush: bool,
    fua: bool,
}

/// All that was recorded of a disk.
#[derive(Debug)]
pub struct Log {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A place in a log at which power is cut: before the entry of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The entry is a flush: all that was written before it is there.
    AtFlush(usize),
    /// Of what was written since the last flush, some is there, some is not, and some is torn.
    Between(usize),
}

impl Cut {
    /// The number of the entry.
    pub fn entry(self) -> usize {
        match self {
            Self::AtFlush(entry) | Self::Between(entry) => entry,
        }
    }
}

/// In the order in which a replay comes by: what is not flushed yet comes before the flush.
impl Ord for Cut {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |cut: &Self| (cut.entry(), matches!(cut, Self::AtFlush(_)));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Cut {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Log {
    /// Reads a log up to its last flush: its number of entries is brought up to date then only.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!((number(0), number(8)), (MAGIC, VERSION), "{} is a log of writes", path.display());
        let count = number(16);
        let sector = u32::from_le_bytes(bytes[24..28].try_into().expect("four bytes")) as usize;
        let (mut at, mut entries) = (sector, Vec::new());
        for _ in 0..count {
            let [start, length, flags] = [0, 8, 16].map(|field| number(at + field));
            at += sector;
            let start = start as usize * sector;
            let place = start..start + length as usize * sector;
            assert_eq!(flags & MARK, 0, "nobody sets marks");
            let data = (flags & DISCARD == 0).then_some(at);
            at += data.map_or(0, |_| place.len());
            entries.push(Entry { place, data, flush: flags & FLUSH != 0, fua: flags & FUA != 0 });
        }
        assert!(at <= bytes.len(), "{} is shorter than it says", path.display());
        Self { bytes, entries }
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of them are flushes.
    pub fn flushes(&self) -> usize {
        self.entries.iter().filter(|entry| entry.flush).count()
    }

    /// A cut at every flush that leaves something else than the flush before.
    pub fn cuts_at_flushes(&self) -> Vec<Cut> {
        let mut written = false;
        let mut cuts = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            if entry.flush && std::mem::take(&mut written) {
                cuts.push(Cut::AtFlush(i));
            }
            written |= !entry.place.is_empty();
        }
        cuts
    }

    /// Cuts at so many random places where something is written and not flushed.
    pub fn cuts_between(&self, count: usize, noise: &mut Noise) -> Vec<Cut> {
        let open: Vec<usize> = (1..self.entries.len()).filter(|&i| !self.entries[i - 1].place.is_empty()).collect();
        assert!(!open.is_empty(), "nothing was ever written");
        (0..count).map(|_| Cut::Between(open[noise.below(open.len() as u64) as usize])).collect()
    }

    /// The grains of 64 KiB in `range` of the disk that were written before entry `end`.
    pub fn grains_written(&self, range: Range<usize>, end: usize) -> usize {
        let mut grains = std::collections::BTreeSet::new();
        for entry in &self.entries[..end] {
            let start = entry.place.start.max(range.start);
            let stop = entry.place.end.min(range.end);
            if start < stop {
                grains.extend((start - range.start) >> 16..=(stop - 1 - range.start) >> 16);
            }
        }
        grains.len()
    }

    /// Does the sectors of an entry for which `keep`, told where each is, holds.
    fn apply(&self, disk: &mut [u8], entry: &Entry, mut keep: impl FnMut(usize) -> bool) {
        for start in entry.place.clone().step_by(ATOM) {
            if keep(start) {
                let sector = &mut disk[start..start + ATOM];
                match entry.data {
                    Some(data) => {
                        let from = data + start - entry.place.start;
                        sector.copy_from_slice(&self.bytes[from..from + ATOM]);
                    }
                    None => sector.fill(0),
                }
            }
        }
    }
}

/// A recorded disk as it comes to be, cut by cut.
#[derive(Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    /// All up to `flushed`, and what was forced through since.
    disk: Vec<u8>,
    flushed: usize,
    /// A sector that is not torn from the one before it.
    bound: Option<usize>,
}

impl<'a> Replay<'a> {
    /// Begins with what was on the disk before.
    pub fn new(log: &'a Log, disk: Vec<u8>) -> Self {
        Self { log, disk, flushed: 0, bound: None }
    }

    /// The same, where an ext4 begins at byte `start` of the disk: the two sectors of its superblock share one fate. It is
    /// written in place and not journalled, so ext4 takes it for granted that they get there together: one that was torn
    /// neither mounts nor passes `e2fsck -p`.
    #[must_use]
    pub fn with_ext4_at(self, start: usize) -> Self {
        Self { bound: Some(start + SUPERBLOCK_REST), ..self }
    }

    /// The disk after a cut, which is not before the last one.
    pub fn cut(&mut self, cut: Cut, noise: &mut Noise) -> Vec<u8> {
        let entries = &self.log.entries[..cut.entry()];
        let last = match cut {
            Cut::AtFlush(entry) => entry,
            Cut::Between(_) => entries.iter().rposition(|entry| entry.flush).unwrap_or(0),
        };
        assert!(last >= self.flushed, "cuts come in their order");
        for entry in &entries[self.flushed..last] {
            self.log.apply(&mut self.disk, entry, |_| true);
        }
        self.flushed = last;
        let mut disk = self.disk.clone();
        for entry in &entries[last..] {
            // Whole, not at all, or torn.
            match noise.below(5) {
                _ if entry.fua => self.log.apply(&mut disk, entry, |_| true),
                0 | 1 => self.log.apply(&mut disk, entry, |_| true),
                2 | 3 => {}
                _ => {
                    let mut kept = None;
                    self.log.apply(&mut disk, entry, |sector| {
                        let as_before = kept.filter(|_| self.bound == Some(sector));
                        *kept.insert(as_before.unwrap_or_else(|| noise.below(2) == 0))
                    });
                }
            }
        }
        disk
    }
}
