//! The dependency rules of `.cargo/deny.toml`: licences, bans, duplicates, sources.
//!
//! The file is cargo-deny's, and `cargo deny check` can be run on it by hand. Here the part that needs no network
//! (all but security advisories) is judged from `cargo metadata`, because installing cargo-deny takes about three
//! minutes of two cores on every fresh machine, which is more than all other checks together.

mod spdx;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace;

const RULES: &str = ".cargo/deny.toml";

/// Prints what breaks a rule; `false` if anything does.
pub fn run() -> Result<bool> {
    let text = fs::read_to_string(RULES).with_context(|| format!("{RULES} could not be read"))?;
    let rules: toml::Table = text.parse().with_context(|| format!("{RULES} is not TOML"))?;
    let crates = crates(&workspace::metadata(true)?);
    let findings = findings(&Rules::new(&rules), &crates);
    findings.iter().for_each(|finding| eprintln!("deny: {finding}"));
    Ok(findings.is_empty())
}

/// A package that the lock file names.
struct Crate {
    name: String,
    version: String,
    licence: Option<String>,
    /// `None` for a member of the workspace.
    source: Option<String>,
}

fn crates(metadata: &Value) -> Vec<Crate> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parse = |package: &Value| {
        Some(Crate {
            name: text(&package["name"])?,
            version: text(&package["version"])?,
            licence: text(&package["license"]),
            source: text(&package["source"]),
        })
    };
    metadata["packages"].as_array().into_iter().flatten().filter_map(parse).collect()
}

#[derive(Default)]
struct Rules {
    licences: BTreeSet<String>,
    /// Licences that single crates may have besides.
    exceptions: BTreeMap<String, BTreeSet<String>>,
    banned: BTreeMap<String, String>,
    /// Whether two versions of a crate are refused unless one of them is skipped.
    refuse_duplicates: bool,
    /// `name` or `name@version`.
    skipped: BTreeSet<String>,
}

impl Rules {
    fn new(file: &toml::Table) -> Self {
        let at = |section: &str, key: &str| file.get(section).and_then(|section| section.get(key));
        let list = |section, key| at(section, key).and_then(toml::Value::as_array).into_iter().flatten();
        let field = |entry: &toml::Value, key: &str| entry.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let texts = |entry: &toml::Value, key: &str| -> BTreeSet<String> {
            let values = entry.get(key).and_then(toml::Value::as_array).into_iter().flatten();
            values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        Self {
            licences: list("licenses", "allow").filter_map(|value| value.as_str().map(str::to_owned)).collect(),
            exceptions: list("licenses", "exceptions")
                .filter_map(|entry| Some((field(entry, "crate")?, texts(entry, "allow"))))
                .collect(),
            banned: list("bans", "deny")
                .filter_map(|entry| Some((field(entry, "crate")?, field(entry, "reason").unwrap_or_default())))
                .collect(),
            refuse_duplicates: at("bans", "multiple-versions").and_then(toml::Value::as_str) == Some("deny"),
            skipped: list("bans", "skip").filter_map(|entry| field(entry, "crate")).collect(),
        }
    }
}

fn findings(rules: &Rules, crates: &[Crate]) -> Vec<String> {
    let mut findings = Vec::new();
    for krate in crates {
        let name = format!("{} {}", krate.name, krate.version);
        let extra = rules.exceptions.get(&krate.name);
        let allowed =
            |licence: &str| rules.licences.contains(licence) || extra.is_some_and(|extra| extra.contains(licence));
        match krate.licence.as_deref().map(|licence| (licence, spdx::satisfied(licence, &allowed))) {
            Some((_, Some(true))) => {}
            Some((licence, Some(false))) => findings.push(format!("{name}: licence `{licence}` is not on the list")),
            Some((licence, None)) => findings.push(format!("{name}: licence `{licence}` cannot be understood")),
            None => findings.push(format!("{name}: names no licence")),
        }
        if let Some(reason) = rules.banned.get(&krate.name) {
            findings.push(format!("{name}: banned: {reason}"));
        }
        if krate.source.as_ref().is_some_and(|source| !source.starts_with("registry+")) {
            findings.push(format!("{name}: does not come from the registry"));
        }
    }
    let registries: BTreeSet<_> = crates.iter().filter_map(|krate| krate.source.as_deref()).collect();
    if registries.iter().filter(|source| source.starts_with("registry+")).count() > 1 {
        findings.push("crates come from more than one registry".to_owned());
    }
    if rules.refuse_duplicates {
        findings.extend(duplicates(rules, crates));
    }
    findings
}

/// Crates of which more than one version is left when the skipped ones are taken away, and skips that do nothing.
fn duplicates(rules: &Rules, crates: &[Crate]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for krate in crates {
        versions.entry(&krate.name).or_default().insert(&krate.version);
    }
    let mut findings = Vec::new();
    for (name, all) in &versions {
        let skipped = |version: &str| {
            rules.skipped.contains(*name) || rules.skipped.iter().any(|skip| *skip == format!("{name}@{version}"))
        };
        let left: Vec<&str> = all.iter().copied().filter(|version| !skipped(version)).collect();
        if left.len() > 1 {
            findings.push(format!("{name}: more than one version: {}", left.join(", ")));
        }
    }
    for skip in &rules.skipped {
        let name = skip.split('@').next().unwrap_or(skip);
        if versions.get(name).is_none_or(|all| all.len() < 2) {
            findings.push(format!("{RULES}: skips {skip}, of which there are no two versions any more"));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
