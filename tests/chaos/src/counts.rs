//! What was done and what was seen, over all rounds.

use sluice_test_support::cluster::Part;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// Counts by name.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    kills: [u64; 3],
    others: BTreeMap<String, u64>,
}

impl Counts {
    /// A process was killed.
    pub fn kill(&mut self, part: Part) {
        self.kills[part as usize] += 1;
    }

    /// Something else happened so many times.
    pub fn add(&mut self, what: &str, times: u64) {
        *self.others.entry(what.to_owned()).or_default() += times;
    }

    /// How many processes were killed.
    pub fn kills(&self) -> u64 {
        self.kills.iter().sum()
    }

    /// How often something else happened.
    pub fn of(&self, what: &str) -> u64 {
        self.others.get(what).copied().unwrap_or_default()
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for part in Part::ALL {
            self.kills[part as usize] += other.kills[part as usize];
        }
        other.others.iter().for_each(|(what, times)| self.add(what, *times));
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |part: Part| self.kills[part as usize];
        let [agent, appliance, hydrator] = [Part::Agent, Part::Appliance, Part::Hydrator].map(of);
        write!(f, "{} kills (agent {agent}, appliance {appliance}, hydrator {hydrator})", self.kills())?;
        self.others.iter().try_for_each(|(what, times)| write!(f, ", {times} {what}"))
    }
}
