//! Rules about `.rs` files: length, unfinished work, waiting, unsafe code.

use super::mask::{code_only, is_name, line_of, words};
use super::{Allowed, LISTS, Tree};

/// A file longer than this stands on the list.
const FILE_LINES_MAX: usize = 400;
/// No file is longer than this.
const FILE_LINES_HARD_MAX: usize = 600;
/// A function longer than this stands on the list.
const FUNCTION_LINES_MAX: usize = 80;
/// What is not to be found in code.
const UNFINISHED: [&str; 4] = ["todo!", "dbg!", "unimplemented!", "#[ignore"];

/// What runs in the simulation as it is: whatever is below these paths comes to time, randomness, files and network by traits.
const CORE: [&str; 9] = [
    "proto/src/",
    "agent/src/capture",
    "agent/src/compare",
    "agent/src/disk",
    "agent/src/journal",
    "appliance/src/service",
    "target-hydrator/src/apply",
    "target-hydrator/src/digests",
    "target-hydrator/src/ledger",
];
/// What is not to be found there. Waiting is tokio's, whose clock a simulation sets.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::time::Instant",
    "SystemTime",
    "tokio::fs",
    "tokio::net",
    "tokio::process",
    "rand",
    "getrandom",
    "nix",
    "rustix",
];
/// Keys that open something. The appliance has none, nor what it stands on.
const OPENING_KEYS: [&str; 2] = ["DataKey", "HydratorKey"];
/// What the appliance is made of, but for `proto`.
const KEYLESS: [&str; 3] = ["appliance/src/", "appliance/cache-store/src/", "appliance/client/src/"];

/// Everything that breaks a rule, and entries of the lists that allow nothing any more.
pub fn findings(tree: &Tree, allowed: &Allowed) -> Vec<String> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for (path, source) in tree.ending(".rs") {
        let code = code_only(source);
        length(path, source, allowed, &mut used, &mut findings);
        for (name, line, lines) in functions(&code) {
            let key = format!("{path}::{name}");
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            if allowed.long_functions.get(&key).is_none_or(|max| lines > *max) {
                findings.push(format!("{path}:{line}: `{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}"));
            }
            used.push(key);
        }
        words_of(path, source, &code, &mut findings);
        if !is_test(path) {
            bounds(path, &code, &mut findings);
        }
        if let Some(at) = words(&code, "unsafe").next() {
            if !allowed.unsafe_files.contains_key(path) {
                let line = line_of(&code, at);
                findings.push(format!("{path}:{line}: `unsafe` outside of the files that {LISTS} lists"));
            }
            used.push(path.to_owned());
        }
    }
    let lists = [&allowed.long_files, &allowed.long_functions].into_iter().flat_map(|list| list.keys());
    for key in lists.chain(allowed.unsafe_files.keys()).filter(|key| !used.contains(key)) {
        findings.push(format!("{LISTS}: `{key}` is not needed any more"));
    }
    findings
}

fn length(path: &str, source: &str, allowed: &Allowed, used: &mut Vec<String>, findings: &mut Vec<String>) {
    let lines = source.lines().count();
    if lines <= FILE_LINES_MAX {
        return;
    }
    let listed = allowed.long_files.get(path).copied();
    let max = listed.unwrap_or(FILE_LINES_MAX).min(FILE_LINES_HARD_MAX);
    if lines > max {
        findings.push(format!("{path}:1: {lines} lines, more than {max}"));
    }
    used.push(path.to_owned());
}

fn words_of(path: &str, source: &str, code: &str, findings: &mut Vec<String>) {
    for word in UNFINISHED {
        for at in words(code, word) {
            findings.push(format!("{path}:{}: `{word}` is unfinished work", line_of(code, at)));
        }
    }
    let unfinished = concat!("FIX", "ME");
    for (at, _) in source.match_indices(unfinished) {
        findings.push(format!("{path}:{}: {unfinished}", line_of(source, at)));
    }
    // Waiting for a while instead of for something makes tests slow and, under load, wrong.
    let lines: Vec<&str> = source.lines().collect();
    for at in words(code, "thread::sleep") {
        let line = line_of(code, at);
        let reason = lines[line.saturating_sub(2)..line].iter().any(|line| line.contains("// sleep: "));
        if !reason {
            findings.push(format!("{path}:{line}: a sleep without its reason, `// sleep: …`"));
        }
    }
}

/// Name, line and length in lines of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let tail = code[at + 2..].trim_start();
        let name: String = tail.chars().take_while(|c| is_name(*c)).collect();
        if name.is_empty() {
            continue; // the type of a function pointer
        }
        if let Some(end) = body_end(&code[at..]) {
            let line = line_of(code, at);
            found.push((name, line, line_of(code, at + end) - line + 1));
        }
    }
    found
}

/// Where the body of the function that starts here ends; `None` for a declaration.
fn body_end(code: &str) -> Option<usize> {
    let mut nesting = 0_usize;
    let mut braces = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => nesting += 1,
            ')' | ']' => nesting = nesting.saturating_sub(1),
            ';' if nesting == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && nesting == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Tests may do what they like.
fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("/samples.rs")
}

fn bounds(path: &str, code: &str, findings: &mut Vec<String>) {
    let core: &[&str] = if CORE.iter().any(|core| path.starts_with(core)) { &IMPURE } else { &[] };
    for word in core {
        for at in words(code, word) {
            let line = line_of(code, at);
            findings.push(format!("{path}:{line}: `{word}`, where time, randomness and files come in by traits"));
        }
    }
    let keyless: &[&str] = if KEYLESS.iter().any(|part| path.starts_with(part)) { &OPENING_KEYS } else { &[] };
    for word in keyless {
        for at in words(code, word) {
            findings.push(format!("{path}:{}: `{word}` in the appliance, which can open nothing", line_of(code, at)));
        }
    }
}
