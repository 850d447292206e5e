//! The real answers to what the core asks of its surroundings, and what this process has used so far.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use sluice_proto::env::{Clock, Entropy};
use sluice_proto::units::ByteCount;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        // This is the one place where the wall clock is read.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        // A clock before 1970 reads as 1970: it is for people only, nothing is decided by it.
        now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The operating system's randomness, through the same library that seals the data.
#[derive(Debug, Clone, Default)]
pub struct OsEntropy(SystemRandom);

impl OsEntropy {
    /// A source of random bytes.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Entropy for OsEntropy {
    fn fill(&self, out: &mut [u8]) {
        // It fails only where the kernel has no randomness at all; no key may be made then, and no caller could go on.
        self.0.fill(out).expect("the kernel provides randomness");
    }
}

/// The kernel's random name of this run of the machine.
///
/// # Errors
/// It can't be read; the text names the file.
pub fn boot_id() -> io::Result<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let named = |kind, e: &dyn std::fmt::Display| io::Error::new(kind, format!("{PATH}: {e}"));
    let digits = std::fs::read_to_string(PATH).map_err(|e| named(e.kind(), &e))?.trim().replace('-', "");
    let id = u128::from_str_radix(&digits, 16).map_err(|e| named(io::ErrorKind::InvalidData, &e))?;
    Ok(id.to_be_bytes())
}

/// The processor time this process has used, user and system together, all threads.
pub fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(Duration::ZERO, |u| [u.user_time(), u.system_time()].into_iter().map(duration).sum())
}

fn duration(time: nix::sys::time::TimeVal) -> Duration {
    use nix::sys::time::TimeValLike;
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
}

/// The most memory this process ever had resident, in bytes; `None` where `/proc` doesn't tell.
///
/// From `VmHWM`, not `getrusage`: the latter carries over what the process was before `exec`.
pub fn peak_rss() -> Option<ByteCount> {
    status_field("VmHWM:")
}

/// The memory this process has resident now, in bytes; `None` where `/proc` doesn't tell.
pub fn current_rss() -> Option<ByteCount> {
    status_field("VmRSS:")
}

fn status_field(name: &str) -> Option<ByteCount> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(ByteCount(kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_reads_a_time_after_this_was_written() {
        assert!(SystemClock.unix_ms() > 1_700_000_000_000);
    }

    #[test]
    fn entropy_differs_from_call_to_call() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        OsEntropy::new().fill(&mut a);
        OsEntropy::new().fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }

    #[test]
    fn usage_grows_with_use() {
        let before = cpu_time();
        let held = vec![1u8; 8 << 20];
        while cpu_time() == before {
            std::hint::black_box(held.iter().map(|b| u64::from(*b)).sum::<u64>());
        }
        // In this order, as other tests of this process grow in between; and the kernel counts pages for each processor first.
        let (now, peak) = (current_rss().expect("/proc tells"), peak_rss().expect("/proc tells"));
        assert!(peak.0 >= held.len() as u64 && peak.0 + (1 << 20) >= now.0, "{peak:?} at the peak, {now:?} before");
    }
}
