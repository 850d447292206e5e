//! `sluice-agent`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sluice_agent::cli::main()
}
