//! The command line is kept to the letter.

use crate::support::sluice;
use std::collections::BTreeSet;

#[test]
fn every_command_explains_itself_with_examples_and_exit_codes() {
    for command in ["demo", "replicate", "verify", "inspect"] {
        let help = sluice(&[command, "--help"]);
        help.must(0, &["Examples:", "Exit codes:", &format!("sluice {command}")]);
    }
    sluice(&["--help"]).must(0, &["demo", "replicate", "verify", "inspect", "Examples:"]);
    sluice(&["--version"]).must(0, &["sluice "]);
}

#[test]
fn the_options_are_those_that_were_promised() {
    let help = sluice(&["replicate", "--help"]).stdout;
    for option in [
        "--format",
        "--tracker",
        "--cache",
        "--state",
        "--follow",
        "--min-interval",
        "--max-interval",
        "--limit",
        "--json",
        "--yes",
    ] {
        assert!(help.contains(option), "{option}:\n{help}");
    }
    assert!(help.contains("neither compressed nor encrypted"), "what happens without --cache is said:\n{help}");
    let help = sluice(&["demo", "--help"]).stdout;
    for option in ["--keep", "--size", "--rounds", "2G", "5"] {
        assert!(help.contains(option), "{option}:\n{help}");
    }
    assert!(sluice(&["verify", "--help"]).stdout.contains("--json"));
}

#[test]
fn what_cannot_be_understood_is_refused_with_code_2() {
    let cases: [(&[&str], &str); 9] = [
        (&[], "Usage"),
        (&["copy"], "copy"),
        (&["replicate", "a"], "TARGET"),
        (&["replicate", "a", "b.vhd", "--format", "vmdk"], "vhd-dynamic"),
        (&["replicate", "a", "b.vhd", "--tracker", "magic"], "ebpf"),
        (&["replicate", "a", "b.vhd", "--limit", "fast"], "200Mbit/s"),
        (&["replicate", "a", "b.vhd", "--min-interval", "soon"], "1h30m"),
        (&["demo", "--rounds", "1"], "rounds"),
        (&["demo", "--size", "1M"], "64.0 MiB"),
    ];
    for (arguments, word) in cases {
        sluice(arguments).must(2, &[word]);
    }
}

#[test]
fn the_parts_are_there_for_the_demo_and_out_of_sight() {
    for part in ["agent", "appliance", "hydrator"] {
        sluice(&[part, "--help"]).must(0, &[&format!("sluice-{part}"), "run"]);
        sluice(&[part, "run", "--config", "/nowhere/at.all"]).must(2, &["/nowhere/at.all"]);
    }
    let help = sluice(&["--help"]).stdout;
    assert!(!help.contains("  agent"), "{help}");
}

/// A command line is seen by everybody on the machine.
#[test]
fn no_option_takes_a_secret() {
    let mut commands =
        vec![Vec::new(), vec!["agent".to_owned()], vec!["appliance".to_owned()], vec!["hydrator".to_owned()]];
    let mut options = BTreeSet::new();
    while let Some(command) = commands.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = sluice(&words).stdout;
        let mut section = "";
        for line in help.lines() {
            let word = line.split_whitespace().next().unwrap_or_default();
            match line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
                Some(title) => section = title,
                None if section == "Commands"
                    && line.starts_with("  ")
                    && !line.starts_with("   ")
                    && word != "help" =>
                {
                    commands.push([&command[..], &[word.to_owned()]].concat());
                }
                None => {}
            }
        }
        let is_of_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let said = help.split(|c| !is_of_name(c)).filter(|word| word.starts_with("--") && word.len() > 2);
        options.extend(said.map(str::to_owned));
    }
    for known in ["--config", "--cache", "--days", "--role", "--yes"] {
        assert!(options.contains(known), "{known} is not among {options:?}");
    }
    for secret in ["key", "secret", "password", "token", "credential", "sas"] {
        assert!(options.iter().all(|option| !option.contains(secret)), "{secret}: {options:?}");
    }
}
