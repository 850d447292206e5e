//! The appliance: admits, schedules, throttles and stores what agents ship; it cannot read it.
//!
//! - [`cli`], [`config`], [`init`], [`run`]: the program.
//! - [`http`]: the port that all others speak to.
//! - [`identity`], [`pki`], [`tls`]: who may speak with it, and how that is known.
//! - [`repository`]: what it must not forget.
//! - [`service`]: what it decides.
//! - [`throttle`]: how much may come in.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod http;
pub mod identity;
pub mod init;
pub mod pki;
pub mod repository;
pub mod run;
pub mod service;
pub mod throttle;
pub mod tls;
