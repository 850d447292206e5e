//! For what a cycle may fail in a round: for nothing but what was really done to its disk, to its target or to its objects.

use sluice_proto::cycle::FailReason;
use sluice_proto::manifest::{MANIFEST_NAME, cycle_folder};
use sluice_proto::{CycleNo, DiskId, Generation};

#[cfg(test)]
mod tests;

/// What was done in a round that a cycle of one disk may fail for. That something was killed, cut off, stopped or late, that
/// the cache was full or a clock was stepped is not among it: none of these is a reason to give a cycle up.
#[derive(Debug)]
pub struct Happened {
    /// The disk.
    pub disk: DiskId,
    /// Its name.
    pub name: String,
    /// The sizes that it had, in bytes and in their order.
    pub sizes: Vec<u64>,
    /// The keys of the objects, of any disk, in which a bit was flipped.
    pub flipped: Vec<String>,
    /// At some time there was no room for targets.
    pub target_was_full: bool,
}

impl Happened {
    /// Whether any of it explains that `cycle` failed for this reason, told in this text.
    pub fn explains(&self, cycle: CycleNo, reason: Option<FailReason>, text: &str) -> bool {
        let flipped = || self.flipped.iter().filter_map(move |key| self.name_in(cycle, key).map(|name| (key, name)));
        match reason {
            Some(FailReason::SegmentCorrupt) => {
                flipped().any(|(_, name)| name.ends_with(".seg") && text.contains(name))
            }
            Some(FailReason::ManifestCorrupt) => {
                flipped().any(|(key, name)| name == MANIFEST_NAME && text.contains(&**key))
            }
            // Given up by the agent, which could not read what the hydrator had put there for it to compare with.
            Some(FailReason::Other) => {
                text.starts_with("the target's digests: ") && flipped().any(|(_, name)| name.starts_with("digests-"))
            }
            Some(FailReason::SourceChangedSize) => self.growths().any(|(was, is)| {
                text.starts_with(&format!("{}: the source had {was} bytes and has {is} now", self.name))
            }),
            // A disk that has grown has a new generation. Where the agent sees that before it ships, or comes back to it, it
            // begins the new one without another word on the old one's cycle.
            Some(FailReason::Abandoned) => {
                (2..=self.sizes.len()).any(|n| text == format!("generation {n} began in the middle of it"))
            }
            Some(FailReason::TargetFull) => self.target_was_full && text.contains("No space left on device"),
            // Bytes that differ, keys that don't fit, a source that can't be read or is written to at its end, a target that
            // another wrote to or that fails: nothing of that kind is ever done.
            Some(
                FailReason::BitmapMismatch
                | FailReason::DigestMismatch
                | FailReason::WrongKey
                | FailReason::SourceRead
                | FailReason::TargetWrite
                | FailReason::TargetChanged
                | FailReason::SourceNotAtRest,
            )
            | None => false,
        }
    }

    /// The name of an object within the folder of `cycle`, whatever its generation; none if it is elsewhere.
    fn name_in<'a>(&self, cycle: CycleNo, key: &'a str) -> Option<&'a str> {
        // A disk has no more generations than sizes.
        (1..=self.sizes.len() as u64)
            .find_map(|number| key.strip_prefix(&cycle_folder(self.disk, Generation(number), cycle))?.strip_prefix('/'))
    }

    /// Each size with each that came later.
    fn growths(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let later = |(i, was): (usize, &u64)| self.sizes[i + 1..].iter().map(move |is| (*was, *is)).collect::<Vec<_>>();
        self.sizes.iter().enumerate().flat_map(later)
    }
}
