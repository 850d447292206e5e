//! kill -9 of each process in each state of a cycle; one file a state.
#![forbid(unsafe_code)]

mod killed_applying;
mod killed_capturing;
mod killed_committed;
mod killed_in_initial;
mod killed_proven;
mod killed_shipping;
mod replicate_killed;
