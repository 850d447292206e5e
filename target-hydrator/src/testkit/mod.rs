//! What the hydrator's tests share: a source that makes real cycles, an appliance that remembers, targets that fail.

mod api;
mod faults;
mod frames;
mod remote;
mod source;

pub(crate) use api::FakeApi;
pub(crate) use faults::{FaultTarget, Faults, Then};
pub(crate) use frames::Frame;
pub(crate) use remote::Remote;
pub(crate) use source::{Nines, Shipped, Source, stored};

use crate::apply::{Environment, Session, TargetFactory};
use crate::compute::Compute;
use crate::ledger::{Ledger, TargetRecord};
use crate::progress::Progress;
use crate::spool::Spool;
use crate::state::{MemoryState, StateError, StateStore};
use crate::target::{MemoryDisk, MemoryTarget, Target, TargetError};
use async_trait::async_trait;
use sluice_cache_store::{CacheStore, MemoryStore};
use sluice_proto::ByteCount;
use sluice_proto::wire::Work;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A disk in memory with its state, behind faults that a test sets.
pub(crate) struct Bench {
    pub store: Arc<MemoryStore>,
    pub source: Source,
    pub target: Arc<MemoryTarget>,
    pub state: Arc<MemoryState>,
    pub faults: Arc<Faults>,
}

impl Bench {
    /// A source of `sectors` sectors and a target that is all zeros.
    pub fn new(sectors: u64, seed: u64) -> Self {
        let store = Arc::new(MemoryStore::new());
        let source = Source::new(sectors * 512, seed, store.clone());
        let target = Arc::new(MemoryTarget::new(sluice_proto::SectorCount(sectors)));
        Self { store, source, target, state: Arc::default(), faults: Arc::default() }
    }

    pub fn environment(&self) -> Environment {
        let targets =
            MemoryTargets { target: self.target.clone(), state: self.state.clone(), faults: self.faults.clone() };
        environment(self.store.clone(), &self.source, Arc::new(targets))
    }

    /// Puts target and state back to where they were.
    pub fn rewind(&self, to: &(MemoryDisk, BTreeMap<String, Vec<u8>>)) {
        self.target.restore(&to.0);
        self.state.restore(&to.1);
    }

    /// Where target and state are.
    pub fn moment(&self) -> (MemoryDisk, BTreeMap<String, Vec<u8>>) {
        (self.target.snapshot(), self.state.snapshot())
    }

    /// A hydrator that was just started.
    pub async fn session(&self, work: &Work) -> Session {
        Session::open(self.environment(), work).await.expect("the state opens")
    }
}

/// An environment that does all work in place.
pub(crate) fn environment(store: Arc<dyn CacheStore>, source: &Source, targets: Arc<dyn TargetFactory>) -> Environment {
    Environment {
        spool: Spool::new(store.clone(), None),
        store,
        key: source.hydrator.clone(),
        targets,
        entropy: Arc::new(Nines),
        compute: Compute::Inline,
        progress: Progress::new(),
        allow_plain: false,
        budget: crate::Budget::default(),
    }
}

struct MemoryTargets {
    target: Arc<MemoryTarget>,
    state: Arc<MemoryState>,
    faults: Arc<Faults>,
}

#[async_trait]
impl TargetFactory for MemoryTargets {
    async fn state(&self, _: &Work) -> Result<Arc<dyn StateStore>, StateError> {
        Ok(Arc::new(faults::FaultState { inner: self.state.clone(), faults: self.faults.clone() }))
    }
    async fn choose(&self, _: &Work, ledger: &Ledger) -> Result<TargetRecord, TargetError> {
        let new = TargetRecord { path: "memory".into(), format: "raw".into(), made: false, device: None };
        Ok(ledger.target.clone().unwrap_or(new))
    }
    async fn make(&self, _: &Work, _: &TargetRecord) -> Result<(), TargetError> {
        Ok(())
    }
    async fn open(&self, _: &Work, _: &TargetRecord) -> Result<Arc<dyn Target>, TargetError> {
        Ok(Arc::new(FaultTarget { inner: self.target.clone(), faults: self.faults.clone() }))
    }
    async fn check_growth(&self, _: &Work, _: &TargetRecord, _: ByteCount, _: ByteCount) -> Result<(), TargetError> {
        Ok(())
    }
    async fn grow(&self, _: &Work, _: &TargetRecord, _: ByteCount, to: ByteCount) -> Result<(), TargetError> {
        let target = FaultTarget { inner: self.target.clone(), faults: self.faults.clone() };
        target.grow(to.sectors_ceil()).await
    }
}
