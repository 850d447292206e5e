//! How a request to the appliance can fail.

use sluice_proto::wire::{ErrorCode, WireError};

/// The answer to a request.
pub type ApiResult<T> = Result<T, ApiError>;

/// Why a request has no answer that helps.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// The appliance refused it.
    #[error("the appliance refused: {0}")]
    Refused(#[from] WireError),
    /// No answer came: it is not known whether the appliance carried the request out.
    #[error("no answer from the appliance at {appliance}: {detail}; check that it runs and can be reached")]
    Unreachable {
        /// Its address.
        appliance: String,
        /// What failed.
        detail: String,
    },
    /// An answer that no appliance of a known version gives.
    #[error("the appliance's answer can't be read: {0}; do agent, appliance and hydrator run the same version?")]
    Unreadable(String),
}

impl ApiError {
    /// True where the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code.may_pass(),
            Self::Unreachable { .. } => true,
            Self::Unreadable(_) => false,
        }
    }

    /// The refusal's number, where it is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}
