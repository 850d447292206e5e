//! Chaos: the three programs as processes over disks under load, and everything that can happen to processes, connections,
//! stores and clocks; then rest, and the demand that source and target are equal.
#![forbid(unsafe_code)]

mod counts;
mod faults;
mod plan;
mod proxy;
mod reasons;
mod round;
mod scene;
mod settle;
mod sources;
mod stress;

pub use counts::Counts;
pub use plan::{Plan, Store};
pub use proxy::{Mode, Proxy};
pub use round::run;

/// Whether the round that is played is to be cut short; devices and mounts are taken down all the same.
pub static INTERRUPTED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
