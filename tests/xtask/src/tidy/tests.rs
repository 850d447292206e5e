//! The rules against small made-up trees.

use super::mask::code_only;
use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
    all.insert("README.md".to_owned(), Some("## Code map\n".to_owned()));
    all.extend(files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))));
    Tree { files: all, members: Vec::new() }
}

fn found(files: &[(&str, &str)], lists: &str) -> Vec<String> {
    findings(&tree(files), &Allowed::new(lists).expect("the test's lists are TOML"))
}

fn one(path: &str, text: &str) -> Vec<String> {
    found(&[(path, text)], "")
}

fn function(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
}

#[test]
fn what_is_not_code_is_blanked() {
    let source = "a /* b /* c */ d */ e // f\n\"g \\\" h\" r#\"i \" j\"# b'k' '\\'' 'l' <'m> br\"n\" bar\"o\"";
    let code = code_only(source);
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "e", "<'m>", "bar"]);
    assert_eq!(code.lines().count(), source.lines().count());
}

#[test]
fn long_files_and_functions_need_an_entry_that_still_counts() {
    let long = "// x\n".repeat(401);
    assert_eq!(one("proto/a.rs", &long), ["proto/a.rs:1: 401 lines, more than 400"]);
    assert!(found(&[("proto/a.rs", &long)], "[long_files]\n\"proto/a.rs\" = 401").is_empty());
    let huge = "// x\n".repeat(601);
    let lists = "[long_files]\n\"proto/a.rs\" = 700";
    assert_eq!(found(&[("proto/a.rs", &huge)], lists), ["proto/a.rs:1: 601 lines, more than 600"]);
    let stale = "tests/xtask/tidy.toml: `proto/a.rs` is not needed any more";
    assert_eq!(found(&[("proto/a.rs", "")], lists), [stale]);

    let long = function(81);
    assert_eq!(one("proto/a.rs", &long), ["proto/a.rs:1: `long` has 81 lines, more than 80"]);
    assert!(found(&[("proto/a.rs", &long)], "[long_functions]\n\"proto/a.rs::long\" = 81").is_empty());
    assert!(one("proto/a.rs", &function(80)).is_empty());
}

#[test]
fn a_functions_length_ends_with_its_body() {
    let source = format!("fn a(b: [u8; 3], c: fn(u8) -> u8);\nfn d() where E: F {{ \"{{\"; }}\n{}", "\n".repeat(100));
    assert!(one("proto/a.rs", &source).is_empty());
}

#[test]
fn unfinished_work_is_found_in_code_only() {
    let names = ["todo", "dbg", "unimplemented"];
    for name in names {
        assert_eq!(one("proto/a.rs", &format!("\n{name}!()")).len(), 1, "{name}");
        assert!(one("proto/a.rs", &format!("// {name}!()\n\"{name}!\" my_{name}!()")).is_empty(), "{name}");
    }
    assert_eq!(one("proto/a.rs", "#[ignore]").len(), 1);
    assert_eq!(one("proto/a.rs", &format!("// {}{}: later", "FIX", "ME")).len(), 1);
}

#[test]
fn a_sleep_needs_its_reason() {
    assert_eq!(one("tests/a.rs", "std::thread::sleep(x);").len(), 1);
    assert!(one("tests/a.rs", "// sleep: the device needs it\nstd::thread::sleep(x);").is_empty());
    assert!(one("tests/a.rs", "std::thread::sleep(x); // sleep: the device needs it").is_empty());
}

#[test]
fn unsafe_code_stands_in_listed_files_only() {
    assert_eq!(one("agent/a.rs", "unsafe { x }").len(), 1);
    assert!(one("agent/a.rs", "#![forbid(unsafe_code)] // unsafe\nfn f() { \"unsafe\" }").is_empty());
    let lists = "[unsafe_files]\n\"agent/a.rs\" = \"ioctl\"";
    assert!(found(&[("agent/a.rs", "unsafe { x }")], lists).is_empty());
    assert_eq!(found(&[("agent/a.rs", "")], lists).len(), 1);
}

#[test]
fn links_lead_to_files_or_folders_of_the_tree() {
    let text = "[a](b.md) [c](../proto/) [d](#here) [e](https://e.org) `[f](gone)`\n```\n[g](gone)\n```\n";
    assert!(found(&[("tests/A.md", text), ("tests/b.md", ""), ("proto/c", "")], "").is_empty());
    let finding = "tests/A.md:2: `gone.md#x` leads to nothing in the tree";
    assert_eq!(one("tests/A.md", "\n[a](gone.md#x)"), [finding]);
    assert_eq!(one("tests/A.md", "[a](../../gone)").len(), 1);
}

#[test]
fn tests_that_show_a_claim_are_there() {
    let tests = "#[tokio::test(start_paused = true)]\n#[should_panic]\nasync fn it_is_there() {}\nfn it_is_none() {}\n";
    let table = "\n| he cannot | shown by |\n| --- | --- |\n";
    let shown = |text: &str| found(&[("SECURITY.md", &(text.to_owned() + table)), ("proto/a.rs", tests)], "");
    assert!(shown("`it_is_there`, `old_one`, `cargo xtask sim`, it_is_gone").is_empty());
    assert_eq!(shown("\n`it_is_there`, `it_is_gone`"), ["SECURITY.md:2: there is no test `it_is_gone`"]);
    assert_eq!(shown("`it_is_none`").len(), 1);
}

