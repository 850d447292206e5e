//! Hostile input for every decoder.
//!
//! A target is a function that takes any bytes: it feeds a decoder with them, and checks what must hold of whatever
//! decodes. Where checksums and seals stand before a decoder, the target makes them right around what the input says, as
//! whoever forges an input would. Two runners use the targets:
//!
//! - `sluice-fuzz smoke`, in every test run: replays the committed corpus and all findings, then seeded mutations of
//!   them, in a process whose memory is limited.
//! - `sluice-fuzz-coverage`, by `cargo xtask fuzz`: libFuzzer, which looks for inputs that reach new code.
//!
//! To add a decoder: a file in `targets/`, a line in [`TARGETS`], and `sluice-fuzz seeds` for its first corpus.
#![forbid(unsafe_code)]

pub mod fields;
pub mod images;
pub mod sealed;
pub mod smoke;
pub mod sparse;
mod targets;

pub use targets::manifest::read_largest;

use nix::sys::resource::{Resource, setrlimit};
use std::sync::OnceLock;
use targets::*;

/// A decoder under hostile input.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called on the command line, in the corpus and in reports.
    pub name: &'static str,
    /// Takes any input; panics where a law is broken.
    pub run: fn(&[u8]),
    /// The inputs that its corpus began with, made by the product's own writers.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutated inputs in a smoke run: as many as take about two seconds in a test build.
    pub rounds: u32,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>, rounds: u32) -> Target {
    Target { name, run, seeds, rounds }
}

/// Every decoder.
pub const TARGETS: &[Target] = &[
    target("frame", frame::run, frame::seeds, 10_000),
    target("segment", segment::run, segment::seeds, 20_000),
    target("manifest", manifest::run, manifest::seeds, 2000),
    target("bitmap", bitmap::run, bitmap::seeds, 5000),
    target("digests", digests::run, digests::seeds, 5000),
    target("envelope", envelope::run, envelope::seeds, 3000),
    target("wire", wire::run, wire::seeds, 20_000),
    target("agent-state", agent_state::run, agent_state::seeds, 5000),
    target("hydrator-state", hydrator_state::run, hydrator_state::seeds, 5000),
    target("vhd", vhd::run, vhd::seeds, 3000),
    target("vhdx", vhdx::run, vhdx::seeds, 3000),
    target("append-log", append_log::run, append_log::seeds, 3000),
    target("config", config::run, config::seeds, 5000),
];

/// Targets that fail: a run that does not notice them is worth nothing. They run only where they are named.
pub const CANARIES: &[Target] = &[
    target("canary", canary::run, canary::seeds, 200_000),
    target("canary-memory", canary::memory, canary::memory_seeds, 2000),
];

/// The target of this name, canaries included.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().chain(CANARIES).find(|target| target.name == name).copied()
}

/// The folder of the committed corpus and findings.
pub fn home() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whatever an input claims, a smoke run stays below this, program and libraries included: what a decoder may take for a
/// hostile input of some KiB is bounded by it. The largest need is a VHDX's log of 64 MiB, read whole and applied.
pub const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// As much for the largest manifest that is permitted, of 1 GiB: itself, as much again, and some for the program.
pub const LARGEST_MEMORY_BYTES_MAX: u64 = (2 << 30) + (256 << 20);

/// Refuses this process more memory than `bytes`: what asks for more aborts, and is a finding.
///
/// # Errors
/// A kernel that refuses.
pub fn limit_memory(bytes: u64) -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_AS, bytes, bytes)
}

/// A folder for a target that needs a file: in memory where there is a file system for that, as fuzzing writes a lot.
pub fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for temporary files")
}

/// Feeds `input` to the target that the environment names in `FUZZ_TARGET`: one program serves for all of them, as
/// building one a target would take longer than fuzzing it.
pub fn run(input: &[u8]) {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        // libFuzzer keeps its own corpus and tables in the same process, hence twice as much.
        limit_memory(2 * MEMORY_BYTES_MAX).expect("a limit for memory");
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target");
        find(&name).unwrap_or_else(|| panic!("there is no target {name:?}"))
    });
    (target.run)(input);
}
