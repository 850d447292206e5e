//! The little that the formats ask of a file, and the numbers in its bytes.

use super::FormatError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads at a position. Blocking: only metadata is read this way, and the exports' data.
pub trait ReadAt {
    /// Fills `buf` whole from `offset` bytes; an error of kind `UnexpectedEof` where the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Writes at a position and sets the length, for [`Step`]s and exports.
pub trait WriteAt {
    /// Writes all of `bytes` at `offset` bytes, growing the file where it ends before.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file `len` bytes long; bytes that are new read as zeros.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Returns when all that was written is on stable storage, the file's length included.
    fn sync(&mut self) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl WriteAt for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// One thing to do to the image's file. Steps are done in their order; what lies between two [`Step::Sync`]s may
/// reach the disk in any order and in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the file so many bytes long.
    SetLen(u64),
    /// Write these bytes at this offset. Offset and length are whole multiples of 512, and nothing more: a handle
    /// with O_DIRECT is not the one for it.
    Write(u64, Vec<u8>),
    /// Put all that was written so far, data too, on stable storage.
    Sync,
}

/// Does the steps in order.
pub fn run_steps(file: &mut dyn WriteAt, steps: impl IntoIterator<Item = Step>) -> io::Result<()> {
    for step in steps {
        match step {
            Step::SetLen(len) => file.set_len(len)?,
            Step::Write(offset, bytes) => file.write_at(offset, &bytes)?,
            Step::Sync => file.sync()?,
        }
    }
    Ok(())
}

/// Reads `N` bytes of metadata, named `what` in the error.
pub(super) fn read_array<const N: usize>(
    reader: &dyn ReadAt,
    offset: u64,
    what: &str,
) -> Result<Box<[u8; N]>, FormatError> {
    let mut bytes = Box::new([0; N]);
    reader.read_at(offset, &mut bytes[..]).map_err(|e| read_error(what, offset, e))?;
    Ok(bytes)
}

/// The error for metadata that could not be read: a file that ends before it is a broken image, not a broken disk.
pub(super) fn read_error(what: &str, offset: u64, e: io::Error) -> FormatError {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        FormatError::corrupt(format!("the file ends before the end of its {what} (at byte {offset})"))
    } else {
        FormatError::io(format!("cannot read the {what} at byte {offset}"), e)
    }
}

macro_rules! number {
    ($get:ident, $put:ident, $type:ty, $from:ident, $to:ident) => {
        /// The number at `at`; the caller knows that the bytes are there.
        pub(super) fn $get(bytes: &[u8], at: usize) -> $type {
            let mut raw = [0; size_of::<$type>()];
            raw.copy_from_slice(&bytes[at..at + size_of::<$type>()]);
            <$type>::$from(raw)
        }
        /// Stores the number at `at`; the caller knows that the bytes are there.
        pub(super) fn $put(bytes: &mut [u8], at: usize, value: $type) {
            bytes[at..at + size_of::<$type>()].copy_from_slice(&value.$to());
        }
    };
}

number!(be32, put_be32, u32, from_be_bytes, to_be_bytes);
number!(be64, put_be64, u64, from_be_bytes, to_be_bytes);
number!(le16, put_le16, u16, from_le_bytes, to_le_bytes);
number!(le32, put_le32, u32, from_le_bytes, to_le_bytes);
number!(le64, put_le64, u64, from_le_bytes, to_le_bytes);

/// True where every byte is zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, b| all | b) == 0)
}
