//! `cargo xtask test`: the checks, what tests need, and the suites in the table below.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cleanup::RunDir;
use crate::run::{self, Outcome, Tally};
use crate::{check, cleanup, processes, tools, vm_image, workspace};

/// One line of the table: add a suite by adding a line.
///
/// Every line selects from the whole workspace, never by package: cargo would choose other features for the libraries
/// then, and build most of them a second time.
struct Suite {
    /// What `cargo xtask test NAME` calls it.
    name: &'static str,
    /// The package that it needs.
    package: Option<&'static str>,
    /// How cargo runs it.
    cargo: &'static [&'static str],
    /// What its runner gets.
    args: &'static [&'static str],
    /// What it finds in its environment.
    environment: &'static [(&'static str, &'static str)],
    /// Minutes until it is stopped and counts as failed, building included.
    minutes_max: u64,
    /// It is part of another suite, or long: it runs only where it is named.
    part: bool,
}

const fn test(name: &'static str, package: &'static str, cargo: &'static [&'static str]) -> Suite {
    Suite { name, package: Some(package), cargo, args: &[], environment: &[], minutes_max: 30, part: true }
}

const SUITES: &[Suite] = &[
    Suite {
        name: "workspace",
        package: None,
        // Goes on after a failure, so that one run tells all.
        cargo: &["test", "--locked", "--no-fail-fast", "--workspace"],
        args: &[],
        environment: &[],
        minutes_max: 60,
        part: false,
    },
    test("e2e", "sluice-e2e", &["test", "--locked", "--no-fail-fast", "--workspace", "--test", "e2e"]),
    test("crash", "sluice-crash", &["test", "--locked", "--no-fail-fast", "--workspace", "--test", "crash"]),
    test("machine", "sluice-machine", &["test", "--locked", "--no-fail-fast", "--workspace", "--test", "machine"]),
    Suite {
        name: "power",
        package: Some("sluice-machine"),
        cargo: &["test", "--locked", "--workspace", "--test", "machine"],
        args: &["--nocapture", "power_is_cut_anywhere"],
        // Every flush, and so many places between: too long for every day, which takes a dozen.
        environment: &[("SLUICE_POWER_POINTS", "200")],
        minutes_max: 120,
        part: true,
    },
    test("sim", "sluice-sim", &["test", "--locked", "--no-fail-fast", "--workspace", "--test", "seeds"]),
    Suite {
        name: "bench",
        package: Some("sluice-bench"),
        // Every bench tiny, and what criterion measures once: that they run, not how fast.
        cargo: &[
            "test",
            "--locked",
            "--no-fail-fast",
            "--workspace",
            "--features",
            "sluice-bench/tiny",
            "--bin",
            "sluice-bench",
            "--bench",
            "parts",
        ],
        args: &[],
        environment: &[],
        minutes_max: 30,
        part: false,
    },
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
    let mut built = false;
    for suite in present.iter().filter(|suite| suite.is_wanted(args)) {
        if processes::interrupted() {
            break;
        }
        println!("--- suite {}", suite.name);
        let mut command = suite.command();
        command.env("TMPDIR", run_dir.path());
        command.env("SLUICE_TEST_TOOLS", tools::dir()?).env("SLUICE_VM_IMAGE", &image);
        built |= suite.package.is_none();
        if built {
            // Built by then, as the whole workspace is before its first test runs: tests need not build it themselves,
            // with other features for half of what it stands on.
            command.env("SLUICE_PROGRAM", workspace::target_dir()?.join("debug/sluice"));
        }
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

    /// With no name given, all but the parts; else those that are named.
    fn is_wanted(&self, named: &[String]) -> bool {
        if named.is_empty() { !self.part } else { named.iter().any(|name| name == self.name) }
    }

    fn command(&self) -> Command {
        let mut command = workspace::cargo();
        command.args(self.cargo).envs(self.environment.iter().copied());
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

    fn wanted(named: &[&str]) -> Vec<&'static str> {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        SUITES.iter().filter(|suite| suite.is_wanted(&named)).map(|suite| suite.name).collect()
    }

    #[test]
    fn parts_run_once_with_the_whole_or_alone_by_name() {
        assert_eq!(wanted(&[]), ["workspace", "bench"]);
        assert_eq!(wanted(&["crash", "sim"]), ["crash", "sim"]);
    }

    #[test]
    fn every_suite_chooses_the_features_of_the_whole_workspace() {
        for suite in SUITES {
            let command = suite.command();
            assert!(command.get_args().any(|arg| arg == "--workspace"), "{}", suite.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITES.len());
    }
}
