//! What this process takes of its machine.

use std::thread;
use std::time::Duration;

/// Heaps that threads share. glibc makes eight a processor otherwise, and each keeps what was once freed in it: a program that
/// moves megabytes over many short-lived threads would hold several times what it uses.
const ARENAS: libc::c_int = 2;
/// What is at least so large is a mapping of its own, which goes back to the system when it is freed. glibc raises this to
/// 32 MiB by itself, as mappings are freed, and what lies among small things stays with the process then.
const MAPPED_BYTES: libc::c_int = 256 << 10;
/// What may be free at a heap's end before it goes back.
const FREE_BYTES: libc::c_int = 2 << 20;
/// How often what is free goes back wherever it lies. A heap's end goes back by itself, but not what lies below something that
/// is in use: which allocation came last decides whether some ten megabytes stay for hours.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);
/// As `nice 5`: a third of the weight of what runs beside it, where there is not enough for both.
const NICENESS: libc::c_int = 5;

/// Keeps the memory that is held for later small, as long as the process runs. To be called first in `main`, before there are
/// threads.
pub fn keep_small() {
    // SAFETY: mallopt takes two numbers and touches the allocator's own settings only; there is no other thread yet. Where
    // it refuses, nothing but memory is lost.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    let keeper = thread::Builder::new().name("sluice-memory".into()).stack_size(128 << 10);
    // Where there can be no more threads, nothing but memory is lost either.
    let _ = keeper.spawn(|| {
        loop {
            // sleep: nothing tells when memory is free
            thread::sleep(GIVE_BACK_EVERY);
            give_back();
        }
    });
}

/// Gives freed memory back to the system.
pub fn give_back() {
    // SAFETY: its argument only says what may stay at the heap's end; it takes the allocator's locks and touches free memory
    // only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Lets large memory go back to the system as soon as it is freed. For a process whose large buffers are used again: each
/// new one costs its page faults.
pub fn give_back_large() {
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, MAPPED_BYTES), (libc::M_TRIM_THRESHOLD, FREE_BYTES)] {
        // SAFETY: as above; mallopt takes the allocator's lock, so that other threads do not matter.
        let _ = unsafe { libc::mallopt(what, bytes) };
    }
}

/// Lets the machine's own work go first. For the agent, which is a guest on the machine that it protects. To be called in
/// `main`, as threads inherit it.
pub fn step_back() {
    // SAFETY: setpriority takes three numbers. Where it refuses, this process is as important as the others.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::give_back;

    const PIECE: usize = 64 << 10;
    const PIECES: usize = 1024;

    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
        let pages: usize = text.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("resident pages");
        pages * 4096
    }

    #[test]
    fn what_is_free_below_what_is_in_use_goes_back() {
        let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|i| vec![i as u8 | 1; PIECE]).collect();
        let full = resident();
        let last = pieces.pop().expect("pieces");
        drop(pieces);
        give_back();
        // Other tests of this process take little meanwhile.
        assert!(resident() + PIECE * PIECES / 2 < full, "{} of {full} are resident", resident());
        assert_eq!(last.len(), PIECE);
    }
}
