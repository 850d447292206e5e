//! The one place that asks the kernel: direct block I/O, durable small files, clock, entropy.
//!
//! - [`DirectFile`]: a disk or an image, read and written past the page cache by a thread that owns an io_uring.
//! - [`AlignedBuf`], [`BufPool`]: the memory it uses, and the bound on how much.
//! - [`device`]: what a disk is, who uses it, and whether two of them are one.
//! - [`durable`], [`append_log`]: files that a crash leaves whole.
//! - [`lock`], [`lease`], [`system`], [`process`]: one process per state folder, proof that nobody writes, time and randomness,
//!   what the process takes.
//! - [`Precedence`]: long work gives way to short work.
//!
//! Unsafe code is confined to the modules that allow it below; each block says why it is sound.
#![deny(unsafe_code)]

pub mod append_log;
mod blocking;
#[allow(unsafe_code)]
pub mod buf;
pub mod device;
pub mod direct;
pub mod durable;
#[allow(unsafe_code)]
pub mod lease;
pub mod lock;
mod precedence;
#[allow(unsafe_code)]
pub mod process;
pub mod system;

pub use buf::{AlignedBuf, BufPool};
pub use direct::{DirectFile, EngineChoice, EngineKind, IoError, IoErrorKind, IoOp, OpenOptions, Part};
pub use precedence::{Precedence, Short};

#[cfg(test)]
mod testing;
