//! Rules about what lies where, and what every package says of itself.

use std::collections::BTreeSet;

use super::Tree;

/// All that a visitor sees; what tools allow in a hidden file stands there.
const VISIBLE_ROOT: [&str; 14] = [
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "agent",
    "appliance",
    "benches",
    "proto",
    "rust-toolchain.toml",
    "target-hydrator",
    "tests",
    "vm-images",
];

/// Everything that breaks a rule.
pub fn findings(tree: &Tree) -> Vec<String> {
    let top: BTreeSet<&str> = tree.files.keys().filter_map(|path| path.split('/').next()).collect();
    let stray = top.into_iter().filter(|name| !name.starts_with('.') && !VISIBLE_ROOT.contains(name));
    let mut findings: Vec<String> =
        stray.map(|name| format!("{name}: the root holds only what tidy's list names")).collect();
    for member in &tree.members {
        let text = |path: &str| tree.files.get(path).and_then(Option::as_deref).unwrap_or_default();
        for path in &member.crate_roots {
            let says = |level: &str| text(path).contains(&format!("#![{level}(unsafe_code)]"));
            if !says("forbid") && !says("deny") {
                findings.push(format!("{path}: a crate's root forbids or denies unsafe_code"));
            }
        }
        let manifest = format!("{}/Cargo.toml", member.dir);
        if !text(&manifest).replace(' ', "").contains("[lints]\nworkspace=true") {
            findings.push(format!("{manifest}: takes its lints from the workspace"));
        }
        for name in &member.wildcards {
            findings.push(format!("{manifest}: `{name}` has the version `*`"));
        }
    }
    findings
}
