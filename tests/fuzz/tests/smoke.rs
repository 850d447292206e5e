//! Every target bears its corpus, all findings and seeded mutations of them; and a target that doesn't is noticed.

use sluice_fuzz::{CANARIES, TARGETS, home, smoke};
use std::path::Path;
use std::process::{Command, Output};

/// No file of the corpus is larger, in bytes.
const FILE_BYTES_MAX: usize = 64 << 10;
/// What git is asked to hold for all targets together, in bytes and files.
const CORPUS_BYTES_MAX: usize = 512 << 10;
const CORPUS_FILES_MAX: usize = 1400;

/// The runner in a process of its own: a limit on memory holds for a process.
fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice-fuzz")).args(args).output().expect("the runner starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Two processes, as two targets have no more to do with each other than that.
fn passes(share: usize) {
    let names: Vec<&str> = TARGETS.iter().skip(share).step_by(2).map(|target| target.name).collect();
    let output = run(&[&["smoke"][..], &names].concat());
    assert!(output.status.success(), "{}\n{}", output.status, said(&output));
    let summary = format!("{} passed, 0 failed", names.len());
    assert!(said(&output).contains(&summary), "{}", said(&output));
}

#[test]
fn one_half_of_the_targets_bears_its_inputs() {
    passes(0);
}

#[test]
fn the_other_half_of_the_targets_bears_its_inputs() {
    passes(1);
}

#[test]
fn a_target_that_panics_is_noticed() {
    let output = run(&["smoke", "canary"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the canary was found") && said.contains("0 passed, 1 failed"), "{said}");
    let (_, path) = said.split_once(" by ").expect("names the input");
    let path = Path::new(path.lines().next().expect("a path"));
    let again = run(&["replay", "canary", &path.to_string_lossy()]);
    assert!(!again.status.success() && again.status.code() != Some(2), "the input is no finding");
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_target_that_takes_what_an_input_claims_is_noticed() {
    let output = run(&["smoke", "canary-memory"]);
    assert_eq!(output.status.code(), None, "it ends by a signal: {}", said(&output));
    assert!(said(&output).contains("memory allocation of"), "{}", said(&output));
}

#[test]
fn the_largest_manifest_takes_little_more_than_twice_its_size() {
    let output = run(&["largest"]);
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
}

#[test]
fn every_target_has_a_corpus_and_all_of_it_is_small() {
    let (mut bytes, mut count) = (0, 0);
    for target in TARGETS.iter().chain(CANARIES) {
        for kind in ["corpus", "findings"] {
            let files = smoke::files(&home().join(kind).join(target.name)).expect("readable");
            assert!(kind == "findings" || !files.is_empty(), "{} has no corpus", target.name);
            for (path, input) in files {
                assert!(input.len() <= FILE_BYTES_MAX, "{} has {} bytes", path.display(), input.len());
                bytes += input.len();
                count += 1;
            }
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX && count <= CORPUS_FILES_MAX, "{bytes} bytes in {count} files");
}

#[test]
fn nothing_is_kept_for_targets_that_are_not_there() {
    for kind in ["corpus", "findings"] {
        for entry in std::fs::read_dir(home().join(kind)).into_iter().flatten() {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(sluice_fuzz::find(&name).is_some(), "{kind}/{name} is no target's");
        }
    }
}
