//! Checking the segments of a cycle while it still arrives, so that its commit finds little left to do before it is written.
//!
//! Nothing of it reaches the target: what it plans, and whether it follows, only the commit says. A segment counts as checked
//! there if it is the very one that the manifest names, with the very sectors that the manifest plans for it.

use super::commit::Committed;
use super::pipeline::{LANES, Pipeline};
use super::segment::{Job, Opened, plan_digest};
use super::session::Session;
use super::stop::Stop;
use futures_util::future::join_all;
use sluice_platform::Short;
use sluice_proto::Digest;
use sluice_proto::cycle::CycleKind;
use sluice_proto::header::Suite;
use sluice_proto::wire::{StoredSegment, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What of a cycle was checked before its commit.
pub(super) struct Ahead {
    pipeline: Arc<Pipeline>,
    checked: BTreeMap<String, Checked>,
    /// Segments that were found wrong, or gone: whether they count, the commit says.
    left: BTreeSet<String>,
    _goes_first: Short,
}

/// A segment that is right in itself.
pub(super) struct Checked {
    /// BLAKE3 of the object.
    pub hash: Digest,
    pub salt: Digest,
    /// Digest of the sectors that it brings, block by block.
    pub plan: Digest,
    pub opened: Opened,
    /// The room that its plaintext takes, where that is held.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Ahead {
    fn is_of(&self, work: &Work) -> bool {
        let cycle = &self.pipeline.cycle;
        (cycle.cycle, cycle.generation, cycle.stream) == (work.cycle, work.generation, work.sectors)
    }

    /// The next few segments that nobody has looked at.
    fn next(&self, work: &Work) -> Vec<StoredSegment> {
        let new = work.stored.iter().filter(|s| !self.checked.contains_key(&s.name) && !self.left.contains(&s.name));
        new.take(LANES).cloned().collect()
    }

    /// What is known of the job's segment, if it is the very one that was checked, sealed as the cycle is.
    pub fn take(&mut self, cycle: &Committed, job: &Job) -> Option<Checked> {
        if self.pipeline.cycle.suite != cycle.manifest.suite {
            return None;
        }
        let checked = self.checked.remove(&job.name)?;
        let same = (checked.hash, Some(checked.salt)) == (job.hash, job.salt);
        (same && checked.opened.cvs.len() == job.blocks.len() && checked.plan == plan_digest(&job.blocks))
            .then_some(checked)
    }
}

impl Session {
    /// True where segments of this work can be checked ahead of its commit.
    pub fn can_check(&self, work: &Work) -> bool {
        let ledger = &self.file.ledger;
        // A new key, or a target to be made, is the commit's to deal with.
        let known = ledger.signer.is_some() && ledger.generation == work.generation && self.target.is_some();
        let open = work.kind != CycleKind::Initial && work.manifest.is_none() && work.size == ledger.source_size;
        let new = match self.ahead.as_ref().filter(|ahead| ahead.is_of(work)) {
            Some(ahead) => !ahead.next(work).is_empty(),
            None => !work.stored.is_empty(),
        };
        known && open && new
    }

    /// Checks the next few segments that have arrived.
    ///
    /// # Errors
    /// The store is away; what was checked stays so.
    pub async fn check_ahead(&mut self, work: &Work) -> Result<(), Stop> {
        if self.ahead.as_ref().is_none_or(|ahead| !ahead.is_of(work)) {
            let (Some(target), key) = (self.target.clone(), self.unlock(work).await?) else { return Ok(()) };
            let suite = match self.env.allow_plain {
                true => self.suite(work).await?,
                false => Suite::Aes256Gcm,
            };
            let pipeline = self.pipeline(work, None, key, suite, work.sectors, target);
            let _goes_first = self.env.budget.delta();
            self.ahead = Some(Ahead { pipeline, checked: BTreeMap::new(), left: BTreeSet::new(), _goes_first });
        }
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let segments = ahead.next(work);
        let checks = segments.iter().map(|segment| ahead.pipeline.clone().check_ahead(segment.clone()));
        for (segment, result) in segments.iter().zip(join_all(checks).await) {
            match result {
                Ok(checked) => drop(ahead.checked.insert(segment.name.clone(), checked)),
                Err(Stop::Fail(failure)) => {
                    tracing::debug!(disk = %work.disk, "not checked ahead of the commit: {}", failure.detail);
                    ahead.left.insert(segment.name.clone());
                }
                Err(later) => return Err(later),
            }
        }
        Ok(())
    }

    /// What was checked of another cycle than this is forgotten, and its room given back.
    pub fn forget_ahead(&mut self, but: Option<&Work>) {
        self.ahead = self.ahead.take().filter(|ahead| but.is_some_and(|work| ahead.is_of(work)));
    }
}

/// How much memory is held for what was checked of this work.
#[cfg(test)]
pub(super) async fn memory_of(session: &mut Session, work: &Work) -> usize {
    while session.can_check(work) {
        session.check_ahead(work).await.expect("the store is there");
    }
    let opened = session.ahead.iter().flat_map(|ahead| ahead.checked.values()).flat_map(|checked| &checked.opened.ops);
    opened.flatten().map(super::segment::Op::memory).sum()
}
