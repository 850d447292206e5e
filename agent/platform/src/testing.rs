//! Loop devices and mounts for the tests, undone when dropped. They touch nothing that they haven't made.

use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// True for root. Else notes on stderr which test is skipped.
pub(crate) fn root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped, needs root: {what}");
    }
    root
}

/// Held while a process is started. A child has copies of all our descriptors until it executes its program, and so
/// keeps open for a moment what we closed meanwhile: a test of exclusive opens holds this to have none such around.
static STARTING: Mutex<()> = Mutex::new(());

/// Keeps the other tests from starting processes.
pub(crate) fn no_children() -> MutexGuard<'static, ()> {
    STARTING.lock()
}

fn output(command: &mut Command) -> std::io::Result<std::process::Output> {
    let _starting = STARTING.lock();
    command.output()
}

/// Runs a command, which must succeed, and answers with what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device over a sparse file of its own.
pub(crate) struct Loop {
    path: PathBuf,
    backing: PathBuf,
    _folder: tempfile::TempDir,
}

impl Loop {
    pub fn new(bytes: u64, sector: u32) -> Self {
        Self::attach(bytes, &["--sector-size", &sector.to_string()])
    }

    pub fn read_only(bytes: u64) -> Self {
        Self::attach(bytes, &["--read-only"])
    }

    fn attach(bytes: u64, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let backing = folder.path().canonicalize().expect("there").join("backing");
        File::create(&backing).and_then(|file| file.set_len(bytes)).expect("a sparse file");
        let path = run(Command::new("losetup").args(["--find", "--show"]).args(options).arg(&backing));
        Self { path: path.into(), backing, _folder: folder }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn backing(&self) -> &Path {
        &self.backing
    }

    pub fn mkfs_and_mount(&self, fs: &str) -> Mounted {
        run(Command::new(format!("mkfs.{fs}")).arg("-q").arg(&self.path));
        let at = tempfile::tempdir().expect("a folder");
        run(Command::new("mount").arg(&self.path).arg(at.path()));
        Mounted { at }
    }
}

/// As `run`, but a test that has failed already isn't aborted by what fails after it.
fn undo(command: &mut Command) {
    if std::thread::panicking() {
        eprintln!("{command:?}: {:?}", output(command));
    } else {
        run(command);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        undo(Command::new("losetup").arg("--detach").arg(&self.path));
    }
}

/// A mounted file system.
pub(crate) struct Mounted {
    at: tempfile::TempDir,
}

impl Mounted {
    pub fn at(&self) -> &Path {
        self.at.path()
    }

    pub fn remount_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(self.at.path()));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        undo(Command::new("umount").arg(self.at.path()));
    }
}
