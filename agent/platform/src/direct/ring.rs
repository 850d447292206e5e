//! An io_uring on one disk, used by the one thread that made it.

use super::files::{Call, Files};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::io;
use std::os::fd::RawFd;

/// Marks the completion of the poll on the wake-up descriptor.
const WAKE: u64 = u64::MAX;
/// The most bytes in one call; the kernel moves no more at once (MAX_RW_COUNT is 2 GiB less a page).
const CALL_BYTES: usize = 1 << 30;

/// The ring's entry for a call. A macro, as the two kinds of descriptor are types with no trait that we may name.
macro_rules! entry {
    ($fd:expr, $call:expr) => {{
        let fd = $fd;
        let short = |len: usize| len.min(CALL_BYTES) as u32;
        match $call {
            Call::Read { to, len, offset } => Some(opcode::Read::new(fd, to, short(len)).offset(offset).build()),
            Call::Write { from, len, offset } => Some(opcode::Write::new(fd, from, short(len)).offset(offset).build()),
            Call::Sync => Some(opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()),
            Call::Fallocate { mode, offset, len } => {
                Some(opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build())
            }
            Call::Tail { .. } | Call::SetLen(_) | Call::Seek { .. } => None,
        }
    }};
}

pub(super) struct Ring {
    ring: IoUring,
    wake: RawFd,
    wake_armed: bool,
    /// The disk as the ring's registered file 0, which saves a reference count per call; else its descriptor.
    fixed: bool,
    fd: RawFd,
}

/// What came back from the kernel.
pub(super) enum Completion {
    /// Somebody sent an event.
    Woken,
    /// The call of this slot ended.
    Done(usize, io::Result<u64>),
}

impl Ring {
    /// A ring with room for `depth` calls at once. Fails where the kernel, a seccomp filter or a limit refuses.
    pub fn new(depth: u32, files: &Files, wake: RawFd) -> io::Result<Self> {
        let entries = depth + 2;
        let mut plain = IoUring::builder();
        let (mut deferred, mut cooperative) = (plain.clone(), plain.clone());
        // Linux 6.1: completions are worked off when this thread asks for them, never by interrupting it.
        deferred.setup_single_issuer().setup_defer_taskrun();
        // Linux 5.19: no interrupts for completions while this thread is in user space.
        cooperative.setup_coop_taskrun();
        let ring = [&mut deferred, &mut cooperative, &mut plain].into_iter().find_map(|builder| {
            match builder.build(entries) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
                result => Some(result),
            }
        });
        let ring = ring.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EINVAL)))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::PollAdd::CODE];
        if !needed.into_iter().chain([opcode::Fallocate::CODE]).all(|code| probe.is_supported(code)) {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let fixed = ring.submitter().register_files(&[files.fd()]).is_ok();
        Ok(Self { ring, wake, wake_armed: false, fixed, fd: files.fd() })
    }

    /// Queues a call; `false` where a ring can't make it.
    ///
    /// # Safety
    /// The call's memory stays valid and untouched until the slot's completion has been taken.
    pub unsafe fn push(&mut self, slot: usize, call: Call) -> bool {
        let entry = if self.fixed { entry!(types::Fixed(0), call) } else { entry!(types::Fd(self.fd), call) };
        let Some(entry) = entry else { return false };
        // SAFETY: by this function's own contract.
        unsafe { self.push_entry(&entry.user_data(slot as u64)) };
        true
    }

    /// # Safety
    /// As for `push`.
    unsafe fn push_entry(&mut self, entry: &squeue::Entry) {
        // The queue has room for every slot and the wake-up, so this is true at the first try.
        // SAFETY: by this function's own contract.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            drop(self.ring.submit());
        }
    }

    /// Hands what is queued to the kernel; with `wait`, sleeps until something completes or somebody sends an event.
    pub fn submit(&mut self, wait: bool) -> io::Result<()> {
        if wait && !self.wake_armed {
            let poll = opcode::PollAdd::new(types::Fd(self.wake), libc::POLLIN as u32).build().user_data(WAKE);
            // SAFETY: a poll passes no memory.
            unsafe { self.push_entry(&poll) };
            self.wake_armed = true;
        }
        match self.ring.submit_and_wait(usize::from(wait)) {
            Ok(_) => Ok(()),
            // Interrupted, or the kernel is short of something until completions are taken: the caller does that next.
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next completion, if there is one.
    pub fn completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        if entry.user_data() == WAKE {
            self.wake_armed = false;
            return Some(Completion::Woken);
        }
        let result = match u64::try_from(entry.result()) {
            Ok(n) => Ok(n),
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
        };
        Some(Completion::Done(entry.user_data() as usize, result))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel takes a ring apart later and elsewhere. The disk must be free when this returns, or the next
        // exclusive open of it, or an unmount, would fail now and then.
        if self.fixed {
            drop(self.ring.submitter().unregister_files());
        }
    }
}
