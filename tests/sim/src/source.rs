//! The source: a model disk that knows every value that each sector ever had, and the kernel's tracking of it.
//!
//! A write is queued, lands sector by sector, and completes; at each step the simulation may do something else. What a
//! sector holds is named by a number, from which its 512 bytes follow; 0 is a sector of zeros.

mod tracker;
mod workload;

pub use tracker::SimTracker;
pub use workload::workload;

use crate::life::{Life, Step};
use crate::rng::Rng;
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_agent::source::{Source, SourceError};
use sluice_agent::tracker::{Doubt, TrackingEpoch};
use sluice_platform::AlignedBuf;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES, Sector, SectorBitmap, SectorCount};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// The 512 bytes that `value` names.
pub fn bytes_of(value: u64) -> [u8; 512] {
    let mut out = [0; 512];
    if value != 0 {
        // Half of a sector compresses, half does not.
        let mut state = value;
        for (i, chunk) in out.chunks_mut(8).enumerate() {
            if i % 2 == 0 {
                state = next_state(state);
                chunk.copy_from_slice(&state.to_le_bytes());
            } else {
                chunk.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    out
}

fn next_state(state: u64) -> u64 {
    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// The value whose bytes these are; `None` where no value has them.
pub fn value_of(bytes: &[u8]) -> Option<u64> {
    if bytes.len() as u64 != SECTOR_BYTES {
        return None;
    }
    let words = || bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let value = words().nth(1)?;
    if value == 0 {
        return words().all(|word| word == 0).then_some(0);
    }
    // As `bytes_of`, but in place: every sector is looked at after every cycle.
    let mut state = value;
    let same = |(i, word): (usize, u64)| match i % 2 {
        0 => {
            state = next_state(state);
            word == state
        }
        _ => word == value,
    };
    words().enumerate().all(same).then_some(value)
}

/// What a swap of the bitmap saw.
#[derive(Clone)]
pub struct SwapMark {
    /// When.
    pub at: Instant,
    /// What every sector held by the writes that were complete.
    pub values: Vec<u64>,
    /// Values that were on their way, landed or not: an image of this instant may hold them or not.
    pub in_flight: BTreeMap<u64, Vec<u64>>,
    /// Since when no plan that counts was made by it.
    pub forgotten: Option<Instant>,
}

struct Inner {
    values: Vec<u64>,
    /// What each sector holds by the newest landing that is complete, and that landing's number.
    settled: Vec<(u64, u64)>,
    landings: u64,
    /// Every value that a sector took, and when.
    history: Vec<Vec<(Instant, u64)>>,
    in_flight: BTreeMap<u64, Vec<u64>>,
    next_value: u64,
    /// Marked since the last swap.
    current: SectorBitmap,
    /// Swapped out and not released.
    pending: SectorBitmap,
    /// Why marks of the running interval may be missing, and why those that were swapped out: said until that is released.
    doubt: Option<Doubt>,
    doubt_pending: Option<Doubt>,
    epoch: u64,
    /// How many sectors the kernel's tracking was begun for.
    tracked: u64,
    /// The number of the newest release in this epoch.
    released: u64,
    swaps: Vec<SwapMark>,
}

impl Inner {
    fn epoch_name(&self) -> TrackingEpoch {
        TrackingEpoch { run: [self.epoch as u8; 16], boot: [self.epoch as u8; 16] }
    }

    /// Marks a write, or says why it can't.
    fn mark(&mut self, extent: Extent, unmarked: Option<&Doubt>) {
        match unmarked {
            None => self.current.set(extent),
            Some(doubt) => _ = self.doubt.get_or_insert(doubt.clone()),
        }
    }
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub struct ModelDisk(Arc<Mutex<Inner>>);

impl ModelDisk {
    /// A disk of zeros and, in places, data.
    pub fn new(sectors: u64, rng: &Rng) -> Self {
        let now = Instant::now();
        let mut next_value = 1;
        let mut values = vec![0; sectors as usize];
        for chunk in values.chunks_mut(300) {
            if rng.once_in(2) {
                for value in chunk {
                    *value = next_value;
                    next_value += 1;
                }
            }
        }
        let history = values.iter().map(|v| vec![(now, *v)]).collect();
        let settled = values.iter().map(|v| (0, *v)).collect();
        Self(Arc::new(Mutex::new(Inner {
            values,
            settled,
            landings: 0,
            history,
            in_flight: BTreeMap::new(),
            next_value,
            current: SectorBitmap::new(),
            pending: SectorBitmap::new(),
            doubt: None,
            doubt_pending: None,
            epoch: 1,
            tracked: sectors,
            released: 0,
            swaps: Vec::new(),
        })))
    }

    /// How many sectors it has.
    pub fn sectors(&self) -> SectorCount {
        SectorCount(self.0.lock().values.len() as u64)
    }

    /// What it holds now.
    pub fn values(&self) -> Vec<u64> {
        self.0.lock().values.clone()
    }

    /// The tracking says that it may have missed something.
    pub fn doubt(&self, why: Doubt) {
        self.0.lock().doubt.get_or_insert(why);
    }

    /// One write, from its queueing to its completion. The tracking does not know the sectors of one that is `unmarked`, but says so,
    /// for this reason, wherever it would mark it.
    pub async fn write(&self, extent: Extent, zeros: bool, unmarked: Option<Doubt>, rng: &Rng) {
        let values: Vec<u64> = {
            let mut inner = self.0.lock();
            let first = inner.next_value;
            inner.next_value += extent.len.0;
            inner.mark(extent, unmarked.as_ref());
            let values: Vec<u64> = (0..extent.len.0).map(|i| if zeros { 0 } else { first + i }).collect();
            for (i, value) in values.iter().enumerate() {
                inner.in_flight.entry(extent.start.0 + i as u64).or_default().push(*value);
            }
            values
        };
        // Most writes are quick; some are on their way longer than it takes to swap, to read and to ship.
        tokio::time::sleep(rng.pause(if rng.once_in(8) { 400 } else { 3 })).await;
        let half = values.len() / 2;
        let mut landings = vec![self.land(extent.start, &values[..half]); half];
        if rng.once_in(3) {
            tokio::time::sleep(rng.pause(3)).await;
        }
        landings.resize(values.len(), self.land(Sector(extent.start.0 + half as u64), &values[half..]));
        tokio::time::sleep(rng.pause(2)).await;
        let mut inner = self.0.lock();
        for (i, (value, landing)) in values.iter().zip(landings).enumerate() {
            let sector = extent.start.0 + i as u64;
            let settled = &mut inner.settled[sector as usize];
            *settled = (*settled).max((landing, *value));
            if let Some(flying) = inner.in_flight.get_mut(&sector) {
                if let Some(at) = flying.iter().position(|v| v == value) {
                    flying.remove(at);
                }
                if flying.is_empty() {
                    inner.in_flight.remove(&sector);
                }
            }
        }
        inner.mark(extent, unmarked.as_ref());
    }

    /// The values are on the medium; the number of this landing.
    fn land(&self, start: Sector, values: &[u64]) -> u64 {
        let now = Instant::now();
        let mut inner = self.0.lock();
        inner.landings += 1;
        for (i, value) in values.iter().enumerate() {
            let at = start.0 as usize + i;
            inner.values[at] = *value;
            inner.history[at].push((now, *value));
        }
        inner.landings
    }

    /// The machine boots anew: the kernel has forgotten what it tracked.
    pub fn reboot(&self) {
        let mut inner = self.0.lock();
        inner.epoch += 1;
        inner.released = 0;
        (inner.current, inner.pending) = Default::default();
        (inner.doubt, inner.doubt_pending) = (None, None);
    }

    /// Somebody enlarges the disk. What is new holds zeros or, as on a volume that was used before, data.
    pub fn grow(&self, by: u64, data: bool) {
        let now = Instant::now();
        let mut inner = self.0.lock();
        for _ in 0..by {
            let value = if data { inner.next_value } else { 0 };
            inner.next_value += u64::from(data);
            inner.values.push(value);
            inner.settled.push((0, value));
            inner.history.push(vec![(now, value)]);
        }
    }

    /// Tracking is begun anew where the disk has another size than when it was begun.
    fn track(&self) {
        let sectors = self.sectors().0;
        if self.0.lock().tracked != sectors {
            self.reboot();
            self.0.lock().tracked = sectors;
        }
    }

    /// The sectors that the tracking has for an agent which knows this run of it and its releases up to that number, or will
    /// have at the end of a write that is on its way; `None` where that agent will be told of a doubt.
    pub fn tracked_since(&self, epoch: Option<TrackingEpoch>, released: u64) -> Option<SectorBitmap> {
        let inner = self.0.lock();
        let doubted = inner.doubt.is_some() || inner.doubt_pending.is_some();
        if epoch != Some(inner.epoch_name()) || inner.released > released || doubted {
            return None;
        }
        let mut known: SectorBitmap = inner.in_flight.keys().map(|sector| Extent::new(*sector, 1)).collect();
        known.union_with(&inner.current);
        known.union_with(&inner.pending);
        Some(known)
    }

    /// The newest swap at or before `at`.
    pub fn swap_before(&self, at: Instant) -> Option<SwapMark> {
        let inner = self.0.lock();
        let before = || inner.swaps.iter().rev().filter(|s| s.at <= at);
        before().find(|s| s.forgotten.is_none()).or_else(|| before().next()).cloned()
    }

    /// No plan that still counts was made by a swap since then: the agent's state is that of then again.
    pub fn forget_swaps_since(&self, at: Instant) {
        let since = |swap: &&mut SwapMark| swap.at > at && swap.forgotten.is_none();
        self.0.lock().swaps.iter_mut().filter(since).for_each(|swap| swap.forgotten = Some(Instant::now()));
    }

    /// The agent's state is that of `at` again, which a state from before had taken the place of.
    pub fn recall_swaps_until(&self, at: Instant) {
        let since = |swap: &&mut SwapMark| swap.at <= at && swap.forgotten.is_some_and(|forgotten| forgotten >= at);
        self.0.lock().swaps.iter_mut().filter(since).for_each(|swap| swap.forgotten = None);
        self.forget_swaps_since(at);
    }

    /// True where the sector held `value` at some time from `from` to `to`, or had it on its way.
    pub fn held(&self, sector: u64, value: u64, from: Instant, to: Instant) -> bool {
        let inner = self.0.lock();
        let history = &inner.history[sector as usize];
        // Several things happen in one tick of the clock: all of its values count.
        let at_from = history.partition_point(|(at, _)| *at < from).saturating_sub(1);
        history[at_from..].iter().take_while(|(at, _)| *at <= to).any(|(_, v)| *v == value)
    }

    /// True where something landed after `from` and before `to`.
    pub fn was_written(&self, from: Instant, to: Instant) -> bool {
        self.0.lock().history.iter().flatten().any(|(at, _)| *at > from && *at < to)
    }

    /// The last values before which nobody will ask any more are let go.
    pub fn forget_before(&self, at: Instant) {
        let mut inner = self.0.lock();
        inner.swaps.retain(|s| s.at >= at);
        for history in &mut inner.history {
            let keep = history.partition_point(|(t, _)| *t < at).saturating_sub(1);
            history.drain(..keep);
        }
    }
}

/// The disk as an incarnation of the agent reads it.
pub struct SimSource {
    /// The disk.
    pub disk: ModelDisk,
    /// How large it was when it was opened.
    pub size: ByteCount,
    /// The process that reads.
    pub life: Life,
    /// Chance.
    pub rng: Rng,
    /// One read in so many fails.
    pub read_errors: u64,
}

#[async_trait]
impl Source for SimSource {
    fn name(&self) -> String {
        "sim".into()
    }
    fn size(&self) -> ByteCount {
        self.size
    }
    fn logical_sector(&self) -> u32 {
        512
    }
    async fn current_size(&self) -> Result<ByteCount, SourceError> {
        Ok(self.disk.sectors().bytes())
    }
    async fn read(&self, extents: &[Extent], mut buf: AlignedBuf) -> (AlignedBuf, Result<(), SourceError>) {
        if self.life.step() != Step::Go {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.rng.pause(4)).await;
        if self.rng.once_in(self.read_errors) {
            return (buf, Err(SourceError::read("simulated read error")));
        }
        buf.clear();
        for extent in extents {
            for sector in extent.start.0..extent.end().0 {
                let value = self.disk.0.lock().values[sector as usize];
                buf.extend_from_slice(&bytes_of(value));
                if sector % 97 == 0 {
                    // A read is not one instant either.
                    tokio::task::yield_now().await;
                }
            }
        }
        (buf, Ok(()))
    }
    async fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, SourceError> {
        Ok((offset < self.size().0).then_some(offset..self.size().0))
    }
    fn proven_at_rest(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_bytes_and_any_other_byte_is_noticed() {
        for value in [0, 1, 2, 77, u64::MAX] {
            let bytes = bytes_of(value);
            assert_eq!(value_of(&bytes), Some(value));
            assert_eq!(value_of(&bytes[..511]), None);
            for at in 0..bytes.len() {
                let mut other = bytes;
                other[at] ^= 1;
                assert_eq!(value_of(&other), None, "{value} {at}");
            }
        }
    }
}
