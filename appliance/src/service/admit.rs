//! When a disk's next cycle is due, and whether it may run now.

use super::Inner;
use super::cell::DiskState;
use sluice_proto::DiskId;
use sluice_proto::cycle::CycleKind;
use sluice_proto::schedule::{Admission, Policy, Previous, Priority, next_start};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use tokio::time::Instant;

/// The admission queue, and who of those that run has gone silent.
pub(super) struct Queue {
    admission: Admission,
    running: BTreeMap<DiskId, Priority>,
    /// The priority that a disk last waited with.
    wanted: BTreeMap<DiskId, Priority>,
    /// Disks with an open cycle whose agent is silent: they hold no slot, or eight dead agents would stop all others.
    away: BTreeMap<DiskId, Priority>,
}

impl Queue {
    pub(super) fn new(slots: NonZeroUsize) -> Self {
        Self {
            admission: Admission::new(slots),
            running: BTreeMap::new(),
            wanted: BTreeMap::new(),
            away: BTreeMap::new(),
        }
    }

    /// Takes up a cycle that is open already.
    pub(super) fn resume(&mut self, disk: DiskId, priority: Priority) {
        self.running.insert(disk, priority);
        self.admission.resume(disk, priority);
    }

    /// The agent of a disk is heard again after a silence.
    pub(super) fn back(&mut self, disk: DiskId) {
        if let Some(priority) = self.away.remove(&disk) {
            self.resume(disk, priority);
        }
    }

    /// Those that may start now, in order.
    fn admitted(&mut self, waiting: Option<(DiskId, Priority)>) -> Vec<DiskId> {
        if let Some((disk, priority)) = waiting {
            self.admission.enqueue(disk, priority);
            self.wanted.insert(disk, priority);
        }
        let mut admitted = Vec::new();
        while let Some(disk) = self.admission.admit() {
            if let Some(priority) = self.wanted.remove(&disk) {
                self.running.insert(disk, priority);
            }
            admitted.push(disk);
        }
        admitted
    }
}

/// What is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) kind: CycleKind,
    /// On the service's time line.
    pub(super) tick: u64,
    /// At what rate to read, where it is a scrub.
    pub(super) read_rate: Option<u64>,
}

/// Where the service's time line begins: cycles that ended before the service was started lie before it.
const START_TICK: u64 = 1 << 45;

impl Inner {
    /// Now, in milliseconds on the service's own time line, which no change of the wall clock moves.
    pub(super) fn tick(&self) -> u64 {
        START_TICK + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 4)
    }

    /// The instant of a tick to come.
    pub(super) fn instant(&self, tick: u64) -> Instant {
        self.started + std::time::Duration::from_millis(tick.saturating_sub(START_TICK).min(1 << 45))
    }

    /// The tick of a time of the wall clock that lies in the past.
    pub(super) fn past_tick(&self, unix_ms: u64) -> u64 {
        self.tick() - self.now_ms().saturating_sub(unix_ms).min(START_TICK)
    }

    /// The next cycle of a disk that has none open; `None` where there is to be none.
    pub(super) fn due(&self, state: &DiskState) -> Option<Due> {
        let kind = state.record.phase.next_kind()?;
        let policy = self.policy.lock().clone();
        let schedule = Policy::new(policy.min_interval_ms, policy.max_interval_ms).unwrap_or_default();
        // After a final cycle there is nothing to wait for: whoever protects the disk again means now.
        let tick = next_start(&state.previous, &schedule).unwrap_or(0);
        if state.sync_wanted {
            return Some(Due { kind, tick: 0, read_rate: None });
        }
        let failed = matches!(state.previous, Previous::Failed { .. });
        match kind {
            CycleKind::Final if !failed => Some(Due { kind, tick: 0, read_rate: None }),
            CycleKind::Delta if self.scrub_is_due(state, &policy) => {
                Some(Due { kind: CycleKind::Resync, tick, read_rate: policy.scrub_rate })
            }
            _ => Some(Due { kind, tick, read_rate: None }),
        }
    }

    fn scrub_is_due(&self, state: &DiskState, policy: &sluice_proto::wire::PolicyView) -> bool {
        let Some(interval) = policy.scrub_interval_ms else { return false };
        let compared = state.record.compared_ms.unwrap_or(0);
        self.now_ms().saturating_sub(compared) >= interval
    }

    /// Asks for a slot for a disk that has no open cycle and whose time has come. True once it has one; its bell rings
    /// when it gets one later.
    pub(super) fn admit(&self, disk: DiskId, kind: CycleKind) -> bool {
        let mut queue = self.queue.lock();
        if queue.admission.is_running(disk) {
            return true;
        }
        queue.back(disk);
        let mut admitted = queue.admitted(Some((disk, kind.into())));
        if !admitted.contains(&disk) && self.free_silent(&mut queue) {
            admitted.extend(queue.admitted(None));
        }
        drop(queue);
        self.ring_others(&admitted, disk);
        admitted.contains(&disk)
    }

    /// The disk's cycle has ended: its slot goes to the next.
    pub(super) fn release(&self, disk: DiskId) {
        let mut queue = self.queue.lock();
        queue.running.remove(&disk);
        queue.away.remove(&disk);
        queue.admission.finish(disk);
        let admitted = queue.admitted(None);
        drop(queue);
        self.ring_others(&admitted, disk);
    }

    /// Takes slot and place in the queue from disks whose agents are silent. True where a slot became free.
    fn free_silent(&self, queue: &mut Queue) -> bool {
        let silent = |cell: &&std::sync::Arc<super::Cell>| cell.silent_for() > self.settings.silence_max;
        let silent: Vec<DiskId> = self.cells.lock().values().filter(silent).map(|cell| cell.disk).collect();
        let mut freed = false;
        for disk in silent {
            if let Some(priority) = queue.running.remove(&disk) {
                queue.away.insert(disk, priority);
                freed = true;
            }
            queue.wanted.remove(&disk);
            queue.admission.remove(disk);
        }
        freed
    }

    fn ring_others(&self, admitted: &[DiskId], but: DiskId) {
        for disk in admitted.iter().filter(|disk| **disk != but) {
            if let Ok(cell) = self.cell(*disk) {
                cell.ring();
            }
        }
    }
}
