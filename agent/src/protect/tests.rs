//! Sources that are not what they were.

use super::*;
use crate::journal::{FolderRecords, Plan, identity_in};
use crate::testing::{Fake, MemDisk, Pins, Seeded};
use sluice_proto::cycle::CycleKind;
use sluice_proto::keys::HydratorKey;
use sluice_proto::{CycleNo, Digest, Extent, SectorBitmap};
use sluice_test_support::devices::Loop;
use sluice_test_support::files_below;
use sluice_test_support::mounts::{FileSystem, Mount};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

const MIB: ByteCount = ByteCount(1 << 20);

/// Two image files, `a` and `b`, and a folder for states.
struct Scene {
    folder: tempfile::TempDir,
    hydrator: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "b"] {
            fs::write(folder.path().join(name), vec![name.as_bytes()[0]; 1 << 20]).expect("an image");
        }
        Self { folder, hydrator: HydratorKey::generate().expect("a key").public().to_vec() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The protection of the image or device at `source`, whose state is in the folder `state`.
    fn protection(&self, source: &str, state: &str) -> Protection {
        Protection {
            source: self.at(source),
            name: None,
            state: self.at("states").join(state),
            unnamed: Vec::new(),
            tracker: TrackerChoice::Only(TrackerKind::Scan),
            pins: crate::tracker::ebpf::default_folder(),
            hydrator: self.hydrator.clone(),
            capture: CaptureOptions::default(),
        }
    }
}

fn medium(serial: &str) -> Medium {
    let names: BTreeMap<&str, &str> = [("serial", serial)].into_iter().filter(|(_, name)| !name.is_empty()).collect();
    serde_json::from_value(serde_json::to_value(names).expect("a map")).expect("a medium")
}

/// Starts it on its source, whose medium has this serial number.
fn start(protection: &Protection, serial: &str) -> Result<DiskId, ProtectError> {
    let facts = DeviceFacts { medium: medium(serial), ..facts_of(&protection.source).expect("a source") };
    start_all(protection, &facts).map(|protected| protected.disk)
}

fn start_all(protection: &Protection, facts: &DeviceFacts) -> Result<Protected, ProtectError> {
    let (api, stop) = Fake::new(&MemDisk::new(512), &[]);
    let signer = SigningKey::from_seed(&[7; 32]);
    // Another for each state, so that no two disks get one name.
    let seed =
        Digest::of(protection.state.as_os_str().as_encoded_bytes()).0.into_iter().fold(0, |n, b| n << 1 ^ u64::from(b));
    protection.start_on(facts, api, Workers::inline(), Seeded::new(seed), &signer, stop)
}

/// All files below a folder, and what they hold.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(folder).into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

