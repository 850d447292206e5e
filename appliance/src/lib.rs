//! The appliance: admits, schedules, throttles and stores what agents ship; it cannot read it.
//!
//! - [`identity`], [`pki`], [`tls`]: who may speak with it, and how that is known.
//! - [`repository`]: what it must not forget.
#![forbid(unsafe_code)]

pub mod identity;
pub mod pki;
pub mod repository;
pub mod tls;
