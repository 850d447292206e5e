//! Everything that can happen, a type each. A fault begins, lasts a while in which others begin, and ends; all of its
//! choices are drawn from the seed before it begins.

mod azurite;
mod clock;
mod corrupt;
mod full;
mod grow;
mod kill;
mod link;
mod stop;
mod terminate;

use crate::plan::Plan;
use crate::scene::Scene;
use sluice_crash::Noise;
use sluice_test_support::cluster::Part;
use std::fmt::Display;
use std::time::Duration;

/// The most that a source grows by at once: 12 MiB, also by part of a file system's block.
const GROWTH_SECTORS: u64 = 24 << 10;

/// Something that happens to a scene.
pub trait Fault: Display {
    /// Begins; `false` if it can't happen now, such as the death of what is dead.
    fn begin(&mut self, scene: &mut Scene) -> bool;
    /// Takes back what can be taken back. Called once for each that began.
    fn end(&mut self, scene: &mut Scene);
}

/// Which fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// kill -9 of one process.
    Kill,
    /// kill -9 of all of them.
    KillAll,
    /// A process is stopped for a while.
    Stop,
    /// A process is ended in good order and started again.
    Terminate,
    /// All connections of a link are cut.
    Cut,
    /// And none comes about for a while.
    Refuse,
    /// Nothing passes for a while, and nobody is told.
    Stall,
    /// Little passes.
    Throttle,
    /// The cache's file system is full.
    FullCache,
    /// The targets' file system is full.
    FullTarget,
    /// A bit flips in an object of the cache.
    Corrupt,
    /// Azurite is ended and started again.
    Azurite,
    /// A process's clock is stepped.
    Clock,
    /// A source becomes larger.
    Grow,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 14] = [
        Self::Kill,
        Self::KillAll,
        Self::Stop,
        Self::Terminate,
        Self::Cut,
        Self::Refuse,
        Self::Stall,
        Self::Throttle,
        Self::FullCache,
        Self::FullTarget,
        Self::Corrupt,
        Self::Azurite,
        Self::Clock,
        Self::Grow,
    ];

    /// How often it is drawn, as against the others.
    fn weight(self) -> u64 {
        match self {
            Self::Kill => 20,
            Self::Stop | Self::Cut | Self::Corrupt => 3,
            Self::Stall | Self::Throttle | Self::Clock | Self::Azurite | Self::Grow => 2,
            Self::KillAll | Self::Terminate | Self::Refuse | Self::FullCache | Self::FullTarget => 1,
        }
    }

    /// Draws the rest of it, and the longest that it may last, in milliseconds.
    fn draw(self, plan: &Plan, noise: &mut Noise) -> (Box<dyn Fault>, u64) {
        let part = Part::ALL[noise.below(3) as usize];
        let link = plan.link(noise);
        match self {
            Self::Kill => (Box::new(kill::Kill { part }), 1_200),
            Self::KillAll => (Box::new(kill::KillAll { from: noise.below(3) as usize, dead: Vec::new() }), 800),
            Self::Stop => (Box::new(stop::Stop { part }), 4_000),
            Self::Terminate => (Box::new(terminate::Terminate { part }), 800),
            Self::Cut => (Box::new(link::Cut { link }), 0),
            Self::Refuse => (Box::new(link::Refuse { link }), 3_000),
            Self::Stall => (Box::new(link::Stall { link }), 5_000),
            Self::Throttle => (Box::new(link::Throttle { link, rate: (16 + noise.below(512)) << 10 }), 5_000),
            Self::FullCache => (Box::new(full::FullCache { room: noise.below(6 << 20), filler: None }), 6_000),
            Self::FullTarget => (Box::new(full::FullTarget { room: noise.below(1 << 20), filler: None }), 6_000),
            Self::Corrupt => (Box::new(corrupt::Corrupt { which: noise.next_number(), bit: noise.next_number() }), 0),
            Self::Azurite => (Box::new(azurite::Restart), 1_500),
            Self::Clock => {
                let part = plan.clock.unwrap_or(part);
                (Box::new(clock::Step { part, seconds: clock::seconds(noise) }), 0)
            }
            Self::Grow => {
                (Box::new(grow::Grow { source: noise.below(2) as usize, sectors: 1 + noise.below(GROWTH_SECTORS) }), 0)
            }
        }
    }
}

/// A fault of the plan.
pub struct Drawn {
    /// What happens.
    pub fault: Box<dyn Fault>,
    /// For how long.
    pub lasts: Duration,
    /// Until the next begins.
    pub gap: Duration,
    /// Where it can't happen just now it is waited for.
    pub must: bool,
}

/// Draws a round's faults.
pub fn draw(plan: &Plan, noise: &mut Noise) -> Vec<Drawn> {
    let all: u64 = plan.kinds.iter().map(|kind| kind.weight()).sum();
    let by_weight = |noise: &mut Noise| {
        let mut at = noise.below(all);
        let hit = plan.kinds.iter().find(|kind| {
            let here = at < kind.weight();
            at = at.saturating_sub(kind.weight());
            here
        });
        *hit.expect("the weights add up")
    };
    // What must happen in any case, until its turn has come.
    let mut due = if plan.each { plan.kinds.clone() } else { Vec::new() };
    let mut one = |left: u64, noise: &mut Noise| {
        let is_due = !due.is_empty() && noise.below(left) < due.len() as u64;
        let kind = if is_due { due.swap_remove(noise.below(due.len() as u64) as usize) } else { by_weight(noise) };
        let (fault, longest) = kind.draw(plan, noise);
        let lasts = Duration::from_millis(noise.below(longest + 1));
        Drawn { fault, lasts, gap: Duration::from_millis(100 + noise.below(1_900)), must: is_due }
    };
    (1..=plan.faults).rev().map(|left| one(left, noise)).collect()
}
