//! The agent: tracks what changes on a machine's disks and ships it.
#![deny(unsafe_code)]

pub mod buffers;
pub mod capture;
pub mod cli;
pub mod compare;
pub mod config;
pub mod disk;
pub mod journal;
pub mod protect;
pub mod service;
pub mod source;
pub mod tracker;
pub mod workers;

#[cfg(test)]
mod testing;

pub use workers::Workers;
