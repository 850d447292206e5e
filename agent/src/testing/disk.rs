//! A disk in memory, and the kernel's tracking of it, which goes on while no agent runs.

use super::Dice;
use crate::source::{Source, SourceError};
use crate::tracker::{Doubt, Swap, Tracker, TrackerError, TrackingEpoch};
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_platform::AlignedBuf;
use sluice_proto::cycle::TrackerKind;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES, SectorBitmap, SectorCount};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct MemDisk(Arc<Mutex<Inner>>);

struct Inner {
    /// Whole sectors.
    data: Vec<u8>,
    size: u64,
    size_now: u64,
    reads: Vec<Extent>,
    read_delay: Duration,
    bad: Option<Extent>,
    at_rest: bool,
    active: SectorBitmap,
    ended: SectorBitmap,
    at_swap: Vec<u8>,
    doubt: Option<Doubt>,
    /// The start of a write went unmarked since the last swap.
    missed_start: bool,
    released: u64,
    breaks: bool,
    detached: bool,
    /// How often tracking began anew.
    begun_anew: u8,
}

impl MemDisk {
    /// A disk of zeros that ends where it ends.
    pub(crate) fn new(size: u64) -> Self {
        let data = vec![0; (size.div_ceil(SECTOR_BYTES) * SECTOR_BYTES) as usize];
        Self(Arc::new(Mutex::new(Inner {
            at_swap: data.clone(),
            data,
            size,
            size_now: size,
            reads: Vec::new(),
            read_delay: Duration::ZERO,
            bad: None,
            at_rest: false,
            active: SectorBitmap::new(),
            ended: SectorBitmap::new(),
            doubt: None,
            missed_start: false,
            released: 0,
            breaks: false,
            detached: false,
            begun_anew: 0,
        })))
    }

    /// A disk full of bytes that do not compress, but for a hole in the middle.
    pub(crate) fn filled(size: u64, seed: u64) -> Self {
        let disk = Self::new(size);
        {
            let inner = &mut *disk.0.lock();
            let (size, len) = (size as usize, inner.data.len());
            Dice::new(seed).fill(&mut inner.data[..size]);
            inner.data[len / 2..len / 2 + len / 5].fill(0);
        }
        disk
    }

    pub(crate) fn bytes(&self) -> ByteCount {
        ByteCount(self.0.lock().size)
    }

    pub(crate) fn sectors(&self) -> SectorCount {
        self.bytes().sectors_ceil()
    }

    /// All sectors, the last filled up with zeros.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.0.lock().data.clone()
    }

    /// What it held at the last swap.
    pub(crate) fn at_swap(&self) -> Vec<u8> {
        self.0.lock().at_swap.clone()
    }

    /// Writes, and the kernel notes it.
    pub(crate) fn write(&self, extent: Extent, dice: &mut Dice) {
        let inner = &mut *self.0.lock();
        let range = range_of(extent, inner.size.max(inner.size_now));
        dice.fill(&mut inner.data[range]);
        inner.active.set(extent);
    }

    /// A few writes here and there.
    pub(crate) fn scribble(&self, writes: u64, dice: &mut Dice) {
        let sectors = self.sectors().0;
        for _ in 0..writes {
            let start = dice.below(sectors);
            let len = (1 + dice.below(200)).min(sectors - start);
            self.write(Extent::new(start, len), dice);
        }
    }

    /// Sectors marked and not released, those of the running interval included.
    pub(crate) fn tracked(&self) -> SectorBitmap {
        let inner = self.0.lock();
        let mut all = inner.active.clone();
        all.union_with(&inner.ended);
        all
    }

    /// The kernel forgets what it tracked, as at a reboot.
    pub(crate) fn forget_tracking(&self) {
        let mut inner = self.0.lock();
        (inner.active, inner.ended) = Default::default();
    }

    /// From now on swaps and peeks are in this doubt, until the next swap is released.
    pub(crate) fn doubt(&self, doubt: Doubt) {
        self.0.lock().doubt = Some(doubt);
    }

    /// The next swap is in doubt.
    pub(crate) fn is_doubted(&self) -> bool {
        self.0.lock().doubt.is_some()
    }

    /// From now on peeks are in doubt of one instant, until the next swap.
    pub(crate) fn miss_start(&self) {
        self.0.lock().missed_start = true;
    }

    /// Somebody takes the tracking out of the kernel: the next swap finds it, and begins anew.
    pub(crate) fn detach_tracker(&self) {
        self.0.lock().detached = true;
    }

    /// The tracker fails from now on, or works again.
    pub(crate) fn break_tracker(&self, breaks: bool) {
        self.0.lock().breaks = breaks;
    }

    /// Sectors that can't be read.
    pub(crate) fn set_bad(&self, bad: Option<Extent>) {
        self.0.lock().bad = bad;
    }

    pub(crate) fn set_size_now(&self, size: u64) {
        self.0.lock().size_now = size;
    }

    /// It becomes larger, with zeros; whoever has it open sees that by asking for its size now.
    pub(crate) fn grow(&self, size: u64) {
        let inner = &mut *self.0.lock();
        inner.data.resize((size.div_ceil(SECTOR_BYTES) * SECTOR_BYTES) as usize, 0);
        inner.size_now = size;
    }

    /// It is opened anew: its size is what it has grown to. What is tracked is tracked in the old size, and gone with it.
    pub(crate) fn open_anew(&self) {
        let inner = &mut *self.0.lock();
        if inner.size_now > inner.size {
            inner.size = inner.size_now;
            (inner.active, inner.ended) = Default::default();
        }
    }

    pub(crate) fn set_at_rest(&self, at_rest: bool) {
        self.0.lock().at_rest = at_rest;
    }

    pub(crate) fn set_read_delay(&self, delay: Duration) {
        self.0.lock().read_delay = delay;
    }

    /// The extents read since this was last asked.
    pub(crate) fn take_reads(&self) -> Vec<Extent> {
        std::mem::take(&mut self.0.lock().reads)
    }
}

