//! What can be wrong with bytes that another part of Sluice wrote.

use std::fmt;

/// What kind of wrong. Small and stable: logs, verdicts and tests go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatErrorKind {
    /// The magic is not that of the record which was expected.
    NotThis,
    /// Written by a newer Sluice than this one.
    Newer,
    /// Ends before a field that it promises.
    Truncated,
    /// A checksum, hash or authentication tag does not match: bytes were changed or the key is another one.
    Forged,
    /// A field has a value that no writer makes.
    Impossible,
    /// Belongs to another disk, generation, cycle or block than the one asked for.
    Misplaced,
    /// Sealed in a way that this reader does not accept here.
    Suite,
}

/// Bytes that can't be taken for what they claim to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// What kind of wrong.
    pub kind: FormatErrorKind,
    /// Which field or check, in words.
    pub context: String,
}

impl FormatError {
    /// An error of `kind` at the field or check that `context` names.
    pub fn new(kind: FormatErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into() }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FormatErrorKind::NotThis => "not a record of this kind",
            FormatErrorKind::Newer => "written by a newer Sluice; update this one",
            FormatErrorKind::Truncated => "cut short",
            FormatErrorKind::Forged => "changed since it was written, or sealed with another key",
            FormatErrorKind::Impossible => "impossible value",
            FormatErrorKind::Misplaced => "belongs elsewhere",
            FormatErrorKind::Suite => "sealed in a way not accepted here",
        };
        write!(f, "{what}: {}", self.context)
    }
}

impl std::error::Error for FormatError {}

/// Shorthand for the error that a check at `context` raises.
pub(crate) fn bad<T>(kind: FormatErrorKind, context: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::new(kind, context))
}
