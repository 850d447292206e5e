//! No dirty bit is let go early: a sector in which source and target differ is known to somebody who will ship it.
//!
//! That holds at every instant, as at every instant the agent may die: what is durable of it is opened as its successor would
//! open it. Excused is what will be noticed before the next cycle counts: a doubt, the agent's or the tracker's or the hydrator's;
//! a write that is on its way, which is marked at its end; a sector that somebody changed on the target; a first plan that the
//! hydrator is writing and the agent no longer knows, after which nothing counts but a comparison.

use super::Checker;
use crate::machine::{Files, SimRecords};
use crate::source::ModelDisk;
use crate::target::{Looks, Medium};
use sluice_agent::journal::{Identity, Journal};
use sluice_hydrator::ledger::{LEDGER_NAME, Ledger, State};
use sluice_proto::wire::CycleRef;
use sluice_proto::{Digest, Sector};

/// Lost sectors that a violation names.
const SHOWN: usize = 8;

impl Checker {
    /// Judges what is known of the differences between source and target now.
    pub fn nothing_is_lost(&self, when: &str) {
        let (disk, medium, agent, hydrators) = {
            let inner = self.0.lock();
            if inner.has_lost {
                // All that follows from it would be told as well.
                return;
            }
            (inner.disk.clone(), inner.medium.clone(), inner.agent.clone(), inner.hydrators.clone())
        };
        let lost = lost(&disk, &medium, &agent, &hydrators);
        if !lost.is_empty() {
            self.0.lock().has_lost = true;
            let (count, shown) = (lost.len(), &lost[..lost.len().min(SHOWN)]);
            self.violation(format!("{when}: {count} sectors differ and nobody knows of it, {shown:?} among them"));
        }
    }
}

fn lost(disk: &ModelDisk, medium: &Medium, agent: &Files, hydrators: &[Files]) -> Vec<u64> {
    // What can't be opened never begins: another check tells of an agent that does not come back.
    let Ok(Ok(journal)) = Journal::open(Box::new(SimRecords::of_copy(agent))) else { return Vec::new() };
    let identity = journal.identity();
    let tracked = disk.tracked_since(identity.epoch, identity.released);
    let Some(mut known) = tracked.filter(|_| identity.doubt.is_none()) else { return Vec::new() };
    let looks = medium.looks();
    let shipped = shipped(&journal);
    let excused = |ledger: Ledger| {
        doubts(&ledger, &looks, identity, hydrators.len() > 1) || is_within_another_plan(&ledger, shipped)
    };
    if hydrators.iter().filter_map(ledger_of).all(excused) {
        return Vec::new();
    }
    known.union_with(journal.carry());
    journal.plan().into_iter().for_each(|(_, planned)| known.union_with(planned));
    differing(disk, medium, identity).filter(|sector| !known.contains(Sector(*sector))).collect()
}

/// Sectors that are not the same on both, but for those that somebody changed on the target. What the target lacks reads as zeros,
/// and what the source has grown by is nobody's yet.
fn differing(disk: &ModelDisk, medium: &Medium, identity: &Identity) -> impl Iterator<Item = u64> {
    let (target, meddled) = (medium.values(), medium.meddled());
    let source = disk.values().into_iter().take(identity.size.sectors_ceil().0 as usize);
    source.enumerate().map(|(at, value)| (at as u64, value)).filter_map(move |(sector, value)| {
        let there = target.get(sector as usize).copied().unwrap_or_default();
        (there != value && !meddled.contains(&sector)).then_some(sector)
    })
}

/// Whether this hydrator takes nothing but a comparison, or nothing that the agent would send: it knows that the target is not
/// what it left. Of two hydrators the one whose ledger is another cycle's finds that in the next manifest.
fn doubts(ledger: &Ledger, looks: &Looks, identity: &Identity, is_one_of_two: bool) -> bool {
    let changed = ledger.fingerprint.as_ref().is_some_and(|noted| !looks.fingerprint.is_still(noted));
    let another_wrote = ledger.fingerprint.is_none()
        && ledger.writing.as_ref().is_some_and(|writing| {
            looks.writer.is_some_and(|mark| mark != writing.mark) && !looks.fingerprint.is_still(&writing.before)
        });
    let behind = is_one_of_two && ledger.verified.map(|verified| verified.cycle) != identity.verified;
    ledger.doubt.is_some() || changed || another_wrote || behind
}

/// Whether this hydrator, whose target was never proven to hold anything, has begun to write a plan that is not the agent's any
/// more, as agent and appliance were put back: it goes on with that very one or compares, and takes no other.
fn is_within_another_plan(ledger: &Ledger, shipped: Option<CycleRef>) -> bool {
    let State::Applying { cycle } = ledger.state else { return false };
    ledger.verified.is_none() && ledger.compared.is_none() && shipped != Some(cycle)
}

/// The agent's plan, if it is all shipped.
fn shipped(journal: &Journal) -> Option<CycleRef> {
    let manifest = journal.manifest().ok().flatten()?;
    let (plan, _) = journal.plan()?;
    Some(CycleRef { cycle: plan.cycle, manifest: Digest::of(&manifest) })
}

fn ledger_of(files: &Files) -> Option<Ledger> {
    let record = files.records.lock().get(LEDGER_NAME).cloned()?;
    Ledger::decode(&record).ok()
}
