//! The hydrator as a program of its own.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sluice_platform::process::keep_small();
    sluice_hydrator::cli::main()
}
