//! A request broken into system calls that direct I/O accepts.
//!
//! Pure bookkeeping: the engine asks for the next call, makes it in whatever way it has, and tells how it ended. Which
//! calls, `plan` decides: a read that isn't aligned is widened. A write that isn't is read, modified and written as whole
//! units; the engine lets no other write touch those units meanwhile. The last, partial unit of a file with an odd size
//! goes through the page cache, flushed and dropped from it at once.

use super::error::{IoError, IoOp};
use super::files::{Call, Files};
use crate::buf::AlignedBuf;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use tokio::sync::oneshot;

/// What a request asks for. Offsets and lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// Fill the buffer's first `len` bytes.
    Read {
        offset: u64,
        len: usize,
    },
    /// Write this range of the buffer.
    Write {
        offset: u64,
        range: Range<usize>,
    },
    /// Make the range read as zeros; `free` says to give its space back.
    Zero {
        offset: u64,
        len: u64,
        free: bool,
    },
    /// Reserve space.
    Allocate {
        offset: u64,
        len: u64,
    },
    Sync,
    SetLen(u64),
    Seek {
        whence: i32,
        offset: u64,
    },
}

impl Ask {
    fn place(&self) -> (IoOp, u64, u64) {
        match *self {
            Self::Read { offset, len } => (IoOp::Read, offset, len as u64),
            Self::Write { offset, ref range } => (IoOp::Write, offset, range.len() as u64),
            Self::Zero { offset, len, .. } => (IoOp::Zero, offset, len),
            Self::Allocate { offset, len } => (IoOp::Allocate, offset, len),
            Self::Sync => (IoOp::Sync, 0, 0),
            Self::SetLen(_) => (IoOp::Resize, 0, 0),
            Self::Seek { offset, .. } => (IoOp::Seek, offset, 0),
        }
    }

    /// The error that this request ends with.
    pub fn error(&self, files: &Files, source: io::Error) -> IoError {
        let (op, offset, len) = self.place();
        IoError::new(op, &files.name, offset, len, source)
    }
}

/// The answer to a request: its buffer, if it had one, and a number (bytes, or a position).
pub(super) struct Answer {
    pub buf: AlignedBuf,
    pub result: Result<u64, IoError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    User,
    Bounce,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Read `ask` bytes, of which `need` must come; with `pad`, what lies behind the end counts as zeros.
    Read {
        memory: Memory,
        at: usize,
        offset: u64,
        ask: usize,
        need: usize,
        pad: bool,
    },
    Write {
        memory: Memory,
        at: usize,
        offset: u64,
        len: usize,
    },
    Tail {
        memory: Memory,
        at: usize,
        offset: u64,
        len: usize,
    },
    /// Zeros from the bounce buffer, again and again.
    Zeros {
        offset: u64,
        len: u64,
    },
    Fallocate {
        mode: i32,
        offset: u64,
        len: u64,
    },
    Plain(Call),
    CopyIn {
        to: usize,
        from: Range<usize>,
    },
    CopyOut {
        from: usize,
        len: usize,
    },
    ZeroBounce(Range<usize>),
}

/// What the engine has to do next for a job.
pub(super) enum Next {
    /// Make this call, then tell `completed`.
    Call(Call),
    /// Answer the request.
    Finished(io::Result<u64>),
}

/// A request under way.
pub(super) struct Job {
    pub ask: Ask,
    pub user: AlignedBuf,
    pub reply: oneshot::Sender<Answer>,
    pub(super) bounce: AlignedBuf,
    pub(super) steps: VecDeque<Step>,
    /// Bytes of the first step that are done.
    done: usize,
    value: u64,
    retries: u32,
}

impl Job {
    pub fn new(ask: Ask, user: AlignedBuf, reply: oneshot::Sender<Answer>) -> Self {
        let (bounce, steps) = (AlignedBuf::new(0), VecDeque::new());
        Self { ask, user, reply, bounce, steps, done: 0, value: 0, retries: 0 }
    }

    /// The bytes of the disk that no other writing request may touch meanwhile, widened to whole units; `None` for a
    /// request that changes nothing.
    pub fn writes(&self, files: &Files) -> Option<Range<u64>> {
        let widened =
            |offset: u64, len: u64| Some(files.align.down(offset)..files.align.up(offset.saturating_add(len)));
        match self.ask {
            Ask::Write { offset, ref range } => widened(offset, range.len() as u64),
            Ask::Zero { offset, len, .. } | Ask::Allocate { offset, len } => widened(offset, len),
            Ask::Sync | Ask::SetLen(_) => Some(0..u64::MAX),
            Ask::Read { .. } | Ask::Seek { .. } => None,
        }
    }

    /// The next call; does the copying between calls.
    pub fn next(&mut self) -> Next {
        loop {
            let done = self.done;
            let call = match self.steps.front() {
                None => return Next::Finished(Ok(self.value)),
                Some(&Step::Read { memory, at, offset, ask, .. }) => {
                    let to = self.at(memory, at + done, ask - done);
                    Call::Read { to, len: ask - done, offset: offset + done as u64 }
                }
                Some(&Step::Write { memory, at, offset, len }) => {
                    let from = self.at(memory, at + done, len - done).cast_const();
                    Call::Write { from, len: len - done, offset: offset + done as u64 }
                }
                Some(&Step::Tail { memory, at, offset, len }) => {
                    let from = self.at(memory, at + done, len - done).cast_const();
                    Call::Tail { from, len: len - done, offset: offset + done as u64 }
                }
                Some(&Step::Zeros { offset, len }) => {
                    let left = usize::try_from(len).unwrap_or(usize::MAX).min(self.bounce.len());
                    Call::Write { from: self.at(Memory::Bounce, 0, left).cast_const(), len: left, offset }
                }
                Some(&Step::Fallocate { mode, offset, len }) => Call::Fallocate { mode, offset, len },
                Some(&Step::Plain(call)) => call,
                Some(_) => {
                    self.copy();
                    continue;
                }
            };
            return Next::Call(call);
        }
    }

