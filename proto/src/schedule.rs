//! When a disk's next cycle starts, and which of the waiting disks goes first. No clock: times come in, in milliseconds of
//! whatever clock the caller keeps to.

mod admission;
#[cfg(test)]
mod tests;

pub use admission::Admission;

use crate::cycle::CycleKind;
use serde::{Deserialize, Serialize};

/// The least interval that a policy may have, in ms.
pub const INTERVAL_MS_MIN: u64 = 1000;
/// The longest pause before a failed cycle is tried again, in ms.
pub const RETRY_MS_MAX: u64 = 60_000;

/// How often a disk is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PolicyFields")]
pub struct Policy {
    /// The floor: no delta starts sooner after the end of the cycle before it. At least a second; one hour if nothing else
    /// is said.
    pub min_interval_ms: u64,
    /// The ceiling: no delta starts later, however long the cycle before it took. At least the floor; twelve hours if
    /// nothing else is said.
    pub max_interval_ms: u64,
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// The floor is too low.
    #[error("the shortest interval is {0} ms; it must be one second at least")]
    TooShort(u64),
    /// The ceiling is below the floor.
    #[error("the longest interval, {max_ms} ms, is shorter than the shortest, {min_ms} ms")]
    Crossed {
        /// The floor.
        min_ms: u64,
        /// The ceiling.
        max_ms: u64,
    },
}

impl Default for Policy {
    fn default() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        Self { min_interval_ms: HOUR_MS, max_interval_ms: 12 * HOUR_MS }
    }
}

impl Policy {
    /// A policy with this floor and ceiling.
    pub fn new(min_interval_ms: u64, max_interval_ms: u64) -> Result<Self, BadPolicy> {
        if min_interval_ms < INTERVAL_MS_MIN {
            return Err(BadPolicy::TooShort(min_interval_ms));
        }
        if max_interval_ms < min_interval_ms {
            return Err(BadPolicy::Crossed { min_ms: min_interval_ms, max_ms: max_interval_ms });
        }
        Ok(Self { min_interval_ms, max_interval_ms })
    }

    /// The pause after a verified cycle that took `duration_ms`: half as long, within floor and ceiling. So a disk is
    /// read for two thirds of the time at most, until the ceiling forces it.
    fn pause_ms(&self, duration_ms: u64) -> u64 {
        self.min_interval_ms.max(duration_ms / 2).min(self.max_interval_ms)
    }
}

/// A policy as it is stored, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFields {
    min_interval_ms: u64,
    max_interval_ms: u64,
}

impl TryFrom<PolicyFields> for Policy {
    type Error = BadPolicy;
    fn try_from(fields: PolicyFields) -> Result<Self, BadPolicy> {
        Self::new(fields.min_interval_ms, fields.max_interval_ms)
    }
}

/// How the disk's last cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// There was none.
    None,
    /// It was verified.
    Verified {
        /// What it shipped.
        kind: CycleKind,
        /// When it was started.
        started_ms: u64,
        /// When its verdict came.
        ended_ms: u64,
    },
    /// It failed.
    Failed {
        /// When its verdict came.
        ended_ms: u64,
        /// How many cycles failed since the last that was verified, this one included.
        failures: u32,
    },
}

/// The earliest time at which the next cycle may start, or `None` where none is to follow.
///
/// - The first cycle starts at once (time 0), and so does the first delta: an initial cycle's image is as old as the cycle
///   is long, so what was written meanwhile is due already.
/// - After a verified delta or resync: the pause of the policy after its end. A resync has no delta at once behind it, or a
///   disk whose tracking is in doubt every time would be read without a pause.
/// - After a verified final cycle there is none.
/// - After a failure: 1, 2, 4 and so on up to 60 seconds, doubled with each failure in a row, but never longer than the
///   policy's shortest pause, so that a failure never makes a disk wait longer than a success. How long the failed cycle
///   took does not count: what it stored is not shipped again where the source still has the same bytes, and its sectors
///   wait.
pub fn next_start(previous: &Previous, policy: &Policy) -> Option<u64> {
    match *previous {
        Previous::None => Some(0),
        Previous::Verified { kind: CycleKind::Final, .. } => None,
        Previous::Verified { kind: CycleKind::Initial, ended_ms, .. } => Some(ended_ms),
        Previous::Verified { kind: CycleKind::Delta | CycleKind::Resync, started_ms, ended_ms } => {
            // A wall clock may have been put back during the cycle.
            Some(ended_ms.saturating_add(policy.pause_ms(ended_ms.saturating_sub(started_ms))))
        }
        Previous::Failed { ended_ms, failures } => {
            Some(ended_ms.saturating_add(retry_pause_ms(failures).min(policy.pause_ms(0))))
        }
    }
}

/// The pause before another try, after so many failures in a row.
fn retry_pause_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(6);
    (1000 << doublings).min(RETRY_MS_MAX)
}

/// What goes first when cycles wait for a slot: the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A delta: small, and soon followed by another.
    Delta,
    /// An initial cycle or a resync: without it a disk has no protection.
    Initial,
    /// A final cycle: the source stands still and people wait.
    Final,
}

impl From<CycleKind> for Priority {
    fn from(kind: CycleKind) -> Self {
        match kind {
            CycleKind::Delta => Self::Delta,
            CycleKind::Initial | CycleKind::Resync => Self::Initial,
            CycleKind::Final => Self::Final,
        }
    }
}
