//! Devices that a test makes for itself and takes away again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command that must succeed and returns what it printed.
pub fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device over a file; detached when dropped.
pub struct Loop {
    pub path: PathBuf,
}

impl Loop {
    /// Over `file`, with what more losetup is to be told.
    pub fn over(file: &Path, options: &[&str]) -> Self {
        let mut arguments = vec!["--find", "--show"];
        arguments.extend(options);
        arguments.push(file.to_str().expect("a plain path"));
        Self { path: run("losetup", &arguments).into() }
    }

    /// Over a new sparse file of `bytes` in memory or, where there is no /dev/shm, in the temporary folder.
    pub fn sparse(folder: &Path, bytes: u64, options: &[&str]) -> Self {
        let file = folder.join("backing");
        File::create(&file).and_then(|f| f.set_len(bytes)).expect("a sparse file");
        Self::over(&file, options)
    }

    /// Makes a partition of `sectors` from `start`; its device node.
    pub fn partition(&self, start: u64, sectors: u64) -> PathBuf {
        let path = self.path.display().to_string();
        run("addpart", &[&path, "1", &start.to_string(), &sectors.to_string()]);
        format!("{path}p1").into()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("-d").arg(&self.path).status());
    }
}

/// A zram disk of its own; taken away when dropped.
pub struct Zram {
    pub path: PathBuf,
    number: String,
}

impl Zram {
    /// Of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let number = fs::read_to_string("/sys/class/zram-control/hot_add").expect("zram").trim().to_owned();
        let zram = Self { path: format!("/dev/zram{number}").into(), number };
        fs::write(format!("/sys/block/zram{}/disksize", zram.number), bytes.to_string()).expect("a size");
        zram
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        drop(fs::write(format!("/sys/block/zram{}/reset", self.number), "1"));
        drop(fs::write("/sys/class/zram-control/hot_remove", &self.number));
    }
}

/// A folder in memory if there is one.
pub fn folder() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a folder")
}

/// A folder for pins of its own; the tracking in it ends when dropped.
pub struct Pins(pub PathBuf);

impl Pins {
    pub fn new(name: &str) -> Self {
        let base = sluice_agent::tracker::ebpf::default_folder();
        Self(base.join(format!("test-{name}-{}", std::process::id())))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        drop(sluice_agent::tracker::ebpf::EbpfTracker::detach(&self.0));
    }
}
