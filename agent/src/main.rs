//! `sluice-agent`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sluice_platform::process::keep_small();
    sluice_agent::cli::main()
}
