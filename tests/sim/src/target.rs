//! The target's medium: what was not flushed may be lost, torn or reordered when its machine crashes.

use crate::check::Checker;
use crate::life::{Life, Step};
use crate::machine::{Files, Odds, SimState};
use crate::rng::Rng;
use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_hydrator::apply::TargetFactory;
use sluice_hydrator::ledger::{Ledger, TargetRecord};
use sluice_hydrator::state::{StateError, StateStore};
use sluice_hydrator::target::{Fingerprint, Target, TargetError, TargetErrorKind, WriterMark};
use sluice_platform::AlignedBuf;
use sluice_proto::wire::Work;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES, Sector, SectorCount};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SECTOR: usize = SECTOR_BYTES as usize;

/// A machine on which a hydrator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// The one that the operator knows of.
    First,
    /// Its clone.
    Twin,
}

#[derive(Default)]
struct Inner {
    durable: Vec<u8>,
    /// Sectors that were written and not flushed, with what each durable one still holds.
    unflushed: BTreeMap<u64, Vec<u8>>,
    /// Those of them that read right, and that the medium never gets.
    doomed: BTreeSet<u64>,
    changes: i64,
    /// The machines that hold it open: one at a time, whoever believes to own it, but for a disk that both have.
    holders: BTreeSet<Machine>,
    /// Neither machine knows of the other's locks.
    shared: bool,
    /// Who began to write to it last.
    writer: WriterMark,
    /// A block device shows nothing of what was done to it.
    device: bool,
    /// Sectors that somebody changed and that were not written since.
    meddled: BTreeSet<u64>,
}

/// What shows of a target to whoever looks at it.
pub struct Looks {
    /// Its times and size.
    pub fingerprint: Fingerprint,
    /// Who began to write to it last, where it bears a mark.
    pub writer: Option<WriterMark>,
}

impl Inner {
    fn looks(&self) -> Looks {
        let (size, changes) = (self.durable.len() as u64, self.changes);
        match self.device {
            true => Looks { fingerprint: Fingerprint { size, ..Fingerprint::default() }, writer: None },
            false => Looks {
                fingerprint: Fingerprint { size, inode: 1, modified_ns: changes, changed_ns: changes, activity: None },
                writer: Some(self.writer),
            },
        }
    }

    /// Brings out what was written, but for what the medium never gets. Where that `fails` half of the rest stays where it can be
    /// read, and nobody brings it out any more.
    fn flush(&mut self, fails: bool, rng: &Rng) {
        let (unflushed, doomed) = (std::mem::take(&mut self.unflushed), std::mem::take(&mut self.doomed));
        for (sector, data) in unflushed.into_iter().filter(|(sector, _)| !doomed.contains(sector)) {
            if fails && rng.once_in(2) {
                self.unflushed.insert(sector, data);
                self.doomed.insert(sector);
            } else {
                self.durable[sector as usize * SECTOR..][..SECTOR].copy_from_slice(&data);
            }
        }
    }

    fn sector(&self, sector: u64) -> &[u8] {
        let durable = || &self.durable[sector as usize * SECTOR..][..SECTOR];
        self.unflushed.get(&sector).map_or_else(durable, Vec::as_slice)
    }

    /// Whether its lock keeps this machine from opening it.
    fn is_locked_for(&self, machine: Machine) -> bool {
        match self.shared {
            true => self.holders.contains(&machine),
            false => !self.holders.is_empty(),
        }
    }
}

/// The medium; clones are the same medium.
#[derive(Clone)]
pub struct Medium(Arc<Mutex<Inner>>);

