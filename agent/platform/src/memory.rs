//! How this process's memory is handed out.

/// Heaps that threads share. glibc makes eight a processor otherwise, and each keeps what was once freed in it: a program that
/// moves megabytes over many short-lived threads would hold several times what it uses. Two cost no measurable time here.
const ARENAS: libc::c_int = 2;

/// Keeps the memory that is held for later small. To be called first in `main`, before there are threads.
pub fn keep_small() {
    // SAFETY: mallopt takes two numbers and touches the allocator's own settings only; there is no other thread yet. Where
    // it refuses, nothing but memory is lost.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}