    /// The address of `len` bytes from `at`, checked to lie inside the buffer.
    fn at(&mut self, memory: Memory, at: usize, len: usize) -> *mut u8 {
        let buf = if memory == Memory::User { &mut self.user } else { &mut self.bounce };
        assert!(at.checked_add(len).is_some_and(|end| end <= buf.capacity()), "a call stays inside its buffer");
        // Within the allocation, as just checked; the arithmetic itself is safe.
        buf.start().wrapping_add(at)
    }

    fn copy(&mut self) {
        match self.steps.pop_front() {
            Some(Step::CopyIn { to, from }) => {
                let len = from.len();
                self.bounce[to..to + len].copy_from_slice(&self.user[from]);
            }
            Some(Step::CopyOut { from, len }) => {
                self.user.set_len(len);
                self.bounce.set_len(self.bounce.capacity());
                self.user.copy_from_slice(&self.bounce[from..from + len]);
            }
            Some(Step::ZeroBounce(range)) => self.bounce[range].fill(0),
            _ => {}
        }
    }

    /// Takes in how the last call ended. An error ends the job.
    pub fn completed(&mut self, files: &Files, result: io::Result<u64>) -> io::Result<()> {
        let n = match result {
            Ok(n) => n,
            Err(error) => return self.recover(files, error),
        };
        self.retries = 0;
        let count = usize::try_from(n).unwrap_or(usize::MAX);
        match *self.steps.front().expect("a completion belongs to a step") {
            Step::Read { memory, at, ask, need, pad, .. } => {
                let reached = self.done.saturating_add(count).min(ask);
                if reached >= need {
                    return self.step_done();
                }
                // A call that ended inside a unit is repeated from the unit's start. No progress means the end.
                let resume = files.align.down(reached as u64) as usize;
                if resume > self.done {
                    self.done = resume;
                } else if pad && memory == Memory::Bounce {
                    self.bounce[at + reached..at + ask].fill(0);
                    return self.step_done();
                } else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Step::Write { len, .. } => {
                let reached = self.done.saturating_add(count).min(len);
                if reached == len {
                    return self.step_done();
                }
                let resume = files.align.down(reached as u64) as usize;
                if resume <= self.done {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.done = resume;
            }
            Step::Tail { len, .. } => {
                self.done += count.min(len - self.done);
                match () {
                    () if self.done == len => return self.step_done(),
                    () if count == 0 => return Err(io::ErrorKind::WriteZero.into()),
                    () => {}
                }
            }
            Step::Zeros { offset, len } => {
                let moved = files.align.down(n).min(len);
                if moved == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.steps[0] = Step::Zeros { offset: offset + moved, len: len - moved };
                if moved == len {
                    return self.step_done();
                }
            }
            _ => {
                self.value = n;
                return self.step_done();
            }
        }
        Ok(())
    }

    fn step_done(&mut self) -> io::Result<()> {
        if let Some(Step::Read { memory: Memory::User, need, .. }) = self.steps.front() {
            self.user.set_len(*need);
        }
        self.steps.pop_front();
        self.done = 0;
        Ok(())
    }

    /// Goes another way where the kernel can't do a thing, or once more where it asks for it.
    fn recover(&mut self, files: &Files, error: io::Error) -> io::Result<()> {
        let errno = error.raw_os_error();
        if errno == Some(libc::EINTR) || (errno == Some(libc::EAGAIN) && self.retries < 100) {
            self.retries += 1;
            return Ok(());
        }
        let refused = matches!(errno, Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY));
        if let (true, Some(&Step::Fallocate { mode, offset, len })) = (refused, self.steps.front()) {
            self.steps.pop_front();
            let rest = std::mem::take(&mut self.steps);
            // A device that can't unmap may still be able to zero, in its own way or with the kernel writing zeros.
            if files.is_block && mode & libc::FALLOC_FL_PUNCH_HOLE != 0 {
                let mode = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_ZERO_RANGE;
                self.steps.push_back(Step::Fallocate { mode, offset, len });
            } else {
                self.push_zero_writes(files, offset, offset + len, files.size()?);
            }
            self.steps.extend(rest);
            return Ok(());
        }
        Err(error)
    }

    /// Answers the request. Nobody may be waiting any more: then the buffer goes back to its pool here.
    pub fn finish(self, files: &Files, result: io::Result<u64>) {
        let result = result.map_err(|source| self.ask.error(files, source));
        drop(self.reply.send(Answer { buf: self.user, result }));
    }

    /// Gives the buffers up for lost, since the kernel may still be using them and can't be asked.
    pub fn leak(self) -> (Ask, oneshot::Sender<Answer>) {
        std::mem::forget((self.user, self.bounce));
        (self.ask, self.reply)
    }
}
