//! How often things go wrong.

/// How often things go wrong: once in so many times, never for 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// A store answers 503 without having done it.
    pub store_refuses: u64,
    /// A put is done, but its answer is lost.
    pub store_answer_lost: u64,
    /// A store does not answer for more than a minute.
    pub store_stalls: u64,
    /// A store has no room.
    pub store_full: u64,
    /// A read gives a flipped bit.
    pub read_flips: u64,
    /// A stored object rots.
    pub rot: u64,
    /// A message is lost on its way there.
    pub request_lost: u64,
    /// A connection is cut in the middle of a segment.
    pub cut: u64,
    /// An answer is lost.
    pub answer_lost: u64,
    /// A message arrives twice.
    pub doubled: u64,
    /// A message arrives long after its sender has given it up, behind others.
    pub late: u64,
    /// A source's read fails.
    pub source_errors: u64,
    /// A target's write fails.
    pub target_errors: u64,
    /// A target's write is said to be done and is not: it is gone at once, or can be read until the next flush.
    pub target_lies: u64,
    /// A target's read gives a flipped bit.
    pub target_flips: u64,
    /// A target's flush fails, and half of what it was to bring out never is.
    pub target_sync_errors: u64,
    /// A target can't be read.
    pub target_read_errors: u64,
    /// A target can't be looked at.
    pub target_look_errors: u64,
    /// A hydrator's machine stands still behind a change of its state, of which nothing shows to it.
    pub stands_still: u64,
    /// A store fails in a way that is not said to pass.
    pub store_fails: u64,
}
