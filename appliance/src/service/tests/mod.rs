//! Contract tests of the service: on a repository and a store in memory, under a paused clock, with real segments and
//! manifests, through the same traits that remote clients use.

mod access;
mod digests;
mod faults;
pub(crate) mod fixture;
mod foreign;
mod grown;
mod restart;
mod schedule;
mod ship;
mod slots;
mod verdicts;

pub(crate) use digests::part as digests_part;
