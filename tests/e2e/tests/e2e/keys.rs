//! Keys: who sees them, who may read their files, and what a new one costs.

use sluice_e2e::Apart;
use sluice_proto::Generation;
use sluice_proto::cycle::{CycleKind, State};
use sluice_test_support::cluster::Part;
use sluice_test_support::command::is_root;
use sluice_test_support::devices::text;
use sluice_test_support::files_below;
use sluice_test_support::program::Sluice;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn holds(bytes: &[u8], piece: &[u8]) -> bool {
    bytes.windows(piece.len()).any(|window| window == piece)
}

/// A secret in every form in which a program might show it.
struct Secret {
    file: PathBuf,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    fn of_bytes(file: &Path, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let listed = format!("{bytes:?}");
        let forms = vec![bytes.to_vec(), hex.into_bytes(), listed.trim_matches(['[', ']']).as_bytes().to_vec()];
        Self { file: file.to_owned(), forms }
    }

    /// Of a text that holds it encoded: the longest word, so that a part of a line is found too.
    fn of_text(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let word = text.split_whitespace().max_by_key(|word| word.len()).expect("a word");
        assert!(word.len() >= 40, "{}: {text}", file.display());
        Self { file: file.to_owned(), forms: vec![word.as_bytes().to_vec()] }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| holds(bytes, form))
    }
}

/// The secrets of a cluster: the disk's data key, the agent's and the hydrator's own, those of TLS.
fn secrets(apart: &Apart) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for path in files_below(apart.cluster.folder()) {
        match path.file_name().and_then(|name| name.to_str()).expect("a name") {
            "disk.json" => secrets.push(Secret::of_bytes(&path, &data_key(&path))),
            "signing.key" => secrets.push(Secret::of_bytes(&path, &fs::read(&path).expect("a key"))),
            name if name == "hydrator.key" || name.ends_with("-key.pem") => secrets.push(Secret::of_text(&path)),
            _ => {}
        }
    }
    secrets
}

fn data_key(record: &Path) -> Vec<u8> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).expect("a record")).expect("JSON");
    let hex = record["data_key"].as_str().expect("a key").as_bytes();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex")).collect()
}

#[test]
fn no_secret_leaves_its_file_and_that_is_its_owner_s() {
    if !is_root("no_secret_leaves_its_file_and_that_is_its_owner_s") {
        return;
    }
    let mut apart = Apart::prepare(|setup| setup.environment = vec![("SLUICE_LOG", "trace".to_owned())]);
    let disk = apart.in_step();
    // A cycle that stays in the cache, as nobody applies it.
    let mut said = vec![apart.cluster.take(Part::Hydrator).terminate()];
    apart.write(1 << 20, 4 << 20, 9);
    let cycle = apart.order(disk);
    apart.cluster.operator().wait_cycle(disk, "the cycle is committed", |view| {
        (view.cycle.0 == cycle && view.state == State::Committed).then_some(())
    });
    said.extend([Part::Agent, Part::Appliance].map(|part| apart.cluster.take(part).terminate()));

    let secrets = secrets(&apart);
    let names: BTreeSet<_> = secrets.iter().filter_map(|secret| secret.file.file_name()?.to_str()).collect();
    let all = ["agent-key.pem", "ca-key.pem", "disk.json", "hydrator-key.pem", "hydrator.key", "operator-key.pem"];
    assert!(all.into_iter().chain(["server-key.pem", "signing.key"]).eq(names.iter().copied()), "{names:?}");
    assert!(said.iter().any(|ended| ended.stderr.contains(" DEBUG ")), "they tell all that they can");
    for ended in &said {
        for secret in &secrets {
            let file = secret.file.display();
            assert!(!secret.is_in(ended.stdout.as_bytes()), "{file} is on stdout");
            assert!(!secret.is_in(ended.stderr.as_bytes()), "{file} is in a log");
        }
    }
    let source = fs::read(apart.source.path()).expect("the source");
    let plain = &source[2 << 20..][..64];
    let mut objects = 0;
    for path in
        files_below(apart.cluster.folder()).into_iter().filter(|path| !path.starts_with(apart.cluster.targets()))
    {
        let bytes = fs::read(&path).expect("a file");
        for secret in secrets.iter().filter(|secret| secret.is_in(&bytes)) {
            assert_eq!(path, secret.file, "it has come to another file");
            let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
        assert!(!holds(&bytes, plain), "{} holds what the disk holds", path.display());
        objects += usize::from(path.starts_with(apart.cluster.cache()));
    }
    assert!(objects > 1, "the cache holds a cycle");
}

#[test]
fn a_new_data_key_begins_a_generation_and_copies_nothing_again() {
    if !is_root("a_new_data_key_begins_a_generation_and_copies_nothing_again") {
        return;
    }
    let mut apart = Apart::prepare(|_| {});
    let disk = apart.in_step();
    let states = apart.cluster.folder().join("agent/state");
    let keys =
        || files_below(&states).into_iter().filter(|path| path.ends_with("disk.json")).map(|path| data_key(&path));
    let old: Vec<_> = keys().collect();
    apart.cluster.take(Part::Agent).terminate();
    let config = apart.cluster.config(Part::Agent);
    Sluice::must(&["agent", "rotate-key", "--config", text(&config), "--source", text(apart.source.path())]);
    assert!(old.len() == 1 && keys().ne(old), "there is another");

    apart.write(5 << 20, 1 << 20, 7);
    apart.cluster.start_part(Part::Agent);
    let delta = apart.mend(disk);
    assert_eq!(apart.cluster.operator().disks()[0].generation, Generation(2));
    assert_eq!(delta.kind, CycleKind::Delta, "{delta:?}");
    assert!(delta.sectors.bytes().0 < 2 << 20, "{delta:?}");
}
