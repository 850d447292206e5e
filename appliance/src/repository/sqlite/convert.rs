//! Between our types and SQLite's, and from its errors to ours.

use crate::repository::{RepositoryError, RepositoryErrorKind as Kind, RepositoryResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_proto::CycleNo;
use sqlx::migrate::MigrateError;

/// A number for a look-up: SQLite's are signed, and nothing above them is ever stored.
pub(super) trait Sql {
    /// The number, or the largest that there is.
    fn sql(self) -> i64;
}

impl Sql for CycleNo {
    fn sql(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// A number to be stored; one above SQLite's largest is refused.
pub(super) fn number(value: u64, doing: &str) -> RepositoryResult<i64> {
    i64::try_from(value).map_err(|e| RepositoryError::new(Kind::Other, doing).with_source(e))
}

pub(super) fn bytes<const N: usize>(bytes: &[u8]) -> Result<[u8; N], sqlx::Error> {
    bytes.try_into().map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

pub(super) fn to_json(value: &impl Serialize, doing: &str) -> RepositoryResult<String> {
    serde_json::to_string(value).map_err(|e| RepositoryError::new(Kind::Other, doing).with_source(e))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str, doing: &str) -> RepositoryResult<T> {
    serde_json::from_str(text).map_err(|e| RepositoryError::new(Kind::Corrupt, doing).with_source(e))
}

pub(super) fn failed(error: sqlx::Error, doing: impl Into<String>) -> RepositoryError {
    let kind = match &error {
        sqlx::Error::Database(e) => e.code().and_then(|code| code.parse().ok()).map_or(Kind::Other, kind_of_code),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Kind::Corrupt,
        _ => Kind::Other,
    };
    RepositoryError::new(kind, doing).with_source(error)
}

/// By SQLite's primary result codes (sqlite.org/rescode.html), which are the low byte of the extended ones.
fn kind_of_code(code: i64) -> Kind {
    match code & 0xff {
        5 | 6 => Kind::Unavailable,
        11 | 26 => Kind::Corrupt,
        13 => Kind::Full,
        _ => Kind::Other,
    }
}

pub(super) fn migration_failed(error: MigrateError, doing: String) -> RepositoryError {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::VersionTooNew(..) => {
            RepositoryError::new(Kind::Newer, doing).with_source(error)
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error, doing),
        error => RepositoryError::new(Kind::Other, doing).with_source(error),
    }
}
