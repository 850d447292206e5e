//! A process that does nothing for a while and doesn't know it, as on a host that is overcommitted.

use super::Fault;
use crate::scene::Scene;
use sluice_test_support::cluster::Part;
use std::fmt;

/// SIGSTOP, then SIGCONT. It may be killed while it is stopped; then there is nothing to continue.
pub struct Stop {
    pub part: Part,
}

impl Fault for Stop {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let stopped = scene.signal(self.part, "STOP");
        scene.counts.add("stops", u64::from(stopped));
        stopped
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.signal(self.part, "CONT");
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGSTOP of the {}", self.part.word())
    }
}
