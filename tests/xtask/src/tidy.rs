//! Rules about the tree that no other tool keeps. What is allowed nevertheless stands in `tests/xtask/tidy.toml`,
//! whose lists may only shrink: an entry that is not needed any more is a finding too.

mod docs;
mod mask;
mod sources;
mod tree;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::workspace::{self, Member};

const LISTS: &str = "tests/xtask/tidy.toml";

/// Prints every finding as `path:line: what`; `false` if there is one.
pub fn run() -> Result<bool> {
    let text = fs::read_to_string(LISTS).with_context(|| format!("{LISTS} could not be read"))?;
    let allowed = Allowed::new(&text).with_context(|| format!("{LISTS} cannot be understood"))?;
    let tree = Tree { files: read_all()?, members: workspace::members()? };
    let findings = findings(&tree, &allowed);
    findings.iter().for_each(|finding| eprintln!("tidy: {finding}"));
    Ok(findings.is_empty())
}

/// What is judged.
struct Tree {
    /// Path and text; `None` where the text is not UTF-8.
    files: BTreeMap<String, Option<String>>,
    members: Vec<Member>,
}

impl Tree {
    /// Text files whose name ends so.
    fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)));
        texts.filter(move |(path, _)| path.ends_with(end))
    }
}

/// The exceptions, by path or `path::function`.
#[derive(Default)]
struct Allowed {
    /// Lines that a long file may have.
    long_files: BTreeMap<String, usize>,
    /// Lines that a long function may have.
    long_functions: BTreeMap<String, usize>,
    /// Files that may hold `unsafe`, with the reason.
    unsafe_files: BTreeMap<String, String>,
}

impl Allowed {
    fn new(text: &str) -> Result<Self> {
        let lists: toml::Table = text.parse()?;
        let entries = |list: &str| lists.get(list).and_then(toml::Value::as_table).into_iter().flatten();
        let counts = |list: &'static str| {
            entries(list).map(move |(key, value)| {
                let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
                Ok((key.clone(), count.with_context(|| format!("[{list}] {key}: not a number of lines"))?))
            })
        };
        let reasons = entries("unsafe_files").map(|(key, value)| {
            Ok((key.clone(), value.as_str().with_context(|| format!("[unsafe_files] {key}: not a reason"))?.to_owned()))
        });
        Ok(Self {
            long_files: counts("long_files").collect::<Result<_>>()?,
            long_functions: counts("long_functions").collect::<Result<_>>()?,
            unsafe_files: reasons.collect::<Result<_>>()?,
        })
    }
}

fn findings(tree: &Tree, allowed: &Allowed) -> Vec<String> {
    let mut findings = sources::findings(tree, allowed);
    findings.extend(docs::findings(tree));
    findings.extend(tree::findings(tree));
    findings
}

fn read_all() -> Result<BTreeMap<String, Option<String>>> {
    let root = workspace::root()?;
    let mut files = BTreeMap::new();
    for path in workspace::files()? {
        let full = root.join(&path);
        // A link is judged where it points to, if that is in the tree.
        if full.is_file() && !full.is_symlink() {
            let bytes = fs::read(&full).with_context(|| format!("{path} could not be read"))?;
            files.insert(path, String::from_utf8(bytes).ok());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