/// The bytes of an extent, up to the source's end.
fn range_of(extent: Extent, size: u64) -> Range<usize> {
    let end = extent.end().offset().min(size);
    extent.start.offset().min(end) as usize..end as usize
}

#[async_trait]
impl Source for MemDisk {
    fn name(&self) -> String {
        "mem".into()
    }

    fn size(&self) -> ByteCount {
        self.bytes()
    }

    fn logical_sector(&self) -> u32 {
        512
    }

    async fn current_size(&self) -> Result<ByteCount, SourceError> {
        match self.0.lock().size_now {
            0 => Err(SourceError::read("the source has vanished")),
            size => Ok(ByteCount(size)),
        }
    }

    async fn read(&self, extents: &[Extent], mut buf: AlignedBuf) -> (AlignedBuf, Result<(), SourceError>) {
        let delay = self.0.lock().read_delay;
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let mut inner = self.0.lock();
        buf.clear();
        for extent in extents {
            if inner.bad.is_some_and(|bad| bad.intersect(*extent).is_some()) {
                return (buf, Err(SourceError::read(format!("mem: {extent} can't be read"))));
            }
            buf.extend_from_slice(&inner.data[extent.start.offset() as usize..extent.end().offset() as usize]);
            inner.reads.push(*extent);
        }
        (buf, Ok(()))
    }

    async fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let inner = self.0.lock();
        let from = (offset as usize).min(inner.data.len());
        let data = inner.data[from..].iter().position(|byte| *byte != 0);
        Ok(data.map(|at| (from + at) as u64..inner.size))
    }

    fn proven_at_rest(&self) -> bool {
        self.0.lock().at_rest
    }
}

/// The tracker of one run of the agent.
pub(crate) struct MemTracker {
    disk: MemDisk,
    run: u8,
    swapped: bool,
}

impl MemTracker {
    /// A tracker that names its run of tracking by `run`.
    pub(crate) fn new(disk: &MemDisk, run: u8) -> Self {
        Self { disk: disk.clone(), run, swapped: false }
    }

    fn broken(inner: &Inner) -> Result<(), TrackerError> {
        let error = || TrackerError::Device { device: PathBuf::from("mem"), why: "broken".into() };
        if inner.breaks { Err(error()) } else { Ok(()) }
    }
}

impl Tracker for MemTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Ebpf
    }

    fn swap(&mut self) -> Result<Swap, TrackerError> {
        let inner = &mut *self.disk.0.lock();
        Self::broken(inner)?;
        inner.ended.union_with(&std::mem::take(&mut inner.active));
        inner.at_swap = inner.data.clone();
        inner.missed_start = false;
        self.swapped = true;
        if std::mem::take(&mut inner.detached) {
            inner.begun_anew += 1;
            inner.ended = SectorBitmap::new();
            return Ok(Swap { dirty: SectorBitmap::new(), doubt: Some(Doubt::Detached) });
        }
        Ok(Swap { dirty: inner.ended.clone(), doubt: inner.doubt.clone() })
    }

    fn peek(&mut self) -> Result<Swap, TrackerError> {
        let inner = self.disk.0.lock();
        Self::broken(&inner)?;
        let missed_start = inner.missed_start.then_some(Doubt::MissedStart);
        Ok(Swap { dirty: inner.active.clone(), doubt: inner.doubt.clone().or(missed_start) })
    }

    fn release(&mut self, number: u64) -> Result<(), TrackerError> {
        let mut inner = self.disk.0.lock();
        if std::mem::take(&mut self.swapped) {
            inner.ended = SectorBitmap::new();
            inner.doubt = None;
            inner.released = number;
        }
        Ok(())
    }

    fn epoch(&self) -> TrackingEpoch {
        TrackingEpoch { run: [self.run + self.disk.0.lock().begun_anew; 16], boot: [1; 16] }
    }

    fn released(&self) -> u64 {
        self.disk.0.lock().released
    }
}
