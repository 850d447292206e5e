//! The cycle: one pass that brings a target from one verified state of its disk to the next.

use crate::machine::{ImpossibleEvent, draw, step, words};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

words! {
    /// What a cycle ships.
    CycleKind("cycle kind") {
        /// Every sector, to a target that holds nothing of the disk yet.
        Initial = "initial",
        /// What was written since the last verified cycle, by an unbroken record of it.
        Delta = "delta",
        /// What differs, found by comparing source and target: after any doubt about the record or the target.
        Resync = "resync",
        /// The last delta, with the source at rest, and a comparison of whole disks.
        Final = "final",
    }
}

words! {
    /// What a cycle's image is worth by itself.
    Consistency("consistency") {
        /// The disk as it was at one instant, as after a power cut: nothing that was shipped was overwritten before it was
        /// read.
        Crash = "crash",
        /// Each sector has a value that it had at some time during the cycle.
        Fuzzy = "fuzzy",
    }
}

words! {
    /// How changed sectors are found.
    TrackerKind("tracker") {
        /// Programs at the kernel's block layer see each write.
        Ebpf = "ebpf",
        /// The whole source is read and compared with digests.
        Scan = "scan",
    }
}

words! {
    /// Why a cycle failed. Whatever it was, its sectors go into the next cycle.
    FailReason("reason of failure") {
        /// The sectors that the target says it wrote are not those of the manifest.
        BitmapMismatch = "bitmap_mismatch",
        /// What was read back from the target is not what the source read.
        DigestMismatch = "digest_mismatch",
        /// A segment is damaged, missing or not of this cycle.
        SegmentCorrupt = "segment_corrupt",
        /// The manifest is damaged or not of this cycle.
        ManifestCorrupt = "manifest_corrupt",
        /// The hydrator cannot unwrap the data key, or does not trust the agent that signed it.
        WrongKey = "wrong_key",
        /// The source could not be read.
        SourceRead = "source_read",
        /// The source has another size than when the cycle was planned.
        SourceChangedSize = "source_changed_size",
        /// The target could not be written or read back.
        TargetWrite = "target_write",
        /// The target's medium is full.
        TargetFull = "target_full",
        /// Someone other than the hydrator changed the target, or put another in its place.
        TargetChanged = "target_changed",
        /// The source was written to during a final cycle.
        SourceNotAtRest = "source_not_at_rest",
        /// An operator or a newer generation gave it up.
        Abandoned = "abandoned",
        /// None of these; the detail that goes with it says what.
        Other = "other",
    }
}

impl FailReason {
    /// True where the target may differ from what was last verified in sectors that no record names, so that only a
    /// comparison helps: the disk's machine must be told `doubt`.
    pub fn is_doubt(self) -> bool {
        matches!(self, Self::BitmapMismatch | Self::DigestMismatch | Self::SourceChangedSize | Self::TargetChanged)
    }
}

words! {
    /// Where a cycle stands.
    ///
    /// `picture()` draws the machine; its snapshot is `snapshots/cycle_picture.snap`. The hydrator writes segments of an
    /// initial cycle to the target while they still arrive; that moves no cycle, as nothing is claimed before the commit.
    State("cycle state") {
        /// The appliance asked for it; the agent has not begun.
        Planned = "planned",
        /// The agent's plan is durable and it reads; no segment is stored yet.
        Capturing = "capturing",
        /// Segments are being stored.
        Shipping = "shipping",
        /// The manifest is stored: the cycle is whole and no longer needs the source.
        Committed = "committed",
        /// A hydrator verifies it and writes it to the target.
        Applying = "applying",
        /// The target was read back and found equal. The end.
        Verified = "verified",
        /// It will not be finished, for the reason that is kept with it. The end.
        Failed = "failed",
    }
}

