//! The hydrator as a program of its own.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sluice_hydrator::cli::main()
}
