//! The three parts as processes of their own, run from this very program.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `agent`, `appliance` or `hydrator` if that is the first argument, with the arguments behind it.
pub fn run_part(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    let part = args.next()?.into_string().ok()?;
    let name = OsString::from(format!("sluice-{part}"));
    let args = std::iter::once(name).chain(args);
    match part.as_str() {
        "agent" => Some(sluice_agent::cli::main_with(args)),
        "hydrator" => Some(sluice_hydrator::cli::main_with(args)),
        _ => None,
    }
}