impl Medium {
    /// A block device, or an image file; and whether two machines can have it open at once.
    pub fn new(device: bool, shared: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner { device, shared, ..Inner::default() })))
    }

    /// True where the medium is a block device.
    pub fn is_device(&self) -> bool {
        self.0.lock().device
    }

    /// True where two machines can have it open at once.
    pub fn is_shared(&self) -> bool {
        self.0.lock().shared
    }

    /// What a reader sees.
    pub fn contents(&self) -> Vec<u8> {
        let inner = self.0.lock();
        let mut bytes = inner.durable.clone();
        for (sector, data) in &inner.unflushed {
            bytes[*sector as usize * SECTOR..][..SECTOR].copy_from_slice(data);
        }
        bytes
    }

    /// The values of all sectors, each by one word: sectors are written whole.
    pub fn values(&self) -> Vec<u64> {
        let inner = self.0.lock();
        let value = |sector| u64::from_le_bytes(inner.sector(sector)[8..16].try_into().unwrap_or_default());
        (0..(inner.durable.len() / SECTOR) as u64).map(value).collect()
    }

    /// Sectors that somebody changed behind the hydrator's back, and that were not written since.
    pub fn meddled(&self) -> BTreeSet<u64> {
        self.0.lock().meddled.clone()
    }

    /// What shows of it.
    pub fn looks(&self) -> Looks {
        self.0.lock().looks()
    }

    /// The machine crashes: each sector that was not flushed is kept or lost by itself.
    pub fn crash(&self, rng: &Rng) {
        let mut inner = self.0.lock();
        if !inner.holders.is_empty() {
            // Another machine's hydrator has it, and that machine lives.
            return;
        }
        let (unflushed, doomed) = (std::mem::take(&mut inner.unflushed), std::mem::take(&mut inner.doomed));
        for (sector, data) in unflushed {
            if rng.once_in(2) && !doomed.contains(&sector) {
                inner.durable[sector as usize * SECTOR..][..SECTOR].copy_from_slice(&data);
            }
        }
        // Often nothing shows of it: the times on the medium are those that the last flush brought out.
        inner.changes += i64::from(rng.once_in(2));
    }

    /// Somebody changes a sector behind the hydrator's back.
    pub fn tamper(&self, rng: &Rng) {
        let mut inner = self.0.lock();
        if inner.durable.is_empty() {
            return;
        }
        let at = rng.below(inner.durable.len() as u64) as usize;
        inner.durable[at] ^= 0x55;
        inner.unflushed.remove(&((at / SECTOR) as u64));
        inner.meddled.insert((at / SECTOR) as u64);
        inner.changes += 1;
    }
}

/// The target as one incarnation of the hydrator writes it.
pub struct SimTarget {
    medium: Medium,
    machine: Machine,
    sectors: SectorCount,
    life: Life,
    rng: Rng,
    odds: Arc<Mutex<Odds>>,
    checker: Checker,
}

impl Drop for SimTarget {
    fn drop(&mut self) {
        self.medium.0.lock().holders.remove(&self.machine);
    }
}

impl SimTarget {
    fn look(&self) -> Result<Looks, TargetError> {
        if self.rng.once_in(self.odds.lock().target_look_errors) {
            return Err(TargetError::new(TargetErrorKind::Io, "simulated: it can't be looked at"));
        }
        Ok(self.medium.looks())
    }