#[test]
fn every_claim_names_a_test() {
    let test = "#[test]\nfn it_is_there() {}\nfn no_test() {}\n";
    let cannot = |rows: &str| format!("| he cannot | shown by |\n| --- | --- |\n{rows}");
    let security =
        |text: &str| found(&[("SECURITY.md", text), ("tests/crash/a.rs", test), ("tests/sim/a.rs", "fn a() {}")], "");
    for shown in ["`proto` `it_is_there`", "killed: `tests/crash`", "`tests/crash/a.rs`, and more"] {
        assert!(security(&cannot(&format!("| a | {shown} |\n"))).is_empty(), "{shown}");
    }
    let nothing =
        ["", "see above", "`proto`", "`crash`", "`tests/sim`", "it_is_there", "`no_test`", "by design: so it is"];
    for shown in nothing {
        let rows = format!("| a | `it_is_there` |\n| b | {shown} |\n");
        assert_eq!(security(&cannot(&rows)), ["SECURITY.md:4: no test shows that: b"], "{shown}");
    }
    // Other tables that say so, where a reason will do, and up to their end only.
    let other = |rows: &str| security(&cannot(&format!("\n| he can | then | shown by |\n| --- | --- | :-- |\n{rows}")));
    assert!(
        other("| a | b | by design: so it is |\n| c | d | `it_is_there` |\n\n| e | f |\n| - | - |\n| g | h |")
            .is_empty()
    );
    assert_eq!(other("| a | `it_is_there` | nothing |\n"), ["SECURITY.md:6: no test shows that: a"]);
    assert_eq!(security("| he can't | shown by |\n"), ["SECURITY.md: has no table that begins with `he cannot`"]);

    let promises = |row: &str| {
        let text = format!("| promise | shown by |\n| --- | --- |\n{row}\n");
        found(&[("tests/RELIABILITY.md", &text), ("SECURITY.md", &cannot("")), ("LICENSE", "")], "")
    };
    assert!(promises("| a | [there](../SECURITY.md) |").is_empty());
    for shown in ["nothing", "[there](../LICENSE)"] {
        let found = promises(&format!("| a | {shown} |"));
        assert_eq!(found, ["tests/RELIABILITY.md:3: no test shows that: a"], "{shown}");
    }
}

#[test]
fn nothing_belongs_to_one_machine() {
    for parts in [["/wo", "rk/main"], ["/ro", "ot/.cargo"], ["/tmp/br", "ief/x"], ["deb.deb", "ian.org"]] {
        assert_eq!(one("proto/a.rs", &format!("// in {}", parts.concat())).len(), 1, "{parts:?}");
        assert_eq!(one(".ci/run", &format!("\n\"{}\"", parts.concat())).len(), 1, "{parts:?}");
    }
    assert!(one("proto/a.rs", &format!("// {}{}x", "state/wo", "rk/")).is_empty());
}

#[test]
fn the_root_holds_what_the_list_names() {
    assert_eq!(one("notes.txt", ""), ["notes.txt: the root holds only what tidy's list names"]);
    assert!(found(&[(".clippy.toml", ""), ("LICENSE", ""), ("proto/src/x", "")], "").is_empty());
}

#[test]
fn every_member_is_on_the_map_and_keeps_the_rules() {
    let member = || Member {
        name: "sluice-x".to_owned(),
        dir: "proto".to_owned(),
        crate_roots: vec!["proto/src/lib.rs".to_owned()],
        wildcards: vec!["serde".to_owned()],
    };
    let mut bad = tree(&[("proto/src/lib.rs", ""), ("proto/Cargo.toml", "")]);
    bad.members.push(member());
    let expected = [
        "README.md: the code map does not name `proto`",
        "proto/src/lib.rs: a crate's root forbids or denies unsafe_code",
        "proto/Cargo.toml: takes its lints from the workspace",
        "proto/Cargo.toml: `serde` has the version `*`",
    ];
    assert_eq!(findings(&bad, &Allowed::default()), expected);

    let mut good = tree(&[
        ("proto/src/lib.rs", "#![forbid(unsafe_code)]"),
        ("proto/Cargo.toml", "[lints]\nworkspace = true"),
        ("README.md", "## Code map\n| `proto` | what |\n## More\n"),
    ]);
    good.members.push(Member { wildcards: Vec::new(), ..member() });
    assert!(findings(&good, &Allowed::default()).is_empty());
}

#[test]
fn the_core_comes_to_time_and_files_by_traits_and_the_appliance_to_no_key() {
    let found = one("agent/src/disk/plan.rs", "use std::time::Instant;\nfn a() { std::fs::read(p); rand::random() }");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("agent/src/disk/plan.rs:2: `std::fs`"), "{found:?}");
    for path in ["agent/src/disk/tests/a.rs", "agent/src/disk/tests.rs", "agent/src/run.rs"] {
        assert!(one(path, "use std::time::Instant; use std::fs;").is_empty(), "{path}");
    }
    assert!(one("agent/src/disk.rs", "use tokio::time::Instant; let operand = 1; // std::fs").is_empty());
    for path in ["appliance/src/http/agent.rs", "appliance/cache-store/src/a.rs", "appliance/client/src/a.rs"] {
        assert_eq!(one(path, "let key: DataKey;").len(), 1, "{path}");
    }
    assert!(one("appliance/cli/src/a.rs", "let key: DataKey;").is_empty());
}
