//! A clock that somebody sets.

use super::Fault;
use crate::scene::Scene;
use sluice_crash::Noise;
use sluice_test_support::cluster::Part;
use std::fmt;

/// How far a process's clock is from everybody else's, in seconds. Not so far that certificates are not valid yet.
const SECONDS: [i64; 8] = [-36_000, -3_600, -60, -2, 2, 60, 3_600, 172_800];

/// Draws one of them.
pub fn seconds(noise: &mut Noise) -> i64 {
    SECONDS[noise.below(SECONDS.len() as u64) as usize]
}

/// The wall clock of one process is stepped, and stays where it is until the next step.
pub struct Step {
    pub part: Part,
    pub seconds: i64,
}

impl Fault for Step {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let Some((_, file)) = scene.clock.as_ref().filter(|(part, _)| *part == self.part) else { return false };
        // In one piece: a reader must not find half a number.
        let aside = file.with_extension("new");
        std::fs::write(&aside, format!("{:+}", self.seconds)).expect("a clock's file");
        sluice_test_support::command::run("mv", &[&aside, file].map(|path| sluice_test_support::devices::text(path)));
        scene.counts.add("clock steps", 1);
        true
    }

    fn end(&mut self, _: &mut Scene) {}
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {}'s clock is set {:+} s", self.part.word(), self.seconds)
    }
}
