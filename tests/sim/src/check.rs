//! The checker, apart from the workload: it knows the model disk and judges what the real code says and keeps.

mod lost;
mod owner;
mod stored;
mod verdict;

pub use stored::SEGMENTS;

use crate::machine::Files;
use crate::source::{ModelDisk, SwapMark, value_of};
use crate::target::Medium;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_hydrator::ledger::UNFLUSHED_NAME;
use sluice_proto::cycle::{CycleKind, TrackerKind};
use sluice_proto::keys::{DataKey, KeyEnvelope};
use sluice_proto::manifest::Manifest;
use sluice_proto::segment::Segment;
use sluice_proto::{CycleNo, Digest, FormatError, FormatErrorKind, GRAIN_SECTORS};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

struct Inner {
    begun: Instant,
    disk: ModelDisk,
    medium: Medium,
    agent: Files,
    /// The states of all hydrators.
    hydrators: Vec<Files>,
    /// Of every generation that was begun, also where that was cut off: the newest last.
    keys: Vec<DataKey>,
    /// The key that the appliance knows for the newest generation.
    registered: Option<KeyEnvelope>,
    /// Manifests as they were first sent.
    manifests: BTreeMap<Digest, Sent>,
    /// Of each manifest the newest verdict that came to an appliance from whom the disk was then.
    told: BTreeMap<Digest, verdict::Seen>,
    /// Whose the disk is.
    owner: Option<owner::Owner>,
    /// Manifests of whose cycles an appliance has believed that they are verified.
    verified: BTreeSet<Digest>,
    /// What of the cycles that run is stored.
    stored: stored::Stored,
    /// The newest cycle that was shipped.
    shipped: CycleNo,
    /// The newest of which the appliance may know nothing of what was stored: it was put back, or heard a dead agent.
    forgotten: CycleNo,
    /// What the target was last proven to hold.
    proven: Option<Vec<u64>>,
    crash_consistent: u64,
    crash_while_written: u64,
    finals: u64,
    /// Something was let go early, which has been told.
    has_lost: bool,
    violations: Vec<String>,
    trace: blake_trace::Trace,
}

/// A manifest that the agent sent.
#[derive(Clone)]
struct Sent {
    manifest: Manifest,
    at: Instant,
    /// By which its plan was made. Found when it is sent: an agent that is put back later knows nothing of it, and yet the cycle
    /// may be verified.
    swap: Option<SwapMark>,
}

mod blake_trace {
    use sluice_proto::Digest;

    /// A digest of all that happened, to tell whether two runs are the same.
    #[derive(Default)]
    pub struct Trace(Vec<u8>, pub u64);

    impl Trace {
        pub fn add(&mut self, text: &str) {
            let mut bytes = std::mem::take(&mut self.0);
            bytes.extend_from_slice(text.as_bytes());
            self.0 = Digest::of(&bytes).0.to_vec();
            self.1 += 1;
        }
        pub fn digest(&self) -> String {
            self.0.iter().take(8).map(|b| format!("{b:02x}")).collect()
        }
    }
}

/// The checker; clones are the same one.
#[derive(Clone)]
pub struct Checker(Arc<Mutex<Inner>>);

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Cycles that were verified.
    pub verified: u64,
    /// Those of them that were called crash-consistent.
    pub crash_consistent: u64,
    /// Those of these in whose course something was written.
    pub crash_while_written: u64,
    /// The digest of the trace.
    pub trace: String,
    /// Whether there was a second hydrator that believed to own the target.
    pub twins: bool,
    /// Whether there were policies with limits on rates.
    pub limits: bool,
    /// Whether the source grew.
    pub grows: bool,
    /// Whether there were writes that the tracking did not see.
    pub blind: bool,
    /// Whether the appliance was put back to older states.
    pub put_back: bool,
    /// Whether the target was a block device.
    pub device: bool,
}

