//! Disk image formats: raw, VHD (fixed and dynamic) and VHDX (fixed and dynamic), written and read by our own code.
//!
//! Nothing here opens a file. A [`Layout`] says which bytes a new image starts with; [`open`] reads and checks the
//! metadata of an existing one through [`ReadAt`]; a [`LiveImage`] says where the sectors of the disk lie in the file
//! and which metadata to write in which order, as [`Step`]s, around the caller's own data writes. The caller does all
//! data I/O, in parallel and with O_DIRECT if it likes. [`Exporter`] makes a dynamic image in one pass.
//!
//! In a raw image, a fixed VHD and a fixed VHDX the position in the file is arithmetic: a crash while data is written
//! can't hurt the image. The dynamic ones grow: their steps put data before the table entry that exposes it, so that
//! every prefix of the steps is an image that opens with what it held before. [`grow`] makes an image hold a larger disk.

mod error;
mod export;
mod format;
mod grow;
mod io;
mod layout;
mod live;
mod open;
mod raw;
mod table;
mod vhd;
mod vhdx;

#[cfg(test)]
mod tests;

pub use error::{FormatError, FormatErrorKind};
pub use export::Exporter;
pub use format::{BadFormat, Format};
pub use grow::{check_growth, grow};
pub use io::{ReadAt, Step, WriteAt, run_steps};
pub use layout::{Layout, LogicalSector};
pub use live::{FileRange, LiveImage};
pub use open::{Finding, OpenedImage, ReadRange, Severity, open, open_as};
