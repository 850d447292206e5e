//! The coverage-guided runner: libFuzzer around the one target that `FUZZ_TARGET` names. `cargo xtask fuzz` builds it
//! with the instrumentation that libFuzzer reads, and runs it; its arguments are libFuzzer's.
#![deny(unsafe_code)]
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sluice_fuzz::run(input));
