//! What happens to machines; one file a scenario.
#![forbid(unsafe_code)]

mod agent_down;
mod log_format;
mod power_cuts;
mod reboots;
mod renamed;
mod second_tracker;
mod upgrade_in_place;
