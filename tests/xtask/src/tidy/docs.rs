//! Rules about what the tree says: links that lead somewhere, tests that are there and a test for each claim, a complete code
//! map, nothing about one machine.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Tree;
use super::mask::line_of;

/// Where README.md lists the members.
const CODE_MAP: &str = "## Code map";

/// Documents that name the tests which show what they claim, in backticks; how the header of their tables begins of which each
/// row must name one.
const SHOWN: [(&str, &str); 2] = [("SECURITY.md", "he cannot"), ("tests/RELIABILITY.md", "promise")];
/// How the header ends of a table that says what shows its rows.
const SHOWN_BY: &str = "shown by";
/// What stands there in other tables of the kind where nothing can be tested, before the reason.
const BY_DESIGN: &str = "by design: ";
/// Words that such a name has at least; shorter ones may be anything's.
const WORDS_MIN: usize = 3;

/// Everything that breaks a rule.
pub fn findings(tree: &Tree) -> Vec<String> {
    let mut findings = code_map(tree);
    let tests = Tests::of(tree);
    for (path, promise) in SHOWN {
        if let Some(text) = tree.files.get(path).and_then(Option::as_deref) {
            findings.extend(tests_that_are_gone(path, text, &tests));
            findings.extend(claims_without_test(path, text, promise, &tests));
        }
    }
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

/// The tests of the tree.
struct Tests<'a> {
    names: BTreeSet<&'a str>,
    /// The files that hold any.
    files: BTreeSet<&'a str>,
}

impl<'a> Tests<'a> {
    fn of(tree: &'a Tree) -> Self {
        let (mut names, mut files) = (BTreeSet::new(), BTreeSet::new());
        for (path, text) in tree.ending(".rs") {
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[") {
                    is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                    continue;
                }
                let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(|c| !is_of_name(c)).next());
                if let Some(name) = name.filter(|_| is_test) {
                    names.insert(name);
                    files.insert(path);
                }
                is_test = false;
            }
        }
        Self { names, files }
    }

    /// Whether `named` is a test, or a file or folder that holds some.
    fn hold(&self, named: &str) -> bool {
        let is_below = |file: &&str| Path::new(file).starts_with(named);
        self.names.contains(named) || (named.contains('/') && self.files.iter().any(is_below))
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// What stands in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Names of tests that lead to none.
fn tests_that_are_gone(path: &str, text: &str, tests: &Tests<'_>) -> Vec<String> {
    let lines = text.lines().zip(1..).flat_map(|(line, number)| quoted(line).map(move |name| (number, name)));
    lines
        .filter(|(_, name)| name.chars().all(is_of_name) && name.split('_').count() >= WORDS_MIN)
        .filter(|(_, name)| !tests.names.contains(name))
        .map(|(number, name)| format!("{path}:{number}: there is no test `{name}`"))
        .collect()
}

/// Rows that name no test, of tables that are to say what shows each of their rows. A link to another of these documents
/// stands for the tests that are named there.
fn claims_without_test(path: &str, text: &str, promise: &str, tests: &Tests<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut tables, mut header) = (0, None);
    for (line, number) in text.lines().zip(1..) {
        let Some((first, last)) = ends_of_row(line) else {
            header = None;
            continue;
        };
        let (is_promise, is_shown) = match header {
            Some(of_table) => of_table,
            None => {
                tables += usize::from(first == promise);
                header = Some((first == promise, first == promise || last == SHOWN_BY));
                continue;
            }
        };
        let is_rule = !last.is_empty() && last.chars().all(|c| matches!(c, '-' | ':'));
        let is_named = quoted(last).any(|name| tests.hold(name))
            || links(last).iter().any(|(_, target)| SHOWN.iter().any(|(other, _)| target.ends_with(other)))
            || (!is_promise && last.starts_with(BY_DESIGN));
        if is_shown && !is_rule && !is_named {
            findings.push(format!("{path}:{number}: no test shows that: {first}"));
        }
    }
    if tables == 0 {
        findings.push(format!("{path}: has no table that begins with `{promise}`"));
    }
    findings
}

/// The first and the last cell of a table's line.
fn ends_of_row(line: &str) -> Option<(&str, &str)> {
    let (first, rest) = line.strip_prefix('|')?.split_once('|')?;
    let rest = rest.trim_end().trim_end_matches('|');
    Some((first.trim(), rest.rsplit('|').next().unwrap_or(rest).trim()))
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
