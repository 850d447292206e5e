//! What can go wrong with an image.

use std::{fmt, io};

/// The kind of a [`FormatError`], for code that decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatErrorKind {
    /// The disk has no bytes, or more than the format holds.
    Size,
    /// The file is not of the format that was asked for.
    NotThisFormat,
    /// The file is of the format, but its metadata contradicts itself or fails its checksum.
    Corrupt,
    /// The file is valid but uses something that Sluice does not handle, such as a parent disk.
    Unsupported,
    /// A sector behind the end of the disk was asked for.
    OutOfRange,
    /// The file could not be read or written.
    Io,
}

/// An image could not be laid out, opened or used. The text says what was found and, where there is something, what
/// to do; the caller adds which file it is.
#[derive(Debug)]
pub struct FormatError {
    /// For code that decides by it.
    pub kind: FormatErrorKind,
    context: String,
    source: Option<io::Error>,
}

impl FormatError {
    pub(super) fn new(kind: FormatErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }
    pub(super) fn corrupt(context: impl Into<String>) -> Self {
        Self::new(FormatErrorKind::Corrupt, context)
    }
    pub(super) fn unsupported(context: impl Into<String>) -> Self {
        Self::new(FormatErrorKind::Unsupported, context)
    }
    pub(super) fn not_this(context: impl Into<String>) -> Self {
        Self::new(FormatErrorKind::NotThisFormat, context)
    }
    pub(super) fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self { kind: FormatErrorKind::Io, context: context.into(), source: Some(source) }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for FormatError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
