//! What can go wrong with a target.

use crate::formats;
use sluice_platform::{IoError, IoErrorKind};
use sluice_proto::cycle::FailReason;
use std::fmt;

/// The kind of a [`TargetError`], for code that decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetErrorKind {
    /// No room for more data.
    Full,
    /// It could not be written or read.
    Io,
    /// What was read back of its tables is not what was written.
    Mismatch,
    /// It is not the target that it should be, or it is damaged.
    NotOurs,
    /// It exists and belongs to someone else.
    Exists,
    /// It can't hold the disk.
    TooSmall,
    /// The target lies on the disk that it is to be a copy of.
    OnSource,
    /// Another disk is under its name: nothing is decided until the right one is there.
    OtherMedium,
    /// It is in use by another process.
    Busy,
    /// The source's size is not what the target was made for.
    SizeChanged,
}

/// A target could not be made, opened, written or read. The text names it and says what to do.
#[derive(Debug)]
pub struct TargetError {
    kind: TargetErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TargetError {
    /// A failure in these words.
    pub fn new(kind: TargetErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }
    /// The kind.
    pub fn kind(&self) -> TargetErrorKind {
        self.kind
    }
    /// How a cycle that met this failed.
    pub fn reason(&self) -> FailReason {
        match self.kind {
            TargetErrorKind::Full => FailReason::TargetFull,
            TargetErrorKind::NotOurs | TargetErrorKind::OtherMedium => FailReason::TargetChanged,
            TargetErrorKind::Mismatch => FailReason::DigestMismatch,
            TargetErrorKind::SizeChanged => FailReason::SourceChangedSize,
            _ => FailReason::TargetWrite,
        }
    }
    pub(crate) fn caused(
        kind: TargetErrorKind,
        context: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(Box::new(source)) }
    }
    pub(crate) fn format(path: &str, error: formats::FormatError) -> Self {
        let kind = match error.kind {
            formats::FormatErrorKind::Size | formats::FormatErrorKind::OutOfRange => TargetErrorKind::TooSmall,
            formats::FormatErrorKind::Io => TargetErrorKind::Io,
            _ => TargetErrorKind::NotOurs,
        };
        Self::caused(kind, format!("target {path}: {error}"), error)
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for TargetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<IoError> for TargetError {
    fn from(error: IoError) -> Self {
        let kind = match error.kind() {
            IoErrorKind::NoSpace => TargetErrorKind::Full,
            IoErrorKind::Busy => TargetErrorKind::Busy,
            IoErrorKind::PastEnd => TargetErrorKind::TooSmall,
            _ => TargetErrorKind::Io,
        };
        Self::caused(kind, error.to_string(), error)
    }
}
