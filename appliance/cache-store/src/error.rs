//! What can go wrong at a cache store, in kinds that the callers decide by.

use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Range;

/// What a caller needs to know of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no such object, or no such container or bucket.
    NotFound,
    /// The key is taken by other bytes.
    AlreadyExists,
    /// The store has no room; goes on once there is some.
    Full,
    /// The credentials or the file permissions don't allow it; asking again won't help.
    Denied,
    /// The store can't be reached or is overloaded; asking again later may help.
    Unavailable,
    /// What the store holds can't be what was put there.
    Corrupt,
    /// The store's URL or settings are wrong.
    BadSettings,
    /// Anything else; the source says what.
    Other,
}

impl StoreErrorKind {
    /// What a store means by an HTTP status that is none of success.
    pub fn of_status(status: u16) -> Self {
        match status {
            507 => Self::Full,
            // Not implemented: that does not pass.
            501 => Self::Other,
            408 | 429 | 500..=599 => Self::Unavailable,
            401 | 403 => Self::Denied,
            _ => Self::Other,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "exists already with other content",
            Self::Full => "no room",
            Self::Denied => "permission denied",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::BadSettings => "wrong settings",
            Self::Other => "failed",
        }
    }
}

/// A failure at a cache store: kind, what was being done and where, and what the store itself said.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// A failure with no deeper cause. `context` says what was being done, and to which object and store.
    pub fn new(kind: StoreErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The kind of failure.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// True where the same call may succeed later with nobody doing anything.
    pub fn is_retryable(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what is known of the reason to what is shown.
    pub(crate) fn because(mut self, reason: &str) -> Self {
        self.context = format!("{} ({reason})", self.context);
        self
    }

    /// The same failure under another kind.
    pub(crate) fn but(mut self, kind: StoreErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn too_long(key: &str, len: u64, len_max: u64, place: &str) -> Self {
        let context = format!("{key} in {place} has {len} bytes where {len_max} is the most");
        Self::new(StoreErrorKind::Corrupt, context)
    }

    pub(crate) fn too_short(key: &str, range: &Range<u64>, place: &str) -> Self {
        let context = format!("{key} in {place} does not hold its bytes {}..{}", range.start, range.end);
        Self::new(StoreErrorKind::Corrupt, context)
    }

    pub(crate) fn from_io(error: io::Error, context: impl Into<String>) -> Self {
        Self::new(io_kind(error.kind()), context).with_source(error)
    }

    pub(crate) fn from_object_store(error: object_store::Error, context: impl Into<String>) -> Self {
        Self::new(classify(&error), context).with_source(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache store: {}: {}", self.context, self.kind.text())?;
        match self.kind {
            StoreErrorKind::Full => f.write_str("; free some space or enlarge it, then the cycle goes on where it was"),
            StoreErrorKind::Denied => f.write_str("; check the credentials, or the folder's owner and mode"),
            _ => Ok(()),
        }
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

fn io_kind(kind: io::ErrorKind) -> StoreErrorKind {
    match kind {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Denied,
        _ => StoreErrorKind::Other,
    }
}

fn classify(error: &object_store::Error) -> StoreErrorKind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => StoreErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => StoreErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreErrorKind::Denied,
        E::UnknownConfigurationKey { .. } => StoreErrorKind::BadSettings,
        _ => classify_chain(error),
    }
}

/// The cause that only the chain tells: an errno of the local file system, a transport error, or an HTTP status, which
/// `object_store` keeps in a private type and shows in its text only.
fn classify_chain(error: &(dyn StdError + 'static)) -> StoreErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io_kind(io.kind());
        }
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Decode => StoreErrorKind::Corrupt,
                _ => StoreErrorKind::Unavailable,
            };
        }
        next = error.source();
    }
    status_in(&error.to_string()).map_or(StoreErrorKind::Other, StoreErrorKind::of_status)
}

fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}
