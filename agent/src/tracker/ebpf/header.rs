//! The area's header: which buffer is active, each buffer's flags, whose area it is, and which skipped runs were
//! answered for.

use super::device::Facts;
use super::geometry::{Geometry, HEADER_WORDS};
use super::kernel::Area;
use crate::tracker::{Doubt, TrackingEpoch};

/// Word of the running interval's number: read by the programs with each event, so alone in its cache line.
const INTERVAL: u64 = 0;
/// Words of the buffers' flags, a cache line each.
const FLAGS: u64 = 8;
/// Word that counts the starts that found no room in the table.
const FORGOTTEN: u64 = 24;
/// Word that is 1 while something may be in flight that started before tracking did.
const UNSETTLED: u64 = 32;
/// Words of the skips that were answered for.
const ANSWERED: u64 = 33;
/// Word of the newest release's number.
const RELEASED: u64 = 36;
/// Words of the identity.
const IDENTITY: u64 = 64;

/// "sluicetr": an area of ours.
const MAGIC: u64 = u64::from_be_bytes(*b"sluicetr");
/// Version of the area's layout and of what programs and agent promise each other about it. Version 1: the first.
const VERSION: u64 = 1;

// Flags, as in track.bpf.c.
/// The whole range is marked.
pub(super) const FLAG_ALL: u64 = 1;
const FLAG_PASSTHROUGH: u64 = 2;
const FLAG_UNKNOWN_BIO: u64 = 4;
const FLAG_UNKNOWN_OP: u64 = 8;
/// A request of more separate ranges than are looked at.
const FLAG_LONG_CHAIN: u64 = 32;

/// The running interval's number. Its lowest bit is the buffer that takes the marks.
pub(super) fn interval(area: &Area) -> u64 {
    area.load(INTERVAL)
}

/// Begins the interval `number`: all events that begin from now on are marked in it.
pub(super) fn begin_interval(area: &Area, number: u64) {
    area.store(INTERVAL, number);
}

/// A buffer's flags.
pub(super) fn flags(area: &Area, buffer: u64) -> u64 {
    area.load(FLAGS + 8 * (buffer & 1))
}

/// Forgets a buffer's flags; no program may be using it.
pub(super) fn clear_flags(area: &Area, buffer: u64) {
    area.store(FLAGS + 8 * (buffer & 1), 0);
}

/// The doubt that flags tell of, the gravest first.
pub(super) fn doubt_of(flags: u64) -> Option<Doubt> {
    let known = [
        (FLAG_UNKNOWN_BIO | FLAG_LONG_CHAIN, Doubt::UnknownWrite),
        (FLAG_PASSTHROUGH, Doubt::Passthrough),
        (FLAG_UNKNOWN_OP, Doubt::UnknownOperation),
    ];
    let rest = flags & !FLAG_ALL;
    let found = known.into_iter().find(|(flag, _)| rest & flag != 0).map(|(_, doubt)| doubt);
    found.or((rest != 0).then_some(Doubt::Damaged))
}

/// Starts that found no room in the table since tracking began.
pub(super) fn forgotten(area: &Area) -> u64 {
    area.load(FORGOTTEN)
}

/// True while something may be in flight that started before tracking did.
pub(super) fn unsettled(area: &Area) -> bool {
    area.load(UNSETTLED) != 0
}

/// Sets what [`unsettled`] says.
pub(super) fn set_unsettled(area: &Area, unsettled: bool) {
    area.store(UNSETTLED, unsettled.into());
}

/// Events that the programs did not see, since tracking began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skips {
    /// Starts skipped by the kernel.
    pub starts: u64,
    /// Starts that are not in the table for whatever reason, the skipped ones included.
    pub unknown: u64,
    /// Ends skipped by the kernel.
    pub ends: u64,
}

/// The skips that an earlier swap reported and that were released since.
pub(super) fn answered(area: &Area) -> Skips {
    let [starts, unknown, ends] = std::array::from_fn(|i| area.load(ANSWERED + i as u64));
    Skips { starts, unknown, ends }
}

/// Sets what [`answered`] says.
pub(super) fn set_answered(area: &Area, skips: Skips) {
    for (i, count) in [skips.starts, skips.unknown, skips.ends].into_iter().enumerate() {
        area.store(ANSWERED + i as u64, count);
    }
}

/// The number of the newest release.
pub(super) fn released(area: &Area) -> u64 {
    area.load(RELEASED)
}

/// Sets what [`released`] says.
pub(super) fn set_released(area: &Area, number: u64) {
    area.store(RELEASED, number);
}

/// Whose area it is: written before the first program runs, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which unbroken run of tracking it holds the marks of.
    pub epoch: TrackingEpoch,
    /// What is tracked.
    pub facts: Facts,
    /// log2 of the most leaves.
    pub leaf_bits: u32,
}

impl Identity {
    /// Writes the identity into a new area.
    pub fn write(&self, area: &Area) {
        for (i, value) in self.words().into_iter().enumerate() {
            area.store(IDENTITY + i as u64, value);
        }
    }

    fn words(&self) -> [u64; 14] {
        let half = |bytes: &[u8; 16], i: usize| u128::from_be_bytes(*bytes).wrapping_shr(64 * i as u32) as u64;
        let Facts { device, disk_seq, first, sectors, zone_sectors, requests } = self.facts;
        let (run, boot) = (&self.epoch.run, &self.epoch.boot);
        let layout = Geometry::new(sluice_proto::units::SectorCount(sectors), self.leaf_bits);
        [
            MAGIC,
            VERSION,
            half(run, 0),
            half(run, 1),
            half(boot, 0),
            half(boot, 1),
            device,
            disk_seq,
            first,
            sectors,
            zone_sectors,
            u64::from(requests),
            u64::from(self.leaf_bits),
            // A change of the layout's arithmetic must not be taken for the same layout.
            layout.area_words(),
        ]
    }

    /// Reads the identity of an area, or says why it is not one of ours.
    pub fn read(area: &Area) -> Result<Self, String> {
        if area.words() < HEADER_WORDS {
            return Err("too small".into());
        }
        let found: [u64; 14] = std::array::from_fn(|i| area.load(IDENTITY + i as u64));
        if found[0] != MAGIC {
            return Err("no mark of Sluice's".into());
        }
        if found[1] != VERSION {
            return Err(format!("layout version {}, this program knows {VERSION}", found[1]));
        }
        let whole = |i: usize| (u128::from(found[i + 1]) << 64 | u128::from(found[i])).to_be_bytes();
        let identity = Self {
            epoch: TrackingEpoch { run: whole(2), boot: whole(4) },
            facts: Facts {
                device: found[6],
                disk_seq: found[7],
                first: found[8],
                sectors: found[9],
                zone_sectors: found[10],
                requests: found[11] == 1,
            },
            leaf_bits: u32::try_from(found[12]).map_err(|_| "damaged identity")?,
        };
        if identity.words() != found || found[13] != area.words() {
            return Err("damaged identity".into());
        }
        Ok(identity)
    }
}
