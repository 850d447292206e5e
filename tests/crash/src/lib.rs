//! What scenarios of death share: a disk whose cycles begin on order only, ways to bring a cycle into a state, and the
//! demand that follows a death.
#![forbid(unsafe_code)]

mod noise;
mod scene;

pub use noise::Noise;
pub use scene::{Scene, moment};
