//! The agent: tracks what changes on a machine's disks and ships it.
