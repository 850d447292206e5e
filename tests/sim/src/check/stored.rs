//! Nothing is started again at 0 %: what the appliance has taken, and the agent has noted, is not shipped again.
//!
//! Kept apart from the agent's log, which is gone where the agent lets go of a plan: a cycle that nobody has ended is not left
//! for another either, whatever its number.

use super::Checker;
use sluice_proto::CycleNo;
use std::collections::{BTreeMap, BTreeSet};

/// The agent's log of the segments that the appliance has.
pub const SEGMENTS: &str = "segments.log";
/// The record of the plan that they are of.
const PLAN: &str = "plan.json";

#[derive(Default)]
pub(super) struct Stored {
    /// Blocks by cycle: the first, and before which it ends.
    noted: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Cycles whose verdict an agent has heard.
    ended: BTreeSet<u64>,
}

impl Stored {
    /// An entry of the agent's log.
    fn note(&mut self, entry: &[u8]) {
        let number = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
        let (cycle, first, blocks) = (number(0), number(8), (entry.len() as u64 - 88) / 32);
        self.noted.entry(cycle).or_default().push((first, first + blocks));
    }

    /// Why these blocks may not be shipped.
    pub fn forbids(&mut self, cycle: CycleNo, first: u64, blocks: u64) -> Option<String> {
        let again = self.noted.get(&cycle.0).into_iter().flatten();
        let again = again.copied().find(|(from, end)| *from < first + blocks && first < *end);
        let left = self.noted.keys().find(|known| **known < cycle.0 && !self.ended.contains(known)).copied();
        self.noted.retain(|known, _| *known >= cycle.0);
        match (again, left) {
            (Some((from, _)), _) => Some(format!("{cycle:?}: block {first} is shipped again though {from} was stored")),
            (None, Some(left)) => Some(format!("{cycle:?} is shipped, and {left} was left, which nobody has ended")),
            (None, None) => None,
        }
    }
}

impl Checker {
    /// The agent has noted a segment as stored.
    pub fn stored(&self, entry: &[u8]) {
        self.0.lock().stored.note(entry);
    }

    /// An agent has heard how a cycle ended.
    pub fn ended(&self, cycle: CycleNo) {
        self.0.lock().stored.ended.insert(cycle.0);
    }

    /// Something else than a cycle's course has changed the agent's files: what counts as stored is what they say from now on.
    pub fn agent_is_changed(&self) {
        let mut inner = self.0.lock();
        inner.stored.noted.clear();
        let files = inner.agent.clone();
        if files.records.lock().contains_key(PLAN) {
            files.logs.lock().get(SEGMENTS).into_iter().flatten().for_each(|entry| inner.stored.note(entry));
        }
    }
}
