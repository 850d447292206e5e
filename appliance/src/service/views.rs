//! Records as people see them.

use super::cell::DiskState;
use crate::repository::CycleRecord;
use sluice_proto::wire::{CycleView, DiskView};

pub(super) fn disk_view(state: &DiskState, due_ms: Option<u64>) -> DiskView {
    let disk = &state.record;
    DiskView {
        disk: disk.disk,
        name: disk.name.clone(),
        agent: disk.agent.clone(),
        size: disk.size,
        generation: disk.generation,
        phase: disk.phase,
        cycle: state.newest().map(cycle_view),
        verified_start_ms: disk.verified_start_ms,
        due_ms,
    }
}

pub(super) fn cycle_view(cycle: &CycleRecord) -> CycleView {
    CycleView {
        cycle: cycle.cycle,
        kind: cycle.kind,
        state: cycle.state,
        tracker: cycle.tracker,
        consistency: cycle.consistency,
        sectors: cycle.sectors,
        sectors_stored: cycle.sectors_stored,
        bytes_sent: cycle.bytes_sent,
        start_ms: cycle.start_ms,
        end_ms: cycle.end_ms,
        source_digest: cycle.source_digest,
        target_digest: cycle.target_digest,
        bitmaps_equal: cycle.bitmaps_equal,
        reason: cycle.reason,
        detail: cycle.detail.clone(),
    }
}
