//! Death without notice.

use super::Fault;
use crate::scene::Scene;
use sluice_test_support::cluster::Part;
use std::fmt;

/// kill -9 of one process, which is started again.
pub struct Kill {
    pub part: Part,
}

impl Fault for Kill {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        scene.kill(self.part)
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.start(self.part);
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kill -9 of the {}", self.part.word())
    }
}

/// kill -9 of all that run, which are started again in any order.
pub struct KillAll {
    /// Which of the three is started first.
    pub from: usize,
    pub dead: Vec<Part>,
}

impl Fault for KillAll {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        self.dead = Part::ALL.into_iter().filter(|part| scene.kill(*part)).collect();
        !self.dead.is_empty()
    }

    fn end(&mut self, scene: &mut Scene) {
        for i in 0..self.dead.len() {
            scene.start(self.dead[(i + self.from) % self.dead.len()]);
        }
    }
}

impl fmt::Display for KillAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kill -9 of all")
    }
}
