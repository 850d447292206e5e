//! What can go wrong on a disk, told so that an operator knows where it is and what to do.

use sluice_proto::units::SECTOR_BYTES;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What was asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoOp {
    /// Opening it.
    Open,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Making written data durable.
    Sync,
    /// Making a range read as zeros.
    Zero,
    /// Looking for data behind holes.
    Seek,
    /// Changing a file's size.
    Resize,
    /// Reserving space for a range.
    Allocate,
    /// Asking for its size or other facts.
    Query,
}

impl fmt::Display for IoOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "flush",
            Self::Zero => "zero",
            Self::Seek => "look for data in",
            Self::Resize => "resize",
            Self::Allocate => "reserve space in",
            Self::Query => "query",
        })
    }
}

/// Why it failed, as far as a program would act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// The medium could not deliver or take these sectors.
    Medium,
    /// The device is gone, or its driver says so.
    Vanished,
    /// No room on the file system or in the thin pool.
    NoSpace,
    /// The range ends behind the end of the disk: it shrank, or the caller is wrong.
    PastEnd,
    /// The file system can't hold a file of this size.
    TooLarge,
    /// It is neither a block device nor a regular file.
    NotADisk,
    /// Writing is not allowed.
    ReadOnly,
    /// The path does not exist.
    NotFound,
    /// This user may not.
    NotPermitted,
    /// Somebody else holds the device.
    Busy,
    /// The kernel or the file system can't do this.
    Unsupported,
    /// The I/O thread has ended.
    Stopped,
    /// Anything else; the errno says more.
    Other,
}

impl IoErrorKind {
    fn of(source: &io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EIO | libc::ENODATA | libc::EREMOTEIO | libc::EILSEQ | libc::EBADMSG | libc::ETIMEDOUT) => {
                Self::Medium
            }
            Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESHUTDOWN) => Self::Vanished,
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            Some(libc::EROFS | libc::EBADF) => Self::ReadOnly,
            Some(libc::ENOENT | libc::ENOTDIR) => Self::NotFound,
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::EBUSY | libc::ETXTBSY) => Self::Busy,
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY) => Self::Unsupported,
            Some(libc::EFBIG) => Self::TooLarge,
            Some(libc::EISDIR) => Self::NotADisk,
            Some(_) => Self::Other,
            None if source.kind() == io::ErrorKind::UnexpectedEof => Self::PastEnd,
            None if source.kind() == io::ErrorKind::Unsupported => Self::NotADisk,
            None if source.kind() == io::ErrorKind::BrokenPipe => Self::Stopped,
            None if source.kind() == io::ErrorKind::PermissionDenied => Self::ReadOnly,
            None => Self::Other,
        }
    }

    fn advice(self, op: IoOp) -> &'static str {
        match (self, op) {
            (Self::Medium, IoOp::Sync) => {
                "what was written since the last flush may be lost; see dmesg, then repeat the whole cycle"
            }
            (Self::Medium, _) => "see dmesg and the device's SMART log; replace the disk if it comes back",
            (Self::Vanished, _) => "the device is gone; attach it again and check its cabling or its hypervisor",
            (Self::NoSpace, _) => "free some space there, or move it to a larger disk; the work goes on from here then",
            (Self::PastEnd, IoOp::Write | IoOp::Zero) => "the target is smaller than the data; make it larger",
            (Self::PastEnd, _) => "it is smaller than expected; if it was shrunk, it has to be protected anew",
            (Self::TooLarge, _) => {
                "the file system can't hold a file that large; put it on another one, xfs for instance"
            }
            (Self::NotADisk, _) => "give a block device or an image file",
            (Self::ReadOnly, _) => "it is read-only; check the device's write protection and the mount options",
            (Self::NotFound, _) => "check the path; a device may have got another name since the last boot",
            (Self::NotPermitted, _) => "run as root, or give this user access to it",
            (Self::Busy, _) => "somebody else uses it; unmount it or stop its user first",
            (Self::Unsupported, _) => "this kernel or file system can't do that",
            (Self::Stopped, _) => "its I/O thread has ended; restart the program and report this as a bug",
            (Self::Other, _) => "see dmesg",
        }
    }
}

