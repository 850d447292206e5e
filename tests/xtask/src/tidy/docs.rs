//! Rules about what the tree says: links that lead somewhere, tests that are there, a complete code map, nothing about one
//! machine.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Tree;
use super::mask::line_of;

/// Where README.md lists the members.
const CODE_MAP: &str = "## Code map";

/// Documents that name the tests which show what they claim, in backticks.
const SHOWN: [&str; 2] = ["SECURITY.md", "tests/RELIABILITY.md"];
/// Words that such a name has at least; shorter ones may be anything's.
const WORDS_MIN: usize = 3;

/// Everything that breaks a rule.
pub fn findings(tree: &Tree) -> Vec<String> {
    let mut findings = code_map(tree);
    findings.extend(tests_that_are_gone(tree));
    for (path, text) in tree.ending(".md") {
        for (at, target) in links(text) {
            if !resolves(tree, path, target) {
                findings.push(format!("{path}:{}: `{target}` leads to nothing in the tree", line_of(text, at)));
            }
        }
    }
    for (path, text) in tree.ending("") {
        if path == "Cargo.lock" || path.ends_with("package-lock.json") {
            continue; // written by their tools
        }
        for word in of_one_machine() {
            for (at, _) in text.match_indices(&word) {
                if stands_alone(text, at) {
                    findings.push(format!("{path}:{}: `{word}` belongs to one machine", line_of(text, at)));
                }
            }
        }
    }
    findings
}

/// Folders of a developer's machine and hosts of package registries; put together so that this file passes.
fn of_one_machine() -> Vec<String> {
    let folders = ["work", "tmp/brief", "root"].map(|folder| format!("/{folder}/"));
    let hosts = [
        ["deb", "debian.org"],
        ["security", "debian.org"],
        ["snapshot", "debian.org"],
        ["registry", "npmjs.org"],
        ["pypi", "org"],
        ["files", "pythonhosted.org"],
        ["crates", "io/"],
        ["index", "crates.io"],
        ["static", "crates.io"],
        ["deb", "nodesource.com"],
    ];
    folders.into_iter().chain(hosts.map(|[name, domain]| format!("{name}.{domain}"))).collect()
}

/// Whether what starts at `at` is no part of a longer path or name.
fn stands_alone(text: &str, at: usize) -> bool {
    !text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "_-.~}>*$".contains(c))
}

/// README's code map names every member's folder.
fn code_map(tree: &Tree) -> Vec<String> {
    let readme = tree.files.get("README.md").and_then(Option::as_deref).unwrap_or_default();
    let Some((_, map)) = readme.split_once(CODE_MAP) else {
        return vec![format!("README.md: has no `{CODE_MAP}`")];
    };
    let map = map.split_once("\n## ").map_or(map, |(map, _)| map);
    let absent = tree.members.iter().filter(|member| {
        let names = [format!("`{}`", member.dir), format!("`{}/`", member.dir), format!("({})", member.dir)];
        !names.iter().any(|name| map.contains(name.as_str()))
    });
    absent.map(|member| format!("README.md: the code map does not name `{}`", member.dir)).collect()
}

/// Names of tests in the documents that lead to none.
fn tests_that_are_gone(tree: &Tree) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut tests = BTreeSet::new();
    for (_, text) in tree.ending(".rs") {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[") {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            } else {
                let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(|c| !is_name(c)).next());
                tests.extend(name.filter(|_| is_test));
                is_test = false;
            }
        }
    }
    let documents = SHOWN.iter().filter_map(|path| Some((*path, tree.files.get(*path)?.as_deref()?)));
    let lines =
        documents.flat_map(|(path, text)| text.lines().zip(1..).map(move |(line, number)| (path, line, number)));
    lines
        .flat_map(|(path, line, number)| line.split('`').skip(1).step_by(2).map(move |name| (path, number, name)))
        .filter(|(_, _, name)| name.chars().all(is_name) && name.split('_').count() >= WORDS_MIN)
        .filter(|(_, _, name)| !tests.contains(name))
        .map(|(path, number, name)| format!("{path}:{number}: there is no test `{name}`"))
        .collect()
}

/// Offset and target of every `[text](target)` outside of code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.match_indices("](").filter_map(|(at, _)| {
                let inside_code = line[..at].matches('`').count() % 2 == 1;
                let target = line[at + 2..].split(')').next()?.split_whitespace().next()?;
                (!inside_code).then_some((start + at, target))
            }));
        }
        start += line.len();
    }
    found
}

/// Whether a link leads out of the tree, into its own file, or to a file or folder of the tree.
fn resolves(tree: &Tree, from: &str, target: &str) -> bool {
    let target = target.split('#').next().unwrap_or_default();
    if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let mut path = PathBuf::new();
    for part in Path::new(from).parent().unwrap_or(Path::new("")).join(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return false,
        }
    }
    tree.files.keys().any(|file| Path::new(file).starts_with(&path))
}
