//! What tests of several crates need from outside: tools from npm, an Azure blob service, small file systems,
//! a guest in QEMU.
//!
//! Everything here panics with a sentence that says what is missing: a test that can't have what it needs must fail, not
//! pass unseen. Everything is taken down again when it is dropped.
#![forbid(unsafe_code)]

mod azurite;
mod small_fs;
mod tools;
pub mod vm;

pub use azurite::Azurite;
pub use small_fs::SmallFs;
pub use tools::{npm_package, tools_dir};
