//! The hydrator: applies committed cycles to the target and proves them right.

pub mod formats;
