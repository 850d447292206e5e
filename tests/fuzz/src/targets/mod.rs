//! One file a target.

pub mod agent_state;
pub mod append_log;
pub mod bitmap;
pub mod canary;
pub mod config;
pub mod digests;
pub mod envelope;
pub mod frame;
pub mod hydrator_state;
pub mod manifest;
pub mod segment;
pub mod vhd;
pub mod vhdx;
pub mod wire;
