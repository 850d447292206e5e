//! What happens to connections, by the proxies that they lead through.

use super::Fault;
use crate::plan::{LINKS, STORE_LINK};
use crate::proxy::Mode;
use crate::scene::Scene;
use std::fmt;

/// What happens to the store's link is told apart besides.
fn count(scene: &mut Scene, link: usize, what: &str, times: u64) {
    scene.counts.add(what, times);
    if link == STORE_LINK {
        scene.counts.add(&format!("{what} at the store"), times);
    }
}

/// All connections of a link are cut, wherever they are.
pub struct Cut {
    pub link: usize,
}

impl Fault for Cut {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        let cut = scene.links[self.link].cut();
        count(scene, self.link, "connections cut", cut);
        cut > 0
    }

    fn end(&mut self, _: &mut Scene) {}
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut of the {}", LINKS[self.link])
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
        count(scene, self.link, "connections cut", cut);
        count(scene, self.link, "refusals", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.links[self.link].set(Mode::Flow);
    }
}

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut and refusal of the {}", LINKS[self.link])
    }
}

/// Nothing passes for a while.
pub struct Stall {
    pub link: usize,
}

impl Fault for Stall {
    fn begin(&mut self, scene: &mut Scene) -> bool {
        scene.links[self.link].set(Mode::Stall);
        count(scene, self.link, "stalls", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.links[self.link].set(Mode::Flow);
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stall of the {}", LINKS[self.link])
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
        count(scene, self.link, "throttlings", 1);
        true
    }

    fn end(&mut self, scene: &mut Scene) {
        scene.links[self.link].set(Mode::Flow);
    }
}

impl fmt::Display for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB/s on the {}", self.rate >> 10, LINKS[self.link])
    }
}
