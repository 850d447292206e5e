//! Only the machine writes to a target that was given the disk last.

use super::Checker;
use crate::target::Machine;
use sluice_proto::wire::Lease;
use std::time::Duration;
use tokio::time::Instant;

/// For so long after another was given the disk a write may still come: an answer holds for a second, and was on its way.
const LEEWAY: Duration = Duration::from_secs(2);

/// The newest claim.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    machine: Machine,
    /// Not always the highest: an appliance may be put back, and its clock with it.
    pub lease: Lease,
    since: Instant,
}

impl Checker {
    /// An appliance gives the disk to a machine, whether that hears of it or not.
    pub fn is_claimed(&self, machine: Machine, lease: Lease) {
        let mut inner = self.0.lock();
        let since = inner.owner.filter(|owner| owner.machine == machine).map_or_else(Instant::now, |owner| owner.since);
        inner.owner = Some(Owner { machine, lease, since });
    }

    /// A machine writes to the target, makes it or grows it.
    pub fn writes(&self, machine: Machine) {
        let owner = self.0.lock().owner;
        if let Some(owner) = owner.filter(|owner| owner.machine != machine && owner.since.elapsed() > LEEWAY) {
            let (since, lease) = (owner.since.elapsed().as_millis(), owner.lease.0);
            self.violation(format!(
                "{machine:?} writes, though the disk is the other's for {since} ms, by lease {lease}"
            ));
        }
    }
}
