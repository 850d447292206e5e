//! Which system calls a request takes, given what the disk demands.

use super::files::{Call, Files};
use super::job::{Ask, Job, Memory, Step};
use crate::buf::AlignedBuf;
use std::io;
use std::ops::Range;

/// How much is written at once where a range has to be zeroed by writing, in bytes.
const ZEROS_BYTES: usize = 1 << 20;

impl Job {
    /// Decides on the calls. Asks for the size, so it is done when the job starts, not when it is queued.
    pub fn plan(&mut self, files: &Files) -> io::Result<()> {
        match self.ask.clone() {
            Ask::Read { offset, len } => self.plan_read(files, offset, len)?,
            Ask::Write { offset, range } => self.plan_write(files, offset, range)?,
            Ask::Zero { offset, len, free } => self.plan_zero(files, offset, len, free)?,
            Ask::Allocate { offset, len } => {
                if !files.is_block {
                    self.steps.push_back(Step::Plain(Call::Fallocate { mode: 0, offset, len }));
                }
            }
            Ask::Sync => self.steps.push_back(Step::Plain(Call::Sync)),
            Ask::SetLen(len) => self.steps.push_back(Step::Plain(Call::SetLen(len))),
            Ask::Seek { whence, offset } => self.steps.push_back(Step::Plain(Call::Seek { whence, offset })),
        }
        Ok(())
    }

    fn plan_read(&mut self, files: &Files, offset: u64, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = end_of(offset, len as u64)?;
        let (wide_start, wide_end) = (files.align.down(offset), files.align.up(end));
        let wide = (wide_end - wide_start) as usize;
        let in_place = wide_start == offset && wide <= self.user.capacity();
        let skip = (offset - wide_start) as usize;
        let memory = if in_place { Memory::User } else { Memory::Bounce };
        if !in_place {
            self.bounce = AlignedBuf::new(wide);
        }
        self.steps.push_back(Step::Read { memory, at: 0, offset: wide_start, ask: wide, need: skip + len, pad: false });
        if !in_place {
            self.steps.push_back(Step::CopyOut { from: skip, len });
        }
        Ok(())
    }

    fn plan_write(&mut self, files: &Files, offset: u64, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let len = range.len();
        let end = end_of(offset, len as u64)?;
        let size = if files.is_block || !files.align.fits(end) { files.size()? } else { u64::MAX };
        if files.is_block && end > size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (wide_start, wide_end) = (files.align.down(offset), files.align.up(end));
        let (head, tail) = (wide_start != offset, wide_end != end);
        if !head && !tail && range.start.is_multiple_of(files.align.memory) {
            self.steps.push_back(Step::Write { memory: Memory::User, at: range.start, offset, len });
            return Ok(());
        }
        if wide_end > size {
            self.steps.push_back(Step::Tail { memory: Memory::User, at: range.start, offset, len });
            return Ok(());
        }
        let (unit, wide) = (files.align.offset, (wide_end - wide_start) as usize);
        self.bounce = AlignedBuf::zeroed(wide);
        if head {
            self.push_unit_read(wide_start, 0, unit);
        }
        if tail && !(head && wide == unit) {
            self.push_unit_read(wide_end - unit as u64, wide - unit, unit);
        }
        self.steps.push_back(Step::CopyIn { to: (offset - wide_start) as usize, from: range });
        self.steps.push_back(Step::Write { memory: Memory::Bounce, at: 0, offset: wide_start, len: wide });
        Ok(())
    }

    fn push_unit_read(&mut self, offset: u64, at: usize, unit: usize) {
        self.steps.push_back(Step::Read { memory: Memory::Bounce, at, offset, ask: unit, need: unit, pad: true });
    }

    fn plan_zero(&mut self, files: &Files, offset: u64, len: u64, free: bool) -> io::Result<()> {
        let end = end_of(offset, len)?;
        let size = files.size()?;
        if files.is_block && end > size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = end.min(size);
        if offset >= end {
            return Ok(()); // Behind a file's end everything reads as zeros already.
        }
        let mode =
            libc::FALLOC_FL_KEEP_SIZE | if free { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
        // A file system zeroes any bytes; a device only whole sectors, so its edges are written.
        let inner = if files.is_block { files.align.up(offset)..files.align.down(end) } else { offset..end };
        if inner.start >= inner.end {
            self.push_zero_writes(files, offset, end, size);
            return Ok(());
        }
        if offset < inner.start {
            self.push_zero_writes(files, offset, inner.start, size);
        }
        let len = inner.end - inner.start;
        self.steps.push_back(Step::Fallocate { mode, offset: inner.start, len });
        if inner.end < end {
            self.push_zero_writes(files, inner.end, end, size);
        }
        Ok(())
    }

    /// Zeroes `start..end` by writing: whole units from a buffer of zeros, the units at the edges read and modified.
    pub(super) fn push_zero_writes(&mut self, files: &Files, start: u64, end: u64, size: u64) {
        let unit = files.align.offset as u64;
        let whole = usize::try_from(end - start).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
        let whole = files.align.up(whole as u64) as usize;
        if self.bounce.capacity() < whole {
            self.bounce = AlignedBuf::zeroed(whole);
        }
        let mut at = start;
        while at < end {
            let (unit_start, unit_end) = (files.align.down(at), files.align.down(at) + unit);
            let to = unit_end.min(end);
            if unit_start == at && unit_end <= end {
                let len = files.align.down(end) - at;
                self.steps.push_back(Step::Zeros { offset: at, len });
                at += len;
                continue;
            }
            let piece = (to - at) as usize;
            if unit_end > size {
                self.steps.push_back(Step::Tail { memory: Memory::Bounce, at: 0, offset: at, len: piece });
            } else {
                self.push_unit_read(unit_start, 0, files.align.offset);
                let from = (at - unit_start) as usize;
                self.steps.push_back(Step::ZeroBounce(from..from + piece));
                let len = files.align.offset;
                self.steps.push_back(Step::Write { memory: Memory::Bounce, at: 0, offset: unit_start, len });
                self.steps.push_back(Step::ZeroBounce(0..len));
            }
            at = to;
        }
    }
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64 - (1 << 20));
    end.ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))
}
