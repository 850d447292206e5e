//! What can go wrong at the repository.

use std::error::Error as StdError;
use std::fmt;

/// What a caller needs to know of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepositoryErrorKind {
    /// The disk has a newer generation than the writer believes in.
    OldGeneration,
    /// The disk that a cycle or segment belongs to is not known.
    NoSuchDisk,
    /// The file system that holds it is full.
    Full,
    /// Not now: locked or unreachable. The same call may succeed later.
    Unavailable,
    /// What is stored can't be read back.
    Corrupt,
    /// It was written by a newer appliance.
    Newer,
    /// Anything else; the source says what.
    Other,
}

impl RepositoryErrorKind {
    fn text(self) -> &'static str {
        match self {
            Self::OldGeneration => "the disk has a newer generation",
            Self::NoSuchDisk => "no such disk",
            Self::Full => "no room; free some space where the appliance keeps its state",
            Self::Unavailable => "not available now",
            Self::Corrupt => "damaged; restore it from a backup",
            Self::Newer => "written by a newer appliance; update this one",
            Self::Other => "failed",
        }
    }
}

/// A failure of the repository: kind, what was being done, and the cause.
#[derive(Debug)]
pub struct RepositoryError {
    kind: RepositoryErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl RepositoryError {
    /// A failure with no deeper cause.
    pub fn new(kind: RepositoryErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same failure with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> RepositoryErrorKind {
        self.kind
    }
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the appliance's state: {}: {}", self.context, self.kind.text())
    }
}

impl StdError for RepositoryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
