//! Many places of a disk in one request: a buffer whose ranges are read from, or written to, places of their own.
//!
//! A cycle's changes are scattered; a request for each piece of 4 KiB costs more in handing over than in the kernel. Only
//! what direct I/O takes as it is goes this way: whole units, each a call of its own, in any order.

use super::error::{IoError, IoOp};
use super::files::{Alignment, Call, Files};
use super::job::Answer;
use crate::buf::AlignedBuf;
use std::io;
use std::ops::Range;
use tokio::sync::oneshot;

/// How often a call is made again that the kernel asks to be made again.
const RETRIES_MAX: u32 = 100;

/// A place on the disk, and the bytes of a buffer that belong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The disk's first byte.
    pub offset: u64,
    /// The buffer's bytes.
    pub range: Range<usize>,
}

impl Part {
    /// True where direct I/O takes it as it is.
    pub(super) fn fits(&self, align: Alignment) -> bool {
        let end = self.offset.checked_add(self.range.len() as u64);
        let far = i64::MAX as u64 - (1 << 20);
        align.fits(self.offset)
            && align.fits(self.range.len() as u64)
            && self.range.start.is_multiple_of(align.memory)
            && end.is_some_and(|end| end <= far)
    }
}

/// A request for many places.
pub(super) struct Scatter {
    pub write: bool,
    pub parts: Vec<Part>,
    pub buf: AlignedBuf,
    pub reply: oneshot::Sender<Answer>,
    /// The first part that was not begun yet.
    next: usize,
    under_way: usize,
    error: Option<IoError>,
}

/// A part's call in the kernel.
pub(super) struct Running {
    /// Which request.
    pub scatter: usize,
    part: usize,
    done: usize,
    retries: u32,
}

impl Scatter {
    pub fn new(write: bool, parts: Vec<Part>, buf: AlignedBuf, reply: oneshot::Sender<Answer>) -> Self {
        Self { write, parts, buf, reply, next: 0, under_way: 0, error: None }
    }

    /// From the first byte that it writes to the last: no other request may write there meanwhile.
    pub fn writes(&self) -> Option<Range<u64>> {
        let start = self.parts.iter().map(|part| part.offset).min()?;
        let end = self.parts.iter().map(|part| part.offset + part.range.len() as u64).max()?;
        self.write.then_some(start..end)
    }

    /// The next part to be begun, as request `scatter`; `None` where none is to be.
    pub fn begin(&mut self, scatter: usize) -> Option<Running> {
        if self.error.is_some() || self.reply.is_closed() || self.next == self.parts.len() {
            return None;
        }
        let part = self.next;
        self.next += 1;
        self.under_way += 1;
        Some(Running { scatter, part, done: 0, retries: 0 })
    }

    /// True where parts are still to be begun.
    pub fn has_more(&self) -> bool {
        self.error.is_none() && self.next < self.parts.len()
    }

    /// True while a call of it may be using its buffer.
    pub fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// A part's next call.
    pub fn call(&mut self, running: &Running) -> Call {
        let Part { offset, range } = &self.parts[running.part];
        let (at, len) = (range.start + running.done, range.len() - running.done);
        assert!(range.end <= self.buf.capacity(), "a call stays inside its buffer");
        // Within the allocation, as just checked; the arithmetic itself is safe.
        let memory = self.buf.start().wrapping_add(at);
        let offset = offset + running.done as u64;
        match self.write {
            true => Call::Write { from: memory.cast_const(), len, offset },
            false => Call::Read { to: memory, len, offset },
        }
    }

    /// Takes in how a call ended; true where the part needs another.
    pub fn completed(&mut self, files: &Files, running: &mut Running, result: io::Result<u64>) -> bool {
        let error = match self.advance(files, running, result) {
            Ok(true) => return true,
            Ok(false) => None,
            Err(error) => Some(self.error_of(files, running.part, error)),
        };
        self.under_way -= 1;
        self.error = self.error.take().or(error);
        false
    }

    fn advance(&self, files: &Files, running: &mut Running, result: io::Result<u64>) -> io::Result<bool> {
        let n = match result {
            Ok(n) => n,
            Err(error) => {
                let again = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN));
                running.retries += 1;
                return if again && running.retries < RETRIES_MAX { Ok(true) } else { Err(error) };
            }
        };
        running.retries = 0;
        let len = self.parts[running.part].range.len();
        let reached = running.done.saturating_add(usize::try_from(n).unwrap_or(usize::MAX)).min(len);
        if reached == len {
            return Ok(false);
        }
        // A call that ended inside a unit is repeated from the unit's start. No progress means the end.
        let resume = files.align.down(reached as u64) as usize;
        if resume <= running.done {
            return Err(if self.write { io::ErrorKind::WriteZero } else { io::ErrorKind::UnexpectedEof }.into());
        }
        running.done = resume;
        Ok(true)
    }

    fn error_of(&self, files: &Files, part: usize, error: io::Error) -> IoError {
        let Part { offset, range } = &self.parts[part];
        let op = if self.write { IoOp::Write } else { IoOp::Read };
        IoError::new(op, &files.name, *offset, range.len() as u64, error)
    }

    /// The request's error where it can't be served at all.
    pub fn refused(&self, files: &Files, error: io::Error) -> IoError {
        self.error_of(files, 0, error)
    }

    /// Answers it. Nobody may be waiting any more: then the buffer goes back to its pool here.
    pub fn finish(self, files: &Files) {
        let given_up = (self.next < self.parts.len()).then(|| self.refused(files, io::ErrorKind::BrokenPipe.into()));
        let result = self.error.or(given_up).map_or(Ok(0), Err);
        drop(self.reply.send(Answer { buf: self.buf, result }));
    }

    /// Answers it with an error. The buffer is given up for lost where the kernel may still be using it.
    pub fn give_up(self, error: IoError) {
        let buf = if self.under_way > 0 {
            std::mem::forget(self.buf);
            AlignedBuf::new(0)
        } else {
            self.buf
        };
        drop(self.reply.send(Answer { buf, result: Err(error) }));
    }
}