words! {
    /// What can happen to a cycle.
    Event("cycle event") {
        /// The agent made its plan and opens the cycle.
        Open = "open",
        /// A segment is stored.
        SegmentStored = "segment_stored",
        /// The manifest is stored.
        Commit = "commit",
        /// A hydrator takes the cycle to apply it.
        Claim = "claim",
        /// The hydrator was restarted and takes up again what it had claimed, or another took over from it.
        Reclaim = "reclaim",
        /// The target was read back and found equal.
        Verify = "verify",
        /// The cycle is given up.
        Fail = "fail",
        /// The agent was restarted and goes on where it was.
        Resume = "resume",
    }
}

/// The machine. Messages that are sent again as their answer was lost are no events: the appliance recognises them by
/// what they carry and answers as it did. The hydrator cannot fail what it has not claimed, but an agent or an operator
/// can, so each state that is no end has a way to `failed`.
pub const TABLE: &[(State, Event, State)] = &[
    (State::Planned, Event::Open, State::Capturing),
    (State::Planned, Event::Resume, State::Planned),
    (State::Planned, Event::Fail, State::Failed),
    (State::Capturing, Event::SegmentStored, State::Shipping),
    (State::Capturing, Event::Resume, State::Capturing),
    // An empty plan has no segment.
    (State::Capturing, Event::Commit, State::Committed),
    (State::Capturing, Event::Fail, State::Failed),
    (State::Shipping, Event::SegmentStored, State::Shipping),
    (State::Shipping, Event::Resume, State::Shipping),
    (State::Shipping, Event::Commit, State::Committed),
    (State::Shipping, Event::Fail, State::Failed),
    (State::Committed, Event::Claim, State::Applying),
    (State::Committed, Event::Resume, State::Committed),
    (State::Committed, Event::Fail, State::Failed),
    (State::Applying, Event::Reclaim, State::Applying),
    (State::Applying, Event::Resume, State::Applying),
    (State::Applying, Event::Verify, State::Verified),
    (State::Applying, Event::Fail, State::Failed),
];

impl State {
    /// The state after `event`, or that it is impossible here.
    pub fn on(self, event: Event) -> Result<Self, ImpossibleEvent> {
        step(TABLE, self, event).ok_or(ImpossibleEvent {
            machine: "cycle",
            state: self.as_str(),
            event: event.as_str(),
        })
    }

    /// True for verified and failed: nothing happens to the cycle any more.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Verified | Self::Failed)
    }
}

/// The machine as a Mermaid diagram.
pub fn picture() -> String {
    draw(State::Planned, State::ALL, TABLE)
}

/// A cycle's state with the reason that belongs to `failed` and to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StandingFields")]
pub struct Standing {
    state: State,
    /// Present exactly where the state is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<FailReason>,
}

impl Standing {
    /// Where every cycle begins.
    pub const PLANNED: Self = Self { state: State::Planned, reason: None };

    /// A standing that was stored; `None` where state and reason do not belong together.
    pub fn new(state: State, reason: Option<FailReason>) -> Option<Self> {
        ((state == State::Failed) == reason.is_some()).then_some(Self { state, reason })
    }

    /// The plain state.
    pub fn state(self) -> State {
        self.state
    }

    /// Why the cycle failed, if it did.
    pub fn reason(self) -> Option<FailReason> {
        self.reason
    }

    /// The standing after `event`. Failing needs a reason and goes by `fail`; here it is given as `Other`.
    pub fn on(self, event: Event) -> Result<Self, ImpossibleEvent> {
        if event == Event::Fail {
            return self.fail(FailReason::Other);
        }
        Ok(Self { state: self.state.on(event)?, reason: None })
    }

    /// The standing after the cycle failed.
    pub fn fail(self, reason: FailReason) -> Result<Self, ImpossibleEvent> {
        Ok(Self { state: self.state.on(Event::Fail)?, reason: Some(reason) })
    }
}

/// A standing as it is stored, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StandingFields {
    state: State,
    reason: Option<FailReason>,
}

impl TryFrom<StandingFields> for Standing {
    type Error = &'static str;
    fn try_from(fields: StandingFields) -> Result<Self, Self::Error> {
        Self::new(fields.state, fields.reason).ok_or("a cycle has a reason exactly where it failed")
    }
}
