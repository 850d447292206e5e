//! What this process takes of its machine.

/// Heaps that threads share. glibc makes eight a processor otherwise, and each keeps what was once freed in it: a program that
/// moves megabytes over many short-lived threads would hold several times what it uses.
const ARENAS: libc::c_int = 2;
/// What is at least so large is a mapping of its own, which goes back to the system when it is freed. glibc raises this to
/// 32 MiB by itself, as mappings are freed, and what lies among small things stays with the process then.
const MAPPED_BYTES: libc::c_int = 256 << 10;
/// What may be free at a heap's end before it goes back.
const FREE_BYTES: libc::c_int = 2 << 20;
/// As `nice 5`: a third of the weight of what runs beside it, where there is not enough for both.
const NICENESS: libc::c_int = 5;

/// Keeps the memory that is held for later small. To be called first in `main`, before there are threads.
pub fn keep_small() {
    // SAFETY: mallopt takes two numbers and touches the allocator's own settings only; there is no other thread yet. Where
    // it refuses, nothing but memory is lost.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
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
