//! When a disk's next cycle is due, and whether it may run now.

use super::Inner;
use super::cell::{Cell, DiskState};
use sluice_proto::DiskId;
use sluice_proto::cycle::CycleKind;
use sluice_proto::schedule::{Admission, Policy, Previous, next_start};
use tokio::time::Instant;

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
    pub(super) fn admit(&self, cell: &Cell, kind: CycleKind) -> bool {
        let mut queue = self.queue.lock();
        queue.go_on(cell.disk);
        if queue.is_admitted(cell.disk) {
            return true;
        }
        queue.enqueue(cell.disk, &cell.agent, kind.into());
        let mut admitted = queue.admit_all();
        if !admitted.contains(&cell.disk) {
            self.free_idle(&mut queue);
            admitted.extend(queue.admit_all());
        }
        drop(queue);
        self.ring_others(&admitted, cell.disk);
        admitted.contains(&cell.disk)
    }

    /// The disk's cycle has ended: its slot goes to the next.
    pub(super) fn release(&self, disk: DiskId) {
        let mut queue = self.queue.lock();
        queue.finish(disk);
        let admitted = queue.admit_all();
        drop(queue);
        self.ring_others(&admitted, disk);
    }

    /// The disk has no open cycle, and it is not time for one: whether it waited for a slot, as that was otherwise before, or
    /// has one already, others go first.
    pub(super) fn not_due(&self, disk: DiskId) {
        self.queue.lock().withdraw(disk);
        self.release(disk);
    }

    /// The disk's cycle goes on: bytes came, or a step was made.
    pub(super) fn moves(&self, cell: &Cell) {
        cell.moved();
        self.queue.lock().go_on(cell.disk);
    }

    /// The disk's agent was heard.
    pub(super) fn hears(&self, cell: &Cell) {
        cell.hear();
        if cell.still_for() <= self.settings.stall_max {
            self.queue.lock().go_on(cell.disk);
        }
    }

    /// Takes slots from disks that make no use of them: those whose agents are silent, and those whose cycles stand still,
    /// whoever it is that they wait for. Eight of them would stop all others. Not while the throttle lets nothing pass, as
    /// then all stand still.
    fn free_idle(&self, queue: &mut Admission) {
        if self.ports.throttle.is_paused() {
            *self.paused.lock() = Some(Instant::now());
        }
        // They need some time to get going again after that.
        if self.paused.lock().is_some_and(|at| at.elapsed() < self.settings.stall_max) {
            return;
        }
        for cell in self.cells.lock().values() {
            let is_silent = cell.silent_for() > self.settings.silence_max;
            if is_silent || cell.still_for() > self.settings.stall_max {
                queue.suspend(cell.disk);
            }
            if is_silent {
                // Nobody would begin the cycle.
                queue.withdraw(cell.disk);
            }
        }
    }

    fn ring_others(&self, admitted: &[DiskId], but: DiskId) {
        for disk in admitted.iter().filter(|disk| **disk != but) {
            if let Ok(cell) = self.cell(*disk) {
                cell.ring();
            }
        }
    }
}
