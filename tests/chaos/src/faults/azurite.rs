//! A blob service that goes away and comes back.

use super::Fault;
use crate::scene::Scene;
use sluice_test_support::Azurite;
use std::fmt;

/// Azurite ends, in good order as it would lose what it confirmed otherwise, and is started again.
pub struct Restart;

impl Fault for Restart {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        // Stopping it a second time changes nothing, and the first to end starts it again.
        scene.azurite.as_mut().map(Azurite::stop);
        scene.counts.add("restarts of Azurite", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.azurite.as_mut().map(Azurite::start_again);
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("restart of Azurite")
    }
}
