//! Which stage of a running cycle the others wait for, as far as it shows from outside.

/// The stage that holds up the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// The source does not deliver faster.
    SourceRead,
    /// The processor seals and compresses, or the cache store takes segments, no faster.
    Compress,
    /// The limit is used up.
    Link,
    /// The target does not take it faster.
    TargetWrite,
}

impl Bottleneck {
    /// Its name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceRead => "source read",
            Self::Compress => "compress",
            Self::Link => "link",
            Self::TargetWrite => "target write",
        }
    }
}

/// What shows from outside over the last second or so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Bytes read from the source so far.
    pub read: u64,
    /// Bytes of the plan that are stored so far.
    pub stored: u64,
    /// Bytes that are on the target so far; none where the target waits for the commit.
    pub written: Option<u64>,
    /// Bytes a second that are sent.
    pub sent_rate: u64,
    /// The limit in bytes a second, where there is one.
    pub limit: Option<u64>,
    /// Bytes that may lie between reading and storing.
    pub window: u64,
}

/// Segments are handed to the target in this size; less than a few of them waiting is no queue.
const SEGMENTS_WAITING: u64 = 32 << 20;

/// Names the stage behind which most waits; none while nothing moves.
pub fn name(sample: &Sample) -> Option<Bottleneck> {
    if sample.read == 0 {
        return None;
    }
    if sample.limit.is_some_and(|limit| sample.sent_rate >= limit - limit / 10) {
        return Some(Bottleneck::Link);
    }
    if sample.written.is_some_and(|written| sample.stored.saturating_sub(written) > SEGMENTS_WAITING) {
        return Some(Bottleneck::TargetWrite);
    }
    // Where the stages behind it keep up, little of what was read is still on its way.
    match sample.read.saturating_sub(sample.stored) >= sample.window / 2 {
        true => Some(Bottleneck::Compress),
        false => Some(Bottleneck::SourceRead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_with_the_queue_before_it_is_named() {
        let calm = Sample { read: 1 << 30, stored: 1 << 30, window: 24 << 20, ..Sample::default() };
        assert_eq!(name(&calm), Some(Bottleneck::SourceRead));
        assert_eq!(name(&Sample { stored: (1 << 30) - (20 << 20), ..calm }), Some(Bottleneck::Compress));
        assert_eq!(name(&Sample { written: Some(1 << 29), ..calm }), Some(Bottleneck::TargetWrite));
        assert_eq!(name(&Sample { written: Some(1 << 30), ..calm }), Some(Bottleneck::SourceRead));
        let full = Sample { limit: Some(1 << 20), sent_rate: 1 << 20, ..calm };
        assert_eq!(name(&full), Some(Bottleneck::Link));
        assert_eq!(name(&Sample { sent_rate: 1 << 19, ..full }), Some(Bottleneck::SourceRead));
        assert_eq!(name(&Sample::default()), None);
    }
}
