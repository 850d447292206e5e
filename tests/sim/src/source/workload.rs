//! Those who write to the source.

use super::ModelDisk;
use crate::rng::Rng;
use sluice_agent::tracker::Doubt;
use sluice_proto::Extent;
use std::time::Duration;

/// One write in so many is not marked, in seeds that have such: a doubt every few seconds, and deltas in between.
const MARKED_PER_UNMARKED: u64 = 250;

/// A write somewhere: mostly small and in hot places, now and then large.
fn random_extent(sectors: u64, rng: &Rng) -> Extent {
    let len = match rng.below(10) {
        0 => 1,
        1 => 1 + rng.below(200),
        _ => 8,
    };
    let hot = sectors / 8;
    let start = if rng.once_in(3) { rng.below(sectors) } else { rng.below(hot.max(1)) };
    Extent::new(start, len.min(sectors - start))
}

/// Writes until told to stop. `blind` is chance for writes that the tracking does not see.
pub async fn workload(disk: ModelDisk, rng: Rng, blind: Option<Rng>, mut stop: tokio::sync::watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        let unmarked = blind.as_ref().filter(|chance| chance.once_in(MARKED_PER_UNMARKED)).map(doubt);
        disk.write(random_extent(disk.sectors().0, &rng), rng.once_in(9), unmarked, &rng).await;
        tokio::time::sleep(rng.pause(60) + Duration::from_millis(1)).await;
    }
}

/// What the real tracker says of a write that it did not see as such.
fn doubt(chance: &Rng) -> Doubt {
    match chance.below(3) {
        0 => Doubt::Passthrough,
        1 => Doubt::UnknownWrite,
        _ => Doubt::MissedEvents { skipped: 1 },
    }
}
