//! `cargo xtask`: the project's chores. Run it without arguments for the list of them.
#![forbid(unsafe_code)]

mod check;
mod cleanup;
mod deny;
mod dispatch;
mod fuzz;
mod processes;
mod run;
mod suites;
mod tidy;
mod tools;
mod vm_image;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask COMMAND [ARGUMENTS]

  check [fmt|clippy|tidy|deny]...  the quick part, for every day (all four when none is named)
  test [SUITE...]                  check, install what tests need, then the test suites (all when none is named)
  test --list                      name the suites
  tools                            install what tests need and stop
  vm-image                         build the bootable Debian image, target/vm-images/debian.raw
  clean                            remove devices, mounts and folders that an interrupted test run left behind
  fuzz [TARGET...] [--minutes N]   libFuzzer on every decoder; needs a C++ compiler
  bench | sim | chaos ...          run that program with the arguments that follow

Exit codes: 0 all is well, 1 something failed, 2 wrong usage, 130 interrupted.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        print!("{USAGE}");
        return ExitCode::from(2);
    };
    if matches!(command.as_str(), "help" | "--help" | "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match chore(command, rest) {
        Ok(true) => ExitCode::SUCCESS,
        _ if processes::interrupted() => ExitCode::from(130),
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one chore; `false` means that it ran and found something wrong.
fn chore(command: &str, args: &[String]) -> Result<bool> {
    std::env::set_current_dir(workspace::root()?)?;
    match command {
        "check" => check::run(args),
        "test" => suites::run(args),
        "tools" => tools::install().map(|()| true),
        "vm-image" => vm_image::build().map(|path| {
            println!("{}", path.display());
            true
        }),
        "fuzz" => fuzz::run(args),
        "clean" => cleanup::leftovers().map(|()| true),
        _ => match dispatch::package_for(command) {
            Some(package) => dispatch::run(package, args),
            None => bail!("there is no chore `{command}`; `cargo xtask` lists them"),
        },
    }
}
