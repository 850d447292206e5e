//! The disk: what its target is worth, and so which kind of cycle comes next.

use crate::cycle::CycleKind;
use crate::machine::{ImpossibleEvent, draw, step, words};

#[cfg(test)]
mod tests;

words! {
    /// Where a disk stands. `picture()` draws the machine; its snapshot is `snapshots/disk_picture.snap`.
    State("disk state") {
        /// Known, but nothing was shipped yet.
        Registered = "registered",
        /// The initial cycle was started; the target is not whole.
        Initial = "initial",
        /// The target is a verified state of the source, and what was written since is known.
        InStep = "in_step",
        /// What differs between source and target is not known in full. They must be compared.
        Resync = "resync",
        /// The comparison runs, with no doubt since it began.
        Resyncing = "resyncing",
        /// An operator brought the source to rest; the final cycle is due or runs.
        Finalising = "finalising",
        /// The final cycle is verified. The target may go its own way; nothing is shipped any more.
        CutOver = "cut_over",
    }
}

words! {
    /// What can happen to a disk.
    Event("disk event") {
        /// An initial cycle begins.
        InitialStarted = "initial_started",
        /// The initial cycle is verified.
        InitialVerified = "initial_verified",
        /// The initial cycle failed.
        InitialFailed = "initial_failed",
        /// A delta is verified.
        DeltaVerified = "delta_verified",
        /// A comparing cycle begins.
        ResyncStarted = "resync_started",
        /// The comparing cycle is verified.
        ResyncVerified = "resync_verified",
        /// The comparing cycle failed.
        ResyncFailed = "resync_failed",
        /// Something makes it uncertain that the tracker saw every write, or that the target is as it was left.
        Doubt = "doubt",
        /// An operator asks for the final cycle.
        FinalRequested = "final_requested",
        /// The operator takes that back while no final cycle runs; one that runs is abandoned instead, and so fails.
        FinalWithdrawn = "final_withdrawn",
        /// The final cycle is verified, whole disks included.
        FinalVerified = "final_verified",
        /// The final cycle failed.
        FinalFailed = "final_failed",
        /// The disk is to be protected again after it was cut over: in the same direction after a cancelled failover, or
        /// from its former target back to its former source.
        Reprotect = "reprotect",
    }
}

/// The machine. Its rules:
///
/// - Doubt is never lost: a comparison that was running when it came does not settle it (`resyncing` falls back to
///   `resync`, where the verdicts of cycles that began before it change nothing). Doubt during an initial cycle does not undo that cycle; the
///   comparison that follows ships only what it missed.
/// - Doubt interrupts `finalising`. That an operator wants the final cycle is kept beside the machine, and
///   `final_requested` is told again when the disk is in step. Only a final cycle that is running already may still end in
///   `cut_over`, as its verdict rests on comparing whole disks and not on the tracker.
/// - A failed final leaves the disk in step: deltas go on, and the operator decides.
/// - A failed delta changes nothing: the same kind is due again, and its sectors are carried.
/// - After a failed initial the target is compared: what it holds by then is not shipped again.
/// - A new key generation changes nothing by itself.
pub const TABLE: &[(State, Event, State)] = &[
    // There is nothing yet to be in doubt about; an agent that finds no tracking says so at its start.
    (State::Registered, Event::Doubt, State::Registered),
    (State::Registered, Event::InitialStarted, State::Initial),
    (State::Initial, Event::InitialStarted, State::Initial),
    (State::Initial, Event::InitialVerified, State::InStep),
    (State::Initial, Event::InitialFailed, State::Resync),
    (State::Initial, Event::Doubt, State::Resync),
    (State::InStep, Event::DeltaVerified, State::InStep),
    (State::InStep, Event::Doubt, State::Resync),
    (State::InStep, Event::FinalRequested, State::Finalising),
    // Cycles that were running when doubt came.
    (State::Resync, Event::InitialVerified, State::Resync),
    (State::Resync, Event::InitialFailed, State::Resync),
    (State::Resync, Event::DeltaVerified, State::Resync),
    (State::Resync, Event::ResyncVerified, State::Resync),
    (State::Resync, Event::ResyncFailed, State::Resync),
    (State::Resync, Event::FinalFailed, State::Resync),
    (State::Resync, Event::FinalVerified, State::CutOver),
    (State::Resync, Event::Doubt, State::Resync),
    (State::Resync, Event::ResyncStarted, State::Resyncing),
    (State::Resyncing, Event::ResyncVerified, State::InStep),
    (State::Resyncing, Event::ResyncFailed, State::Resync),
    (State::Resyncing, Event::Doubt, State::Resync),
    // The delta that was running when the final cycle was asked for.
    (State::Finalising, Event::DeltaVerified, State::Finalising),
    (State::Finalising, Event::FinalVerified, State::CutOver),
    (State::Finalising, Event::FinalFailed, State::InStep),
    (State::Finalising, Event::FinalWithdrawn, State::InStep),
    (State::Finalising, Event::Doubt, State::Resync),
    // Whatever happens to either side now, a comparison follows before anything is trusted again.
    (State::CutOver, Event::Doubt, State::CutOver),
    (State::CutOver, Event::Reprotect, State::Resync),
];

impl State {
    /// The state after `event`, or that it is impossible here.
    pub fn on(self, event: Event) -> Result<Self, ImpossibleEvent> {
        step(TABLE, self, event).ok_or(ImpossibleEvent { machine: "disk", state: self.as_str(), event: event.as_str() })
    }

    /// The kind of the next cycle; `None` where there is to be none.
    pub fn next_kind(self) -> Option<CycleKind> {
        match self {
            Self::Registered | Self::Initial => Some(CycleKind::Initial),
            Self::InStep => Some(CycleKind::Delta),
            Self::Resync | Self::Resyncing => Some(CycleKind::Resync),
            Self::Finalising => Some(CycleKind::Final),
            Self::CutOver => None,
        }
    }
}

impl Event {
    /// What the disk is told when a cycle of this kind begins; a delta's or a final's beginning moves no disk.
    pub fn started(kind: CycleKind) -> Option<Self> {
        match kind {
            CycleKind::Initial => Some(Self::InitialStarted),
            CycleKind::Resync => Some(Self::ResyncStarted),
            CycleKind::Delta | CycleKind::Final => None,
        }
    }

    /// What the disk is told when a cycle of this kind is verified.
    pub fn verified(kind: CycleKind) -> Self {
        match kind {
            CycleKind::Initial => Self::InitialVerified,
            CycleKind::Delta => Self::DeltaVerified,
            CycleKind::Resync => Self::ResyncVerified,
            CycleKind::Final => Self::FinalVerified,
        }
    }

    /// What the disk is told when a cycle of this kind failed; a failed delta moves no disk. Where the reason is one of
    /// doubt, `Doubt` is told after it.
    pub fn failed(kind: CycleKind) -> Option<Self> {
        match kind {
            CycleKind::Initial => Some(Self::InitialFailed),
            CycleKind::Resync => Some(Self::ResyncFailed),
            CycleKind::Final => Some(Self::FinalFailed),
            CycleKind::Delta => None,
        }
    }
}

/// The machine as a Mermaid diagram.
pub fn picture() -> String {
    draw(State::Registered, State::ALL, TABLE)
}
