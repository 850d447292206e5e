//! The hydrator: applies committed cycles to the target and proves them right.
//!
//! - [`formats`]: disk images, without I/O. [`target`]: the disks that are written, behind one small trait.
//! - [`ledger`]: what the hydrator knows of a target, durable before anything is done by it.
//! - [`apply`]: one cycle from its manifest to its verdict; `digests`: the target's grains for a comparison.
//! - [`driver`]: all disks of a hydrator, each with a task of its own, over traits for the appliance and the cache store.
//! - [`verify`]: two whole disks compared.
#![forbid(unsafe_code)]

pub mod apply;
pub mod cli;
mod compute;
pub mod config;
mod digests;
pub mod driver;
pub mod formats;
pub mod init;
pub mod keys;
pub mod ledger;
pub mod progress;
pub mod spool;
pub mod state;
pub mod target;
pub mod targets;
#[cfg(test)]
mod testkit;
pub mod verify;

pub use apply::{Budget, Environment};
pub use compute::Compute;
pub use driver::Hydrator;