impl Checker {
    /// Judges what happens between this disk and this medium.
    pub fn new(disk: ModelDisk, medium: Medium, agent: Files, hydrators: Vec<Files>, key: DataKey) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            begun: Instant::now(),
            disk,
            medium,
            agent,
            hydrators,
            keys: vec![key],
            registered: None,
            manifests: BTreeMap::new(),
            told: BTreeMap::new(),
            owner: None,
            verified: BTreeSet::new(),
            stored: Default::default(),
            shipped: CycleNo(0),
            forgotten: CycleNo(0),
            proven: None,
            crash_consistent: 0,
            crash_while_written: 0,
            finals: 0,
            has_lost: false,
            violations: Vec::new(),
            trace: Default::default(),
        })))
    }

    /// Notes an event in the trace.
    pub fn note(&self, what: &str) {
        let mut inner = self.0.lock();
        let text = format!("{} ms {what}", inner.begun.elapsed().as_millis());
        tracing::debug!("{text}");
        inner.trace.add(&text);
    }

    /// A promise was broken.
    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::error!("VIOLATION {what}");
        self.0.lock().violations.push(what);
    }

    /// The data key of a generation that begins.
    pub fn new_key(&self, key: DataKey) {
        self.0.lock().keys.push(key);
    }

    /// The appliance has taken a generation's key.
    pub fn registered(&self, envelope: KeyEnvelope) {
        self.0.lock().registered = Some(envelope);
    }

    /// Whether this is the key that the appliance knows.
    pub fn is_registered(&self, envelope: &KeyEnvelope) -> bool {
        self.0.lock().registered.as_ref() == Some(envelope)
    }

    /// The appliance was put back to an older state: what it has forgotten may be sent again.
    pub fn appliance_forgets(&self) {
        self.note("the appliance is put back to an older state");
        // It may know a claim of before, and who had the disk last not.
        self.0.lock().owner = None;
        self.store_forgets();
    }

    /// Something of what is stored is gone: it may be sent again.
    pub fn store_forgets(&self) {
        let mut inner = self.0.lock();
        inner.forgotten = inner.shipped;
    }

    /// The appliance has opened a cycle. Where an agent asked for it that died since, and whose state was put back, it may be with
    /// another plan than the one that its successor ships, of which nothing is kept then.
    pub fn opened(&self, cycle: CycleNo, sender_is_dead: bool) {
        if sender_is_dead {
            self.note(&format!("opened {} for a dead agent", cycle.0));
            let mut inner = self.0.lock();
            inner.forgotten = inner.forgotten.max(cycle);
        }
    }

    /// The agent sends a segment: none of its blocks may be stored already.
    pub fn shipping(&self, cycle: CycleNo, name: &str, bytes: &Bytes) {
        self.note_event(cycle, name);
        let Ok(segment) = Segment::parse(bytes) else { return self.violation(format!("{name}: not a segment")) };
        let forbidden = {
            let mut inner = self.0.lock();
            inner.shipped = inner.shipped.max(cycle);
            let why = inner.stored.forbids(cycle, segment.first().0, segment.blocks());
            why.filter(|_| cycle > inner.forgotten)
        };
        forbidden.into_iter().for_each(|why| self.violation(why));
    }

    fn note_event(&self, cycle: CycleNo, name: &str) {
        let name = name.split('-').next().unwrap_or_default();
        self.note(&format!("ship {} {name}", cycle.0));
    }

    /// The agent commits a cycle.
    pub fn committed(&self, cycle: CycleNo, bytes: &Bytes) {
        self.note(&format!("commit {}", cycle.0));
        let mut inner = self.0.lock();
        let manifest = inner.keys.iter().rev().map(|key| Manifest::decode(bytes, key)).find(Result::is_ok);
        match manifest.unwrap_or_else(|| Err(FormatError::new(FormatErrorKind::Forged, "no key opens it"))) {
            Ok(manifest) => {
                // Nothing swaps between a plan and its commit: the last swap before is the plan's.
                let (at, disk) = (Instant::now(), inner.disk.clone());
                let hash = Digest::of(bytes);
                if !inner.manifests.contains_key(&hash) {
                    let swap = disk.swap_before(at);
                    let again = swap.as_ref().and_then(|swap| inner.begun_again(&manifest, swap));
                    inner.violations.extend(again);
                    inner.manifests.insert(hash, Sent { manifest, at, swap });
                }
            }
            Err(error) => inner.violations.push(format!("{cycle:?}: manifest: {error}")),
        }
    }

    /// How many final cycles were verified.
    pub fn finals(&self) -> u64 {
        self.0.lock().finals
    }

    /// What the target was last proven to hold.
    pub fn proven(&self) -> Option<Vec<u64>> {
        self.0.lock().proven.clone()
    }

    /// The judgement.
    pub fn judgement(&self) -> Judgement {
        let inner = self.0.lock();
        Judgement {
            violations: inner.violations.clone(),
            verified: inner.verified.len() as u64,
            crash_consistent: inner.crash_consistent,
            crash_while_written: inner.crash_while_written,
            trace: inner.trace.digest(),
            ..Judgement::default()
        }
    }
}

impl Inner {
    /// Whether a comparison ships most of what the target has already. A few grains it may: what somebody read wrong, or changed
    /// meanwhile.
    fn begun_again(&self, manifest: &Manifest, swap: &SwapMark) -> Option<String> {
        // A plan that came back with an older state of the agent's, or is sent in a second manifest, is of a target that was.
        let old = self.manifests.values().any(|sent| sent.manifest.cycle >= manifest.cycle);
        // What a failed flush may have lost is sent in doubt, whatever is there: another hydrator may have brought it since.
        let mut hydrators = self.hydrators.iter();
        let doubted = hydrators.len() > 1 && hydrators.any(|files| files.records.lock().contains_key(UNFLUSHED_NAME));
        if manifest.kind != CycleKind::Resync || manifest.tracker != TrackerKind::Ebpf || old || doubted {
            return None;
        }
        let (now, target) = (self.disk.values(), self.medium.contents());
        let target: Vec<_> = target.chunks(512).map(value_of).collect();
        let equal = |sector: u64| {
            let there = target.get(sector as usize).copied().flatten();
            there.is_some()
                && there == now.get(sector as usize).copied()
                && there == swap.values.get(sector as usize).copied()
        };
        let mut grains: BTreeMap<u64, bool> = BTreeMap::new();
        for sector in manifest.plan.runs().flat_map(|run| run.start.0..run.end().0) {
            *grains.entry(sector / GRAIN_SECTORS).or_insert(true) &= equal(sector);
        }
        let needless = grains.values().filter(|equal| **equal).count();
        (needless > NEEDLESS_MAX && needless * 2 > grains.len()).then(|| {
            format!("{:?}: {needless} of {} grains are shipped that the target has", manifest.cycle, grains.len())
        })
    }
}

/// Grains that a comparison may ship in vain.
const NEEDLESS_MAX: usize = 8;
