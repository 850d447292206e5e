//! `cargo xtask test`: the checks, what tests need, and the suites in the table below.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cleanup::RunDir;
use crate::run::{self, Outcome, Tally};
use crate::{check, cleanup, processes, tools, vm_image, workspace};

/// One line of the table: add a suite by adding a line.
struct Suite {
    /// What `cargo xtask test NAME` calls it.
    name: &'static str,
    /// The package that holds it; `None` for all packages that no other line names.
    package: Option<&'static str>,
    /// How cargo runs it: `TESTS`, or `run` and a profile for a program.
    cargo: &'static [&'static str],
    /// What its runner or program gets.
    args: &'static [&'static str],
    /// Minutes until it is stopped and counts as failed, building included.
    minutes_max: u64,
}

/// Goes on after a failure, so that one run tells all.
const TESTS: &[&str] = &["test", "--locked", "--no-fail-fast"];

const SUITES: &[Suite] = &[
    Suite { name: "workspace", package: None, cargo: TESTS, args: &[], minutes_max: 45 },
    Suite { name: "e2e", package: Some("sluice-e2e"), cargo: TESTS, args: &[], minutes_max: 30 },
    Suite { name: "crash", package: Some("sluice-crash"), cargo: TESTS, args: &[], minutes_max: 20 },
    Suite { name: "sim", package: Some("sluice-sim"), cargo: TESTS, args: &[], minutes_max: 15 },
    Suite { name: "fuzz", package: Some("sluice-fuzz"), cargo: TESTS, args: &[], minutes_max: 10 },
    Suite { name: "bench", package: Some("sluice-bench"), cargo: TESTS, args: &[], minutes_max: 15 },
];

/// Runs the suites named in `args`, or the checks and all suites; `false` if anything failed.
pub fn run(args: &[String]) -> Result<bool> {
    let members: Vec<String> = workspace::members()?.into_iter().map(|member| member.name).collect();
    let present: Vec<&Suite> = SUITES.iter().filter(|suite| suite.is_in(&members)).collect();
    if args.iter().any(|arg| arg == "--list") {
        present.iter().for_each(|suite| println!("{}", suite.name));
        return Ok(true);
    }
    if let Some(unknown) = args.iter().find(|arg| !present.iter().any(|suite| suite.name == **arg)) {
        bail!("there is no suite `{unknown}`; `cargo xtask test --list` names them");
    }
    processes::supervise()?;
    let mut report = Report::default();
    if args.is_empty() {
        for verdict in check::verdicts(&[])? {
            report.add(&format!("check {}", verdict.name), failed_unless(verdict.passed), verdict.took);
        }
    }
    tools::install()?;
    cleanup::leftovers()?;
    let run_dir = RunDir::new()?;
    let image = vm_image::build()?;
    for suite in present.iter().filter(|suite| args.is_empty() || args.iter().any(|arg| arg == suite.name)) {
        if processes::interrupted() {
            break;
        }
        println!("--- suite {}", suite.name);
        let mut command = suite.command(&members);
        command.env("TMPDIR", run_dir.path());
        command.env("SLUICE_TEST_TOOLS", tools::dir()?).env("SLUICE_VM_IMAGE", &image);
        let Outcome { tally, took } = run::tee(&mut command, Duration::from_secs(suite.minutes_max * 60))?;
        report.add(suite.name, counted(tally), took);
    }
    drop(run_dir);
    report.print();
    Ok(report.total.failed == 0 && !processes::interrupted())
}

impl Suite {
    fn is_in(&self, members: &[String]) -> bool {
        self.package.is_none_or(|package| members.iter().any(|member| member == package))
    }

    fn command(&self, members: &[String]) -> Command {
        let mut command = workspace::cargo();
        command.args(self.cargo);
        match self.package {
            Some(package) => command.args(["--package", package]),
            None => command.arg("--workspace").args(exclusions(members)),
        };
        if !self.args.is_empty() {
            command.arg("--").args(self.args);
        }
        command
    }
}

/// A suite that passes without printing a test's result (a program) counts as one test.
fn counted(tally: Tally) -> Tally {
    if tally == Tally::default() { Tally { passed: 1, failed: 0 } } else { tally }
}

/// Packages with a line of their own don't run twice.
fn exclusions(members: &[String]) -> Vec<String> {
    let own = SUITES.iter().filter_map(|suite| suite.package);
    own.filter(|package| members.iter().any(|member| member == package)).map(|p| format!("--exclude={p}")).collect()
}

fn failed_unless(passed: bool) -> Tally {
    Tally { passed: 0, failed: u64::from(!passed) }
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
    total: Tally,
}

impl Report {
    fn add(&mut self, name: &str, tally: Tally, took: Duration) {
        let word = if tally.failed == 0 { "ok" } else { "FAILED" };
        let Tally { passed, failed } = tally;
        let seconds = took.as_secs_f64();
        self.lines.push(format!("{name:<16} {word:<6} {passed:>6} passed {failed:>4} failed {seconds:>8.1} s"));
        self.total.passed += passed;
        self.total.failed += failed;
    }

    /// Ends with the plain line that a CI service reads.
    fn print(&self) {
        println!("\nsuites:");
        self.lines.iter().for_each(|line| println!("  {line}"));
        if processes::interrupted() {
            println!("interrupted");
        }
        println!("{} passed, {} failed", self.total.passed, self.total.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(suite: &Suite, members: &[&str]) -> Vec<String> {
        let members: Vec<String> = members.iter().map(|member| (*member).to_owned()).collect();
        suite.command(&members).get_args().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_rest_of_the_workspace_leaves_out_what_has_its_own_line() {
        let all = arguments(&SUITES[0], &["sluice-proto", "sluice-e2e"]);
        assert_eq!(all, ["test", "--locked", "--no-fail-fast", "--workspace", "--exclude=sluice-e2e"]);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITES.len());
    }
}
