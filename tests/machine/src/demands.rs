//! What is demanded of the first cycle after something happened.

use sluice_proto::cycle::{CycleKind, State};
use sluice_proto::wire::CycleView;

/// Panics unless it is a delta that ships something, and no more than the `sectors` that were written.
pub fn assert_delta(cycle: &CycleView, sectors: u64) {
    assert_kind(cycle, CycleKind::Delta, sectors);
}

/// Panics unless it is a comparison that ships something, and no more than the `sectors` that can differ.
pub fn assert_resync(cycle: &CycleView, sectors: u64) {
    assert_kind(cycle, CycleKind::Resync, sectors);
}

fn assert_kind(cycle: &CycleView, kind: CycleKind, sectors: u64) {
    assert_eq!((cycle.kind, cycle.state), (kind, State::Verified), "{cycle:?}");
    assert!((1..=sectors).contains(&cycle.sectors.0), "at most {sectors} sectors: {cycle:?}");
    eprintln!("cycle {}: {kind:?} of {} sectors, where {sectors} were written", cycle.cycle, cycle.sectors.0);
}