/// An operation on a disk failed.
///
/// Its text names the device, the place in bytes and in sectors, what the kernel said, and what to do.
#[derive(Debug)]
pub struct IoError {
    kind: IoErrorKind,
    op: IoOp,
    device: Arc<str>,
    offset: u64,
    len: u64,
    source: io::Error,
}

/// The result of an operation on a disk.
pub type IoResult<T> = Result<T, IoError>;

impl IoError {
    pub(crate) fn new(op: IoOp, device: &Arc<str>, offset: u64, len: u64, source: io::Error) -> Self {
        Self { kind: IoErrorKind::of(&source), op, device: device.clone(), offset, len, source }
    }

    /// Why it failed.
    pub fn kind(&self) -> IoErrorKind {
        self.kind
    }
    /// What was asked.
    pub fn op(&self) -> IoOp {
        self.op
    }
    /// The device or file.
    pub fn device(&self) -> &str {
        &self.device
    }
    /// Where the range starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// The range's length in bytes; 0 where the operation is about the whole disk.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }
    /// The kernel's error number, where it came from the kernel.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.op, self.device)?;
        if self.len > 0 {
            let (first, end) = (self.offset / SECTOR_BYTES, (self.offset + self.len).div_ceil(SECTOR_BYTES));
            write!(f, " at byte {} for {} bytes (sectors {first}..{end})", self.offset, self.len)?;
        }
        write!(f, ": {}; {}", self.source, self.kind.advice(self.op))
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The kernel's own words are in this error's text already.
        self.source.source()
    }
}

impl From<IoError> for io::Error {
    fn from(error: IoError) -> Self {
        let kind = match error.kind {
            IoErrorKind::PastEnd => io::ErrorKind::UnexpectedEof,
            _ => error.source.kind(),
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_has_its_kind_and_advice() {
        let device: Arc<str> = "/dev/sdx".into();
        for (errno, kind, advice) in [
            (libc::EIO, IoErrorKind::Medium, "SMART"),
            (libc::ENODEV, IoErrorKind::Vanished, "the device is gone; attach it again"),
            (libc::ENXIO, IoErrorKind::Vanished, "the device is gone; attach it again"),
            (libc::ENOSPC, IoErrorKind::NoSpace, "free some space"),
            (libc::EROFS, IoErrorKind::ReadOnly, "write protection"),
            (libc::EACCES, IoErrorKind::NotPermitted, "run as root"),
            (libc::EBUSY, IoErrorKind::Busy, "unmount it"),
            (libc::EFBIG, IoErrorKind::TooLarge, "xfs"),
            (libc::EISDIR, IoErrorKind::NotADisk, "give a block device"),
            (libc::EINVAL, IoErrorKind::Other, "dmesg"),
        ] {
            let error = IoError::new(IoOp::Read, &device, 1 << 20, 4096, io::Error::from_raw_os_error(errno));
            assert_eq!((error.kind(), error.errno()), (kind, Some(errno)));
            let text = error.to_string();
            let place = "cannot read /dev/sdx at byte 1048576 for 4096 bytes (sectors 2048..2056): ";
            assert!(text.starts_with(place) && text.contains(advice), "{text}");
            let wrapped = io::Error::from(error);
            assert_eq!(wrapped.to_string(), text);
        }
    }

    #[test]
    fn a_failed_flush_advises_to_repeat_the_cycle() {
        let error = IoError::new(IoOp::Sync, &"t.vhd".into(), 0, 0, io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(
            error.to_string(),
            "cannot flush t.vhd: Input/output error (os error 5); what was written since the last flush may be lost; \
             see dmesg, then repeat the whole cycle"
        );
    }
}
