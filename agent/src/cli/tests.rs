//! Commands about a disk's state, as an operator gives them.

use super::*;
use crate::journal::{Identity, Journal, Noted, Plan};
use sluice_platform::lock::StateLock;
use sluice_proto::cycle::{CycleKind, TrackerKind};
use sluice_proto::stream::BlockCv;
use sluice_proto::{ByteCount, CycleNo, Digest, SectorBitmap, SectorCount};
use std::collections::BTreeMap;
use std::fs;

/// A configuration with one source, an image that was protected, in the middle of a cycle.
struct Scene {
    folder: tempfile::TempDir,
    state: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "state = \"state\"\npins = {:?}\nhydrator_key = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n[appliance]\n\
             endpoint = \"https://localhost:9443\"\nca = \"ca\"\ncert = \"cert\"\nkey = \"key\"\n\
             [[disk]]\nsource = {:?}\n[[disk]]\nsource = \"/never\"\n",
            folder.path().join("pins"),
            folder.path().join("image")
        );
        fs::write(folder.path().join("agent.toml"), text).expect("a configuration");
        fs::write(folder.path().join("image"), [7; 4096]).expect("an image");
        let config = Config::load(&folder.path().join("agent.toml")).expect("readable");
        let state = config.protections().next().expect("a disk").state;
        let scene = Self { folder, state };
        scene.protect();
        scene
    }

    fn protect(&self) {
        let (disk, size, key) = (crate::testing::DISK, ByteCount(4096), crate::testing::key());
        let identity = Identity::new(disk, size, &key, crate::testing::envelope(crate::testing::GENERATION));
        let records = Box::new(crate::journal::FolderRecords::open(&self.state).expect("a folder"));
        let mut journal = Journal::create(records, identity).expect("a journal");
        let plan = Plan::new(CycleNo(1), CycleKind::Initial, TrackerKind::Scan, None);
        journal.begin(plan, SectorBitmap::full(SectorCount(8))).expect("a plan");
        let (hash, salt, cvs) = (Digest([6; 32]), Digest([7; 32]), vec![BlockCv([8; 32])]);
        journal.note_stored(Noted { cycle: CycleNo(1), first: 0, len: 900, hash, salt, cvs }).expect("a segment");
        // What a running agent may be just about to write, and what opening the journal would take away.
        let log = self.state.join("segments.log");
        let torn = [&fs::read(&log).expect("the log")[..], &[1, 2, 3]].concat();
        fs::write(log, torn).expect("an entry that is not whole yet");
        fs::write(self.state.join("carry.bitmap"), SectorBitmap::full(SectorCount(8)).encode()).expect("a carry");
    }

    /// The command's exit code.
    fn run(&self, command: &str, source: &str, more: &[&str]) -> ExitCode {
        let config = self.folder.path().join("agent.toml");
        let source = self.folder.path().join(source);
        let named = ["sluice-agent".into(), command.into(), "--config".into(), config, "--source".into(), source];
        let named = named.into_iter().map(PathBuf::into_os_string);
        main_with(named.chain(more.iter().map(OsString::from)))
    }

    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let paths = fs::read_dir(&self.state).expect("the state").map(|entry| entry.expect("an entry").path());
        paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
    }
}

#[test]
fn what_would_be_forgotten_is_only_looked_at() {
    let scene = Scene::new();
    let before = scene.contents();
    assert_eq!(scene.run("forget", "image", &[]), ExitCode::SUCCESS);
    assert_eq!(scene.contents(), before);
    assert_eq!(scene.run("forget", "/never", &[]), ExitCode::from(1));
    assert_eq!(scene.run("forget", "/never", &["--yes"]), ExitCode::from(1));
    let disks = fs::read_dir(scene.state.parent().expect("a folder")).expect("the disks");
    assert_eq!(disks.count(), 1, "no folder was made for what was never protected");
}

#[test]
fn nothing_is_forgotten_under_an_agent_that_runs() {
    let scene = Scene::new();
    let agent = StateLock::take(&scene.state).expect("nobody has it");
    let before = scene.contents();
    assert_eq!(scene.run("forget", "image", &["--yes"]), ExitCode::from(1));
    assert_eq!(scene.run("adopt", "image", &[]), ExitCode::from(1));
    assert_eq!(scene.contents(), before);
    drop(agent);
    assert_eq!(scene.run("adopt", "image", &[]), ExitCode::SUCCESS, "a file has no name of its own: nothing to adopt");
    assert_eq!(scene.run("forget", "image", &["--yes"]), ExitCode::SUCCESS);
    assert!(!scene.state.exists());
}
