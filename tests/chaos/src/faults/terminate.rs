//! An end in good order in the middle of everything, as at an upgrade.

use super::Fault;
use crate::scene::Scene;
use sluice_test_support::cluster::Part;
use std::fmt;

/// SIGTERM, which must lead to exit code 0; then it is started again.
pub struct Terminate {
    pub part: Part,
}

impl Fault for Terminate {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let ended = scene.terminate(self.part);
        scene.counts.add("terminations", u64::from(ended));
        ended
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.start(self.part);
    }
}

impl fmt::Display for Terminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGTERM of the {}", self.part.word())
    }
}
