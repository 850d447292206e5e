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
}

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
        let fits = |kind: &Kind| match kind {
            Kind::Azurite => store == Store::Azurite,
            Kind::FullCache | Kind::Corrupt => store == Store::Folder,
            Kind::Clock => clock.is_some(),
            _ => true,
        };
        let kinds = Kind::ALL.into_iter().filter(fits).collect();
        Self { seed, store, format, trackers, clock, early, faults: 40, kinds }
    }

    /// A short one for every day: kill, stop, cut and grow, over a folder.
    pub fn short(seed: u64) -> Self {
        let kinds = vec![Kind::Kill, Kind::KillAll, Kind::Stop, Kind::Cut, Kind::Refuse, Kind::Stall, Kind::Grow];
        Self {
            seed,
            store: Store::Folder,
            format: Format::Vhd,
            trackers: ["ebpf", "ebpf"],
            clock: None,
            early: false,
            faults: 16,
            kinds,
        }
    }
}
