//! Refusals, numbered: programs go by the number, people by the words.

use serde::{Deserialize, Serialize};

/// Why a request was refused. Numbers are for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
#[non_exhaustive]
pub enum ErrorCode {
    /// 1: the request can't be read, or a field has a value that no client sends.
    BadRequest = 1,
    /// 2: the certificate gives no right to this request.
    Forbidden = 2,
    /// 3: no such disk, or one of another agent or hydrator: which, is not told.
    NoSuchDisk = 3,
    /// 4: the disk has a newer generation than the writer believes in.
    OldGeneration = 4,
    /// 5: the cycle is in a state in which this can't be done, or another cycle's turn has come.
    WrongState = 5,
    /// 6: the manifest names a segment that is not stored, or stored with other bytes.
    NotStored = 6,
    /// 7: the cache store, or the disk of the appliance's own state, has no room.
    NoRoom = 7,
    /// 8: the body is larger than what is accepted here.
    TooLarge = 8,
    /// 9: the client speaks a version that this appliance does not.
    Version = 9,
    /// 10: not now; the same request may go through later.
    Unavailable = 10,
    /// 11: another hydrator has taken over the target.
    LeaseLost = 11,
    /// 12: the bytes are not what they claim to be.
    Corrupt = 12,
    /// 13: the appliance failed in a way that its log explains.
    Internal = 13,
}

impl ErrorCode {
    const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::NoSuchDisk,
        Self::OldGeneration,
        Self::WrongState,
        Self::NotStored,
        Self::NoRoom,
        Self::TooLarge,
        Self::Version,
        Self::Unavailable,
        Self::LeaseLost,
        Self::Corrupt,
        Self::Internal,
    ];

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Corrupt => 400,
            Self::Forbidden => 403,
            Self::NoSuchDisk => 404,
            Self::OldGeneration | Self::WrongState | Self::NotStored | Self::LeaseLost => 409,
            Self::TooLarge => 413,
            Self::Version => 426,
            Self::Unavailable => 503,
            Self::NoRoom => 507,
            Self::Internal => 500,
        }
    }

    /// True where the same request may succeed later without anything being changed by the client.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable | Self::NoRoom | Self::Internal)
    }
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> u16 {
        code as u16
    }
}

impl TryFrom<u16> for ErrorCode {
    type Error = String;
    fn try_from(number: u16) -> Result<Self, String> {
        Self::ALL.into_iter().find(|c| *c as u16 == number).ok_or_else(|| format!("unknown error code {number}"))
    }
}

/// A refusal: the body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// Which kind.
    pub code: ErrorCode,
    /// What happened, to which disk, and what to do.
    pub message: String,
}

impl WireError {
    /// A refusal with these words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
