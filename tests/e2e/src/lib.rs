//! What scenarios share: a source under load, `sluice replicate` over it, three processes over it, and the judgement
//! whether the disks are equal.
#![forbid(unsafe_code)]

mod apart;
mod judge;
mod pins;
mod replicate;

pub use apart::{Apart, NEVER_MS};
pub use judge::{Format, assert_equal};
pub use pins::Pins;
pub use replicate::{Cycle, Replicate};
