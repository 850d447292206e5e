//! What tests of several crates need from outside: tools from npm, an Azure blob service, block devices, file systems
//! and what writes to them, the `sluice` program as a process or as three, a guest in QEMU.
//!
//! Everything here panics with a sentence that says what is missing: a test that can't have what it needs must fail, not
//! pass unseen. Everything is taken down again when it is dropped.
#![forbid(unsafe_code)]

mod azurite;
pub mod cluster;
pub mod command;
pub mod devices;
mod files;
pub mod images;
pub mod load;
pub mod mounts;
pub mod program;
mod small_fs;
mod tools;
pub mod vm;

pub use azurite::Azurite;
pub use files::files_below;
pub use small_fs::SmallFs;
pub use tools::{npm_package, tools_dir};
