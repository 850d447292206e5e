//! The rules against small made-up lock files.

use super::*;

fn krate(name: &str, version: &str, licence: &str) -> Crate {
    Crate {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: Some(licence.to_owned()),
        source: Some("registry+one".to_owned()),
    }
}

fn rules(text: &str) -> Rules {
    Rules::new(&text.parse().expect("the test's rules are TOML"))
}

const RULES_TEXT: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
exceptions = [{ crate = "c", allow = ["MPL-2.0"] }]
[bans]
multiple-versions = "deny"
deny = [{ crate = "openssl", reason = "rustls is what we use" }]
skip = [{ crate = "old@1.0.0", reason = "waits for a release" }]
"#;

#[test]
fn a_clean_tree_has_no_findings() {
    let crates = [
        krate("a", "1.0.0", "MIT OR GPL-3.0"),
        krate("b", "1.0.0", "MIT/Apache-2.0"),
        krate("c", "1.0.0", "MPL-2.0"),
        krate("old", "1.0.0", "MIT"),
        krate("old", "2.0.0", "MIT"),
    ];
    assert_eq!(findings(&rules(RULES_TEXT), &crates), Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_named() {
    let mut from_git = krate("g", "1.0.0", "MIT");
    from_git.source = Some("git+somewhere".to_owned());
    let mut unlicensed = krate("u", "1.0.0", "");
    unlicensed.licence = None;
    let mut elsewhere = krate("e", "1.0.0", "MIT");
    elsewhere.source = Some("registry+two".to_owned());
    let crates = [
        krate("d", "1.0.0", "MPL-2.0"),
        krate("openssl", "1.0.0", "MIT"),
        from_git,
        unlicensed,
        elsewhere,
        krate("twice", "1.0.0", "MIT"),
        krate("twice", "2.0.0", "MIT"),
    ];
    let found = findings(&rules(RULES_TEXT), &crates);
    let expected = [
        "d 1.0.0: licence `MPL-2.0` is not on the list",
        "openssl 1.0.0: banned: rustls is what we use",
        "g 1.0.0: does not come from the registry",
        "u 1.0.0: names no licence",
        "crates come from more than one registry",
        "twice: more than one version: 1.0.0, 2.0.0",
        ".cargo/deny.toml: skips old@1.0.0, of which there are no two versions any more",
    ];
    assert_eq!(found, expected);
}

#[test]
fn licence_expressions() {
    let allowed = |licence: &str| matches!(licence, "MIT" | "Apache-2.0" | "A WITH E");
    for (expression, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("GPL-3.0 OR MIT", Some(true)),
        ("GPL-3.0 AND MIT", Some(false)),
        ("(GPL-3.0 OR MIT) AND Apache-2.0", Some(true)),
        ("GPL-3.0 AND MIT OR Apache-2.0", Some(true)),
        ("A WITH E", Some(true)),
        ("A WITH F", Some(false)),
        ("A", Some(false)),
        ("MIT OR", None),
        ("(MIT", None),
        ("MIT MIT", None),
        ("", None),
    ] {
        assert_eq!(spdx::satisfied(expression, &allowed), expected, "{expression}");
    }
}