#[test]
fn what_the_agent_keeps_is_its_owner_s_alone() {
    let scene = Scene::new();
    let protection = scene.protection("a", "a");
    let signer = crate::service::signing_key(&scene.at("states"), &*Seeded::new(3)).expect("made");
    start(&protection, "one").expect("protected");
    let generation = protection.rotate_key(&*Seeded::new(4), &signer).expect("another key");
    assert_eq!(generation, Generation(2));
    let kept = contents(&scene.at("states"));
    for name in ["signing.key", "a/disk.json"] {
        assert!(kept.contains_key(&scene.at("states").join(name)), "{kept:?}");
    }
    for path in kept.keys() {
        let mode = fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

#[test]
fn another_medium_under_the_name_is_refused_before_anything_is_written() {
    let scene = Scene::new();
    let protection = scene.protection("a", "a");
    start(&protection, "one").expect("protected");
    start(&protection, "one").expect("and again");
    let before = contents(&protection.state);
    // A larger one: the target would grow, for ever.
    File::options().write(true).open(scene.at("a")).and_then(|f| f.set_len(2 << 20)).expect("larger");
    let error = start(&protection, "two").expect_err("another medium");
    assert!(matches!(error, ProtectError::Medium(_)));
    let source = protection.source.display();
    assert_eq!(
        error.to_string(),
        format!(
            "{source}: it is another disk than the one that is protected under this name (serial one; found: serial two). That \
             one is not there: attach it, and name it as the source by its link in /dev/disk/by-id. Or, if this one takes its \
             place: sluice-agent adopt --config FILE.toml --source {source}, and the target becomes its copy"
        )
    );
    assert_eq!(contents(&protection.state), before, "no growth, no new generation, no doubt");
}

#[test]
fn an_adopted_medium_is_compared() {
    let scene = Scene::new();
    let protection = scene.protection("a", "a");
    assert!(protection.adopt().is_err_and(|e| e.to_string().contains("never protected")));
    assert!(!protection.state.exists(), "nothing was made");
    let disk = start(&protection, "one").expect("protected");
    assert_eq!(protection.adopt_medium(medium("one"), MIB).expect("asked"), None);
    assert_eq!(protection.adopt_medium(medium(""), MIB).expect("asked"), None, "that may be the known one");
    let known = || identity_in(&protection.state).expect("readable").expect("there");
    assert_eq!((known().doubt, known().medium), (None, medium("one")));

    let smaller = protection.adopt_medium(medium("two"), ByteCount(1 << 19)).expect_err("smaller than the target");
    assert!(smaller.to_string().contains("never shrinks"), "{smaller}");
    // A cycle of the known one is under way: the other's sectors must not go into it.
    let open = || match Journal::open(Box::new(FolderRecords::open(&protection.state).expect("a folder"))) {
        Ok(Ok(journal)) => journal,
        _ => panic!("no journal"),
    };
    let planned = SectorBitmap::from_extents([Extent::new(3, 9)]);
    let plan = Plan::new(CycleNo(1), CycleKind::Delta, TrackerKind::Scan, None);
    open().begin(plan, planned.clone()).expect("begun");

    let adopted = protection.adopt_medium(medium("two"), MIB).expect("adopted");
    let journal = open();
    assert!(journal.plan().is_none() && *journal.carry() == planned);
    drop(journal);
    assert_eq!(adopted, Some((medium("one"), medium("two"))));
    assert!(known().doubt.is_some_and(|doubt| doubt.contains("another medium")));
    assert_eq!(start(&protection, "two").expect("protected"), disk);
    start(&protection, "one").expect_err("that is the other one now");
}

#[test]
fn where_nothing_is_known_all_is_as_before_and_what_becomes_known_is_noted() {
    let scene = Scene::new();
    let protection = scene.protection("a", "a");
    start(&protection, "").expect("protected");
    let record = || fs::read_to_string(protection.state.join("disk.json")).expect("a record");
    assert!(!record().contains("medium"), "as an agent wrote it that knew nothing of media");
    start(&protection, "one").expect("it has a name now");
    assert!(record().contains("medium"));
    start(&protection, "").expect("it has none any more");
    start(&protection, "two").expect_err("another");
    start(&protection, "one").expect("the right one");
}

#[test]
fn state_follows_its_medium_to_another_name() {
    let scene = Scene::new();
    let old = scene.protection("a", "old");
    let disk = start(&old, "one").expect("protected");
    // The configuration names it otherwise. Another disk with that name came before it, and one that can't be read.
    fs::create_dir_all(scene.at("states/damaged")).expect("a folder");
    fs::write(scene.at("states/damaged/disk.json"), b"{").expect("written");
    let unnamed = vec![scene.at("states/damaged"), old.state.clone()];
    let other = Protection { unnamed: unnamed.clone(), ..scene.protection("b", "other-name") };
    assert_ne!(start(&other, "two").expect("protected"), disk);
    assert!(old.state.exists());

    let new = Protection { unnamed, ..scene.protection("b", "new") };
    fs::create_dir(&new.state).and_then(|()| fs::write(new.state.join("lock"), b"")).expect("an earlier attempt's");
    let lock = StateLock::take(&old.state).expect("an agent");
    assert!(matches!(start(&new, "one"), Err(ProtectError::Lock(_))), "not under an agent that runs");
    drop(lock);
    assert_eq!(start(&new, "one").expect("protected"), disk);
    assert!(!old.state.exists(), "moved");
    assert_eq!(start(&new, "one").expect("and again"), disk);

    let twice = Protection { unnamed: vec![other.state, new.state], ..scene.protection("a", "twice") };
    start(&twice, "two").expect("the one that it is");
}

#[test]
fn state_is_not_guessed() {
    let scene = Scene::new();
    let states = ["x", "y"].map(|name| scene.protection("a", name));
    for protection in &states {
        start(protection, "one").expect("protected");
    }
    let unnamed = states.iter().map(|protection| protection.state.clone()).collect();
    let error = start(&Protection { unnamed, ..scene.protection("b", "z") }, "one").expect_err("two");
    assert!(error.to_string().contains("several other names"), "{error}");
}

/// As udev may do between any two of the agent's looks at it.
#[test]
fn a_link_that_changes_while_it_is_followed_is_noticed() {
    let scene = Scene::new();
    let link = scene.at("link");
    let lead = |to: &Path| {
        drop(fs::remove_file(&link));
        std::os::unix::fs::symlink(to, &link).expect("a link");
    };
    let mut protection = scene.protection("link", "link");
    lead(&scene.at("a"));
    let facts = facts_of(&link).expect("a source");
    protection.open(&facts, false).expect("the same");
    lead(&scene.at("b"));
    let error = protection.open(&facts, false).err().expect("another file is read");
    assert!(error.to_string().contains("became another disk"), "{error}");

    if !sluice_test_support::command::is_root("a_link_that_changes_while_it_is_followed_is_noticed") {
        return;
    }
    let [a, b] = ["a", "b"].map(|name| Loop::over(&scene.at(name), 512));
    protection.tracker = TrackerChoice::Only(TrackerKind::Ebpf);
    let disk = DiskId([0xab; 16]);
    let pins = Pins(protection.pins.join(disk.to_string()));
    lead(a.path());
    let facts = facts_of(&link).expect("a source");
    let attach = || protection.tracker(&facts, disk, None, &*Seeded::new(3)).map(|(tracker, ..)| tracker.kind());
    assert_eq!(attach().expect("attached"), TrackerKind::Ebpf);
    protection.open(&facts, false).expect("the same");
    lead(b.path());
    protection.open(&facts, false).err().expect("another disk is read");
    let error = attach().expect_err("another disk is tracked");
    assert!(error.to_string().contains("became another disk"), "{error}");
    drop(pins);
}

#[test]
fn state_on_the_disk_that_is_protected_is_told() {
    let test = "state_on_the_disk_that_is_protected_is_told";
    if !sluice_test_support::command::is_root(test) {
        return;
    }
    let scene = Scene::new();
    let disk = Loop::new(scene.folder.path(), "disk", 32 << 20, 4096);
    let state = Mount::format(disk.path(), FileSystem::Ext4);
    for (state, expected) in [(state.path().join("deep/state"), true), (scene.at("states/elsewhere"), false)] {
        let protection = Protection { source: disk.path().to_owned(), state, ..scene.protection("a", "") };
        let remarks = start_all(&protection, &facts_of(disk.path()).expect("a source")).expect("protected").remarks;
        let told = remarks.iter().any(|remark| remark.contains("keeps its state on the disk that it protects"));
        assert_eq!(told, expected, "{remarks:?}");
    }
    assert!(!scene.protection("a", "a").keeps_state_on_source(), "a file holds no folder");
}
