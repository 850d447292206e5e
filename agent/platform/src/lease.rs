//! Proof that nobody writes to an image file while it is read.
//!
//! A read lease (fcntl F_SETLEASE) is granted only where nobody has the file open for writing. When somebody opens it so
//! later, the kernel holds him up until the lease is given back, and sends a signal. A thread of its own waits for that
//! signal, notes that the lease is lost and gives it back at once, so that nobody waits for us. The signal goes to that
//! thread alone, which has it blocked: the process's signal handling is left as it is, and the signal can't end it.

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// `fcntl` commands and a constant of Linux's generic ABI (x86, ARM, RISC-V) that libc doesn't name everywhere.
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

#[repr(C)]
struct OwnerEx {
    kind: libc::c_int,
    pid: libc::pid_t,
}

/// A held read lease. While [`ReadLease::is_unbroken`], nobody has opened the file for writing since it was taken.
#[derive(Debug)]
pub struct ReadLease {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
    thread: libc::pid_t,
}

#[derive(Debug)]
struct Shared {
    file: File,
    broken: AtomicBool,
    stop: AtomicBool,
}

/// A lease was not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody has it open for writing.
    #[error("{} is open for writing by somebody: its image is fuzzy unless that program is stopped", path.display())]
    Writers {
        /// The file.
        path: PathBuf,
    },
    /// The file system or this user can't have leases, or the file can't be opened.
    #[error("no proof that nobody writes to {}: {error}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl ReadLease {
    /// Takes a lease on a regular file. It needs to be the file's owner or root.
    pub fn take(path: impl AsRef<Path>) -> Result<Self, LeaseError> {
        let path = path.as_ref();
        File::open(path).and_then(Self::start).map_err(|error| Self::error(path, error))
    }

    /// Takes a lease on the very file that is open here, whatever its path now leads to. Where it is open for writing,
    /// that is a writer like any other.
    pub fn on(file: &File) -> Result<Self, LeaseError> {
        // A descriptor opened anew, as a lease belongs to the open file and ours would go with that file's own.
        Self::take(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    fn error(path: &Path, error: io::Error) -> LeaseError {
        let path = path.to_path_buf();
        match error.raw_os_error() {
            Some(libc::EAGAIN) => LeaseError::Writers { path },
            _ => LeaseError::Unsupported { path, error },
        }
    }

    fn start(file: File) -> io::Result<Self> {
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { file, broken: AtomicBool::new(false), stop });
        let (started, start) = crossbeam_channel::bounded(1);
        let run = {
            let shared = shared.clone();
            move || match shared.arm() {
                Ok(thread) => {
                    drop(started.send(Ok(thread)));
                    shared.watch();
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let watcher = std::thread::Builder::new().name("sluice-lease".into()).spawn(run)?;
        let thread = start.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        Ok(Self { shared, watcher: Some(watcher), thread })
    }

    /// True while nobody has opened the file for writing since the lease was taken. Once false, it stays false.
    pub fn is_unbroken(&self) -> bool {
        // The kernel is asked too: it knows before the watcher has run.
        let held = fcntl(self.shared.file.as_raw_fd(), libc::F_GETLEASE, 0).is_ok_and(|kind| kind == libc::F_RDLCK);
        held && !self.shared.broken.load(Ordering::SeqCst)
    }
}

impl Drop for ReadLease {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // SAFETY: passes no memory. The thread is alive, not joined yet, so its number is no other's; the signal is
        // blocked there and only ends its wait.
        unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), self.thread, signal()) };
        if let Some(watcher) = self.watcher.take() {
            drop(watcher.join());
        }
    }
}

impl Shared {
    /// Blocks the signal on this thread, has it sent here only, and takes the lease. Answers with the thread's number.
    fn arm(&self) -> io::Result<libc::pid_t> {
        block_signal()?;
        // SAFETY: passes nothing.
        let thread = unsafe { libc::gettid() };
        let fd = self.file.as_raw_fd();
        let owner = OwnerEx { kind: F_OWNER_TID, pid: thread };
        // SAFETY: the kernel reads the structure during the call; its layout is that of `struct f_owner_ex`.
        if unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) } < 0 {
            return Err(io::Error::last_os_error());
        }
        fcntl(fd, F_SETSIG, signal())?;
        fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK)?;
        Ok(thread)
    }

    /// Waits for the signal: the lease is being broken, or this is to end.
    fn watch(&self) {
        loop {
            if let Err(error) = wait_signal() {
                // Without the wait a break would be noticed by `is_unbroken` alone, and he who opens would have to wait.
                tracing::debug!(%error, "can't wait for a lease's signal, giving it back");
                self.broken.store(true, Ordering::SeqCst);
            }
            let fd = self.file.as_raw_fd();
            let stop = self.stop.load(Ordering::SeqCst);
            let held = fcntl(fd, libc::F_GETLEASE, 0).is_ok_and(|kind| kind == libc::F_RDLCK);
            if !held && !stop {
                self.broken.store(true, Ordering::SeqCst);
            }
            if !held || stop || self.broken.load(Ordering::SeqCst) {
                drop(fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK));
                return;
            }
        }
    }
}

/// A real-time signal: it carries no meaning of its own and nothing else in this process uses it.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 7
}

fn signal_set() -> libc::sigset_t {
    // SAFETY: all zeros is a valid value to pass to `sigemptyset`, which initialises it; the number is a valid signal.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        set
    }
}

fn block_signal() -> io::Result<()> {
    // SAFETY: the set is initialised, as `signal_set` does.
    let set = unsafe { SigSet::from_sigset_t_unchecked(signal_set()) };
    Ok(pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?)
}

fn wait_signal() -> io::Result<()> {
    let set = signal_set();
    loop {
        // SAFETY: the set outlives the call, and no details are asked for.
        if unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

fn fcntl(fd: RawFd, command: libc::c_int, value: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the commands used here take an int and pass no memory.
    let result = unsafe { libc::fcntl(fd, command, value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn image() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        std::fs::write(&path, b"bytes").expect("written");
        (folder, path)
    }

    #[test]
    fn holds_while_only_readers_come() {
        let (_folder, path) = image();
        let lease = ReadLease::take(&path).expect("nobody writes");
        std::fs::read(&path).expect("read");
        assert!(lease.is_unbroken());
        let second = ReadLease::on(&File::open(&path).expect("opens")).expect("leases of readers live together");
        assert!(lease.is_unbroken() && second.is_unbroken());
        drop(lease);
        assert!(second.is_unbroken());
    }

    #[test]
    fn is_broken_by_a_writer_who_needn_t_wait() {
        let (_folder, path) = image();
        let lease = ReadLease::take(&path).expect("nobody writes");
        let begun = Instant::now();
        std::fs::write(&path, b"other").expect("written");
        // The kernel would hold him up for 45 seconds by default.
        assert!(begun.elapsed() < Duration::from_secs(20), "the lease was given back at once");
        assert!(!lease.is_unbroken(), "and the writer is closed again, but was noticed");
    }

    #[test]
    fn is_refused_while_somebody_writes() {
        let (_folder, path) = image();
        let writer = File::options().append(true).open(&path).expect("opens");
        let error = ReadLease::take(&path).expect_err("must be refused");
        assert!(matches!(error, LeaseError::Writers { .. }), "{error}");
        drop(writer);
        ReadLease::take(&path).expect("now nobody writes");
    }

    #[test]
    fn what_can_have_no_lease_says_so() {
        let error = ReadLease::take("/").expect_err("a folder has none");
        assert!(error.to_string().contains("no proof that nobody writes"), "{error}");
    }
}
