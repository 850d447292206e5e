//! A cycle that is called verified: the target holds what the model disk says it must.
//!
//! What the target holds is looked at when a hydrator says so, and judged once the appliance believes it: a hydrator that has
//! lost the disk to another is not believed. Where the appliance died right behind that, its successor's word to the agent tells.

use super::{Checker, Sent};
use crate::source::{ModelDisk, SwapMark, value_of};
use sluice_proto::cycle::{Consistency, CycleKind};
use sluice_proto::manifest::Manifest;
use sluice_proto::wire::Lease;
use sluice_proto::{CycleNo, Digest};
use tokio::time::Instant;

/// What the target held when a hydrator said that a cycle is verified.
#[derive(Clone)]
pub struct Seen {
    cycle: CycleNo,
    manifest: Digest,
    lease: Lease,
    /// All its values, or what is wrong with them.
    values: Result<Vec<u64>, String>,
}

impl Checker {
    /// Whether an appliance has believed that the cycle of this manifest is verified.
    pub fn has_believed(&self, manifest: Digest) -> bool {
        self.0.lock().verified.contains(&manifest)
    }

    /// A hydrator is about to say that a cycle is verified.
    pub fn says_verified(&self, cycle: CycleNo, manifest: Digest, lease: Lease) -> Seen {
        self.note(&format!("verified {}", cycle.0));
        Seen { cycle, manifest, lease, values: self.look(manifest) }
    }

    /// What a hydrator says has come to the appliance, which may die before it answers. It believes nobody but who has the
    /// newest lease.
    pub fn is_told(&self, seen: &Seen) {
        let mut inner = self.0.lock();
        if inner.owner.is_none_or(|owner| owner.lease == seen.lease) {
            inner.told.insert(seen.manifest, seen.clone());
        }
    }

    /// The agent hears that a cycle is verified.
    pub fn hears_verified(&self, manifest: Digest) {
        let told = self.0.lock().told.get(&manifest).cloned();
        match told {
            Some(seen) => self.is_verified(seen),
            None => self.violation("the agent hears of a verdict that no hydrator gave"),
        }
    }

    /// The appliance believes it.
    pub fn is_verified(&self, seen: Seen) {
        if !self.0.lock().verified.insert(seen.manifest) {
            return;
        }
        let values = match seen.values {
            Ok(values) => values,
            Err(wrong) => return self.violation(format!("{:?}: {wrong}", seen.cycle)),
        };
        let mut inner = self.0.lock();
        let Some(Sent { manifest: found, at: committed, swap: Some(swap) }) =
            inner.manifests.get(&seen.manifest).cloned()
        else {
            return;
        };
        let is_crash = found.consistency == Consistency::Crash;
        inner.crash_consistent += u64::from(is_crash);
        inner.crash_while_written += u64::from(is_crash && inner.disk.was_written(swap.at, committed));
        inner.finals += u64::from(found.kind == CycleKind::Final);
        inner.proven = Some(values);
        inner.disk.forget_before(swap.at);
    }

    fn look(&self, manifest: Digest) -> Result<Vec<u64>, String> {
        let (sent, disk, medium) = {
            let inner = self.0.lock();
            (inner.manifests.get(&manifest).cloned(), inner.disk.clone(), inner.medium.clone())
        };
        let Some(Sent { manifest: found, at: committed, swap }) = sent else {
            return Err("verified a manifest that no agent made".into());
        };
        let Some(swap) = swap else { return Err("a cycle without a swap".into()) };
        let contents = medium.contents();
        if contents.len() as u64 != found.disk_bytes.0 {
            return Err(format!("a target of {} bytes for a source of {}", contents.len(), found.disk_bytes));
        }
        let value = |(sector, bytes): (usize, &[u8])| {
            let value = value_of(bytes).ok_or_else(|| format!("sector {sector} holds what was never written"))?;
            match wrong(&disk, &found, &swap, committed, sector as u64, value) {
                Some(why) => Err(format!("({:?}, {}) {why}", found.kind, found.tracker)),
                None => Ok(value),
            }
        };
        contents.chunks(512).enumerate().map(value).collect()
    }
}

/// Why the sector may not hold `value` after this cycle.
fn wrong(
    disk: &ModelDisk,
    manifest: &Manifest,
    swap: &SwapMark,
    committed: Instant,
    sector: u64,
    value: u64,
) -> Option<String> {
    let Some(then) = swap.values.get(sector as usize).copied() else {
        return Some(format!("sector {sector} is planned by a swap of a smaller disk"));
    };
    let flying = swap.in_flight.get(&sector).is_some_and(|values| values.contains(&value));
    match manifest.consistency {
        Consistency::Crash if value == then || flying => None,
        Consistency::Crash => Some(format!("sector {sector} holds {value}, at the swap it held {then}")),
        Consistency::Fuzzy if value == then || flying || disk.held(sector, value, swap.at, committed) => None,
        Consistency::Fuzzy => {
            let planned = manifest.plan.contains(sluice_proto::Sector(sector));
            Some(format!(
                "sector {sector} holds {value}, not a value of the cycle ({then} at its swap; planned: {planned})"
            ))
        }
    }
}
