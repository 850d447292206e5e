//! What a round is made of, drawn from its seed.

use crate::faults::Kind;
use sluice_crash::Noise;
use sluice_e2e::Format;
use sluice_test_support::cluster::Part;
use std::path::Path;

/// Debian's libfaketime, from the package `faketime`: for programs with threads.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Where segments wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In a folder on a small file system.
    Folder,
    /// In Azurite.
    Azurite,
}

/// A round.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all of it follows from.
    pub seed: u64,
    /// Where segments wait.
    pub store: Store,
    /// The targets' format.
    pub format: Format,
    /// The tracker of each source.
    pub trackers: [&'static str; 2],
    /// Whose clock is stepped.
    pub clock: Option<Part>,
    /// The faults begin with the initial cycles; else when both disks are in step.
    pub early: bool,
    /// How many faults.
    pub faults: u64,
    /// Which of them.
    pub kinds: Vec<Kind>,
    /// Each of them happens, however rarely it is drawn.
    pub each: bool,
}

/// What leads through a proxy: the agent's way to the appliance, the hydrator's, and everybody's way to Azurite.
pub const LINKS: [&str; 3] = ["agent's link", "hydrator's link", "store's link"];
/// The last of them.
pub const STORE_LINK: usize = 2;

impl Plan {
    /// One of everything that there is, from a seed.
    pub fn drawn(seed: u64) -> Self {
        let mut noise = Noise::seeded(seed);
        let store = if noise.below(3) == 0 { Store::Azurite } else { Store::Folder };
        let formats = [Format::Vhd, Format::Vhdx, Format::VhdDynamic, Format::VhdxDynamic, Format::Raw];
        let format = formats[noise.below(formats.len() as u64) as usize];
        let trackers = if noise.below(6) == 0 { ["scan", "ebpf"] } else { ["ebpf", "ebpf"] };
        let parts = [None, Some(Part::Agent), Some(Part::Appliance), Some(Part::Hydrator)];
        // Drawn in any case, so that a seed means the same with and without libfaketime.
        let clock = parts[noise.below(4) as usize].filter(|_| Path::new(FAKETIME).exists());
        let early = noise.below(3) == 0;
        let kinds = kinds(store, clock);
        Self { seed, store, format, trackers, clock, early, faults: 40, kinds, each: false }
    }

    /// Draws a link. Where there is one to the store, which appliance and hydrator share, it is every second.
    pub fn link(&self, noise: &mut Noise) -> usize {
        match self.store {
            Store::Folder => noise.below(2) as usize,
            Store::Azurite => (noise.below(4) as usize).min(STORE_LINK),
        }
    }

    /// A short one for every day: all that can happen over this store.
    pub fn short(seed: u64, store: Store) -> Self {
        let clock = Some(Part::Hydrator).filter(|_| Path::new(FAKETIME).exists());
        Self {
            seed,
            store,
            format: Format::Vhd,
            trackers: ["ebpf", "ebpf"],
            clock,
            early: false,
            faults: 20,
            kinds: kinds(store, clock),
            each: true,
        }
    }
}

/// What can happen over this store, and to this clock.
fn kinds(store: Store, clock: Option<Part>) -> Vec<Kind> {
    let fits = |kind: &Kind| match kind {
        Kind::Azurite => store == Store::Azurite,
        Kind::FullCache | Kind::Corrupt => store == Store::Folder,
        Kind::Clock => clock.is_some(),
        _ => true,
    };
    Kind::ALL.into_iter().filter(fits).collect()
}
