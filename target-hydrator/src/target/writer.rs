//! Who wrote to a target last: a mark that each writer leaves on it.
//!
//! A target at rest has a [fingerprint](super::Fingerprint). One that is being written has none, as each write changes it: a
//! hydrator that was killed in the middle of a cycle could not tell its own writes from those of another, which was cloned
//! with its state, or has a copy of it that was put back. So whoever begins to write puts a random number on the target
//! before, as an extended attribute of the image's file, and notes it in its ledger before that. A block device keeps
//! none (xattr(7): `user.` is for files and directories), nor do some file systems, and one without room: there the lease is
//! all.

use super::TargetError;
use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sluice_platform::DirectFile;
use std::fs::File;
use std::io;

/// The attribute's name; its value is 16 hexadecimal digits.
pub const WRITER_ATTRIBUTE: &str = "user.sluice.writer";

/// A random number that stands for one hydrator's writing of one cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WriterMark(pub u64);

impl WriterMark {
    /// That of a target on which nobody has put a mark yet.
    pub const NOBODY: Self = Self(0);
}

impl From<WriterMark> for String {
    fn from(mark: WriterMark) -> Self {
        format!("{:016x}", mark.0)
    }
}

impl TryFrom<String> for WriterMark {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or("16 hexadecimal digits are expected")
    }
}

/// Whose mark the file bears; `None` where it can't bear any. What is no mark is nobody's.
pub(super) fn marked_by(file: &DirectFile) -> Result<Option<WriterMark>, TargetError> {
    if file.is_block_device() {
        return Ok(None);
    }
    let mut value = [0; 16];
    let len = match fgetxattr(file.file(), WRITER_ATTRIBUTE, &mut value) {
        Ok(len) => len,
        Err(Errno::NODATA | Errno::RANGE) => 0,
        Err(Errno::IO) => return Err(failed(file, Errno::IO.into())),
        // What file systems without attributes say is not the same for all of them.
        Err(_) => return Ok(None),
    };
    let text = String::from_utf8_lossy(&value[..len]).into_owned();
    Ok(Some(WriterMark::try_from(text).unwrap_or(WriterMark::NOBODY)))
}

/// Puts the mark on the file and makes it durable. False where the file can't bear it, and bears none then: that of an earlier
/// writer would speak for the wrong one. A line at the debug level says why.
pub(super) async fn mark(file: &DirectFile, by: WriterMark) -> Result<bool, TargetError> {
    if file.is_block_device() {
        return Ok(false);
    }
    let open = file.file().try_clone().map_err(|e| failed(file, e))?;
    let put = move || {
        if let Err(error) = fsetxattr(&open, WRITER_ATTRIBUTE, String::from(by).as_bytes(), XattrFlags::empty()) {
            tracing::debug!(%error, "the target's file takes no {WRITER_ATTRIBUTE}");
            take_off(&open)?;
            return Ok(false);
        }
        // All of it: what `fdatasync` brings out need not hold attributes.
        open.sync_all().map(|()| true)
    };
    let done = tokio::task::spawn_blocking(put).await;
    done.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| failed(file, e))
}

/// Takes whatever mark there is off the file, durably: for one that is made anew.
pub(super) fn unmark(file: &DirectFile) -> Result<(), TargetError> {
    take_off(file.file()).map_err(|e| failed(file, e))
}

fn take_off(file: &File) -> io::Result<()> {
    match fremovexattr(file, WRITER_ATTRIBUTE) {
        Ok(()) => file.sync_all(),
        Err(Errno::IO) => Err(Errno::IO.into()),
        Err(_) => Ok(()),
    }
}

fn failed(file: &DirectFile, error: io::Error) -> TargetError {
    let text = format!("cannot read or put {WRITER_ATTRIBUTE} of target {}: {error}", file.path().display());
    let kind = TargetError::from(error).kind();
    TargetError::new(kind, text)
}
