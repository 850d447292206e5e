//! How much may come in: bits per second by the time of day, shared fairly between disks.
//!
//! - [`Rate`], [`Limit`]: a rate, and a rate or none, as people write them.
//! - [`Limits`]: which limit holds when.
//! - [`Scheduler`]: who may go next, with no clock of its own.
//! - [`Throttle`]: the same for tasks that wait.

mod limits;
mod rate;
mod scheduler;
mod shared;
#[cfg(test)]
mod tests;

pub use limits::{BadWindow, Limits, Window};
pub use rate::{BadRate, Limit, Rate};
pub use scheduler::{QUANTUM_BYTES, Scheduler, Ticket};
pub use shared::Throttle;