    async fn put(&self, at: Sector, bytes: &[u8]) -> Result<(), TargetError> {
        let step = self.life.step();
        if step == Step::NotDone {
            std::future::pending::<()>().await;
        }
        self.checker.writes(self.machine);
        if self.rng.once_in(self.odds.lock().target_errors) {
            return Err(TargetError::new(TargetErrorKind::Full, "simulated full target"));
        }
        let lies = step == Step::Go && self.rng.once_in(self.odds.lock().target_lies);
        let dooms = lies && self.rng.once_in(2);
        if lies && !dooms {
            return Ok(());
        }
        let torn = step == Step::DoneUnheard;
        {
            let mut inner = self.medium.0.lock();
            inner.changes += 1;
            for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                if !torn || self.rng.once_in(2) {
                    let at = at.0 + i as u64;
                    inner.unflushed.insert(at, sector.to_vec());
                    inner.meddled.remove(&at);
                    _ = if dooms { inner.doomed.insert(at) } else { inner.doomed.remove(&at) };
                }
            }
        }
        if torn {
            std::future::pending::<()>().await;
        }
        if self.rng.once_in(4) {
            tokio::time::sleep(self.rng.pause(3)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Target for SimTarget {
    fn sectors(&self) -> SectorCount {
        self.sectors
    }
    async fn write(&self, at: Sector, bytes: AlignedBuf) -> Result<(), TargetError> {
        self.put(at, &bytes).await
    }
    async fn zero(&self, extent: Extent) -> Result<(), TargetError> {
        self.put(extent.start, &vec![0; extent.bytes().0 as usize]).await
    }
    async fn read(&self, extent: Extent, mut buf: AlignedBuf) -> Result<AlignedBuf, TargetError> {
        self.life.or_never().await;
        if self.rng.once_in(4) {
            tokio::time::sleep(self.rng.pause(3)).await;
        }
        if self.rng.once_in(self.odds.lock().target_read_errors) {
            return Err(TargetError::new(TargetErrorKind::Io, "simulated read error"));
        }
        buf.clear();
        let inner = self.medium.0.lock();
        for sector in extent.start.0..extent.end().0 {
            buf.extend_from_slice(inner.sector(sector));
        }
        if self.rng.once_in(self.odds.lock().target_flips) {
            let at = self.rng.below(buf.len() as u64) as usize;
            buf[at] ^= 4;
        }
        Ok(buf)
    }
    async fn next_data(&self, from: Sector) -> Result<Option<Extent>, TargetError> {
        Ok((from.0 < self.sectors.0).then(|| Extent::new(from.0, self.sectors.0 - from.0)))
    }
    async fn sync(&self) -> Result<(), TargetError> {
        tokio::time::sleep(self.rng.pause(10)).await;
        let step = self.life.step();
        let fails = self.rng.once_in(self.odds.lock().target_sync_errors);
        if step != Step::NotDone {
            self.medium.0.lock().flush(fails, &self.rng);
        }
        if step != Step::Go {
            std::future::pending::<()>().await;
        }
        if fails { Err(TargetError::new(TargetErrorKind::Io, "simulated failed flush")) } else { Ok(()) }
    }
    async fn fingerprint(&self) -> Result<Fingerprint, TargetError> {
        self.look().map(|looks| looks.fingerprint)
    }
    async fn marked_by(&self) -> Result<Option<WriterMark>, TargetError> {
        self.look().map(|looks| looks.writer)
    }
    async fn mark(&self, by: WriterMark) -> Result<bool, TargetError> {
        if self.medium.is_device() {
            return Ok(false);
        }
        let step = self.life.step();
        if step != Step::NotDone {
            let mut inner = self.medium.0.lock();
            inner.changes += 1;
            inner.writer = by;
        }
        if step != Step::Go {
            std::future::pending::<()>().await;
        }
        Ok(true)
    }
    fn describe(&self) -> String {
        "sim".into()
    }
}

fn busy() -> TargetError {
    TargetError::new(TargetErrorKind::Busy, "another hydrator has claimed the target")
}

/// One target for one disk.
pub struct SimTargets {
    /// The medium.
    pub medium: Medium,
    /// Whose hydrator it is.
    pub machine: Machine,
    /// The hydrator's records.
    pub files: Files,
    /// The process.
    pub life: Life,
    /// Chance.
    pub rng: Rng,
    /// How often things go wrong.
    pub odds: Arc<Mutex<Odds>>,
    /// Who watches.
    pub checker: Checker,
}

#[async_trait]
impl TargetFactory for SimTargets {
    async fn state(&self, _: &Work) -> Result<Arc<dyn StateStore>, StateError> {
        let (files, life) = (self.files.clone(), self.life.clone());
        Ok(Arc::new(SimState { files, life, rng: self.rng.clone(), odds: self.odds.clone() }))
    }
    async fn choose(&self, _: &Work, ledger: &Ledger) -> Result<TargetRecord, TargetError> {
        let fresh = TargetRecord { path: "sim".into(), format: "raw".into(), made: false, device: None };
        if ledger.target.is_none() && !self.medium.0.lock().durable.is_empty() {
            return Err(TargetError::new(TargetErrorKind::Exists, "the target exists and is not ours"));
        }
        Ok(ledger.target.clone().unwrap_or(fresh))
    }
    async fn make(&self, work: &Work, _: &TargetRecord) -> Result<(), TargetError> {
        self.checker.writes(self.machine);
        let mut inner = self.medium.0.lock();
        if inner.is_locked_for(self.machine) {
            return Err(busy());
        }
        inner.durable = vec![0; work.size.sectors_ceil().bytes().0 as usize];
        inner.unflushed.clear();
        inner.doomed.clear();
        inner.changes += 1;
        Ok(())
    }
    async fn open(&self, work: &Work, _: &TargetRecord) -> Result<Arc<dyn Target>, TargetError> {
        let mut inner = self.medium.0.lock();
        let sectors = ByteCount(inner.durable.len() as u64).sectors_ceil();
        if sectors < work.size.sectors_ceil() {
            return Err(TargetError::new(TargetErrorKind::SizeChanged, "somebody made the target smaller"));
        }
        if inner.is_locked_for(self.machine) {
            return Err(busy());
        }
        inner.holders.insert(self.machine);
        Ok(Arc::new(SimTarget {
            medium: self.medium.clone(),
            machine: self.machine,
            sectors,
            life: self.life.clone(),
            rng: self.rng.clone(),
            odds: self.odds.clone(),
            checker: self.checker.clone(),
        }))
    }
    async fn check_growth(&self, _: &Work, _: &TargetRecord, _: ByteCount, _: ByteCount) -> Result<(), TargetError> {
        Ok(())
    }
    async fn grow(&self, _: &Work, _: &TargetRecord, _: ByteCount, to: ByteCount) -> Result<(), TargetError> {
        self.checker.writes(self.machine);
        let mut inner = self.medium.0.lock();
        if inner.is_locked_for(self.machine) {
            return Err(busy());
        }
        let len = inner.durable.len().max(to.sectors_ceil().bytes().0 as usize);
        inner.durable.resize(len, 0);
        inner.changes += 1;
        Ok(())
    }
}
