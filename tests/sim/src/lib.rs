//! Deterministic simulation: the real agent, appliance and hydrator in one thread, from a seed.
//!
//! Time is tokio's paused clock, so hours pass in milliseconds and every order of events follows from the seed. Disks,
//! records, network and store are simulated with their faults; state machines, codecs and logic are the product's own.
#![forbid(unsafe_code)]

pub mod canary;
pub mod check;
pub mod life;
pub mod machine;
pub mod net;
pub mod repository;
pub mod rng;
pub mod source;
pub mod target;
pub mod world;
