//! What happens to connections, by the proxies that they lead through.

use super::{Fault, link_name};
use crate::proxy::Mode;
use crate::scene::Scene;
use std::fmt;

/// All connections of a link are cut, wherever they are.
pub struct Cut {
    pub link: usize,
}

impl Fault for Cut {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let cut = scene.links[self.link].cut();
        scene.counts.add("connections cut", cut);
        cut > 0
    }

    fn end(&mut self, _: &mut Scene) {}
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut of the {}", link_name(self.link))
    }
}

/// They are cut, and new ones are refused for a while.
pub struct Refuse {
    pub link: usize,
}

impl Fault for Refuse {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        scene.links[self.link].set(Mode::Refuse);
        let cut = scene.links[self.link].cut();
        scene.counts.add("connections cut", cut);
        scene.counts.add("refusals", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.links[self.link].set(Mode::Flow);
    }
}

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut and refusal of the {}", link_name(self.link))
    }
}

/// Nothing passes for a while.
pub struct Stall {
    pub link: usize,
}

impl Fault for Stall {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        scene.links[self.link].set(Mode::Stall);
        scene.counts.add("stalls", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.links[self.link].set(Mode::Flow);
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stall of the {}", link_name(self.link))
    }
}

/// Little passes for a while.
pub struct Throttle {
    pub link: usize,
    /// In bytes a second.
    pub rate: u64,
}

impl Fault for Throttle {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        scene.links[self.link].set(Mode::Rate(self.rate));
        scene.counts.add("throttlings", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.links[self.link].set(Mode::Flow);
    }
}

impl fmt::Display for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB/s on the {}", self.rate >> 10, link_name(self.link))
    }
}
