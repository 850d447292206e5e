//! What scenarios of the machine share: a guest with Sluice in it and disks that come and go, a recorded disk and its
//! power cuts, an installed agent that is upgraded, and how much the kernel says was written to a disk.
#![forbid(unsafe_code)]

mod demands;
mod guest;
mod installed;
mod log_writes;
mod monitor;
mod power;
mod written;

pub use demands::{assert_delta, assert_resync};
pub use guest::{Guest, HOST};
pub use installed::{End, Installed};
pub use log_writes::{Cut, Log, Replay};
pub use monitor::Monitor;
pub use power::{Place, Recording, Recovery, SOURCE, STATE, Survivor};
pub use written::Written;
