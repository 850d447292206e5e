//! How applying a cycle can end without its being verified.

use crate::state::StateError;
use crate::target::{TargetError, TargetErrorKind};
use sluice_cache_store::{StoreError, StoreErrorKind};
use sluice_proto::cycle::FailReason;
use sluice_proto::{Digest, FormatError};

/// Why a cycle was not brought to its end.
#[derive(Clone, Debug)]
pub enum Stop {
    /// It has failed: the appliance is told, and its sectors come again in the next cycle.
    Fail(Failure),
    /// Not now, in words: nothing was decided, and the same cycle is taken up again later.
    Later(String),
    /// Not by us: the disk was given to another hydrator.
    Lost,
}

/// Why a cycle failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason that programs go by.
    pub reason: FailReason,
    /// The reason in words: which object, file or sectors.
    pub detail: String,
    /// Whether the bitmaps were equal, where it came to that.
    pub bitmaps_equal: Option<bool>,
    /// BLAKE3 of the stream as read back, where it came to that.
    pub target_digest: Option<Digest>,
}

impl Failure {
    /// A failure before anything was read back.
    pub fn new(reason: FailReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), bitmaps_equal: None, target_digest: None }
    }
}

impl Stop {
    /// The cycle fails for this reason.
    pub fn fail(reason: FailReason, detail: impl Into<String>) -> Self {
        Self::Fail(Failure::new(reason, detail))
    }

    /// Whatever it was, not now.
    pub(super) fn later(self) -> Self {
        match self {
            Self::Fail(failure) => Self::Later(failure.detail),
            other => other,
        }
    }

    /// An object of the cache store could not be had. `corrupt` is the reason where the store holds something else than
    /// was put there, or nothing.
    pub(crate) fn store(error: &StoreError, corrupt: FailReason) -> Self {
        match error.kind() {
            StoreErrorKind::NotFound => {
                let why = "it was deleted, or appliance and hydrator name different cache stores";
                Self::fail(corrupt, format!("{error}: {why}"))
            }
            StoreErrorKind::Corrupt => Self::fail(corrupt, error.to_string()),
            _ => Self::Later(error.to_string()),
        }
    }

    /// An object of the cache store is not what it should be.
    pub(super) fn format(reason: FailReason, what: &str, error: &FormatError) -> Self {
        Self::fail(reason, format!("{what}: {error}"))
    }
}

impl From<TargetError> for Stop {
    fn from(error: TargetError) -> Self {
        match error.kind() {
            // A cycle that failed would be followed by a comparison, which makes whatever is there a copy of the source.
            TargetErrorKind::Busy | TargetErrorKind::OtherMedium => Self::Later(error.to_string()),
            _ => Self::fail(error.reason(), error.to_string()),
        }
    }
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::Later(error.to_string())
    }
}
