//! Leaves the machine as it was found, however a run ends. Everything that a run makes lies in one folder, or hangs on
//! it.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_e2e::Pins;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

/// Followed by the run's process id.
const PREFIX: &str = "sluice-bench-";
/// Where trackers pin their maps and links.
const PINS: &str = "/sys/fs/bpf/sluice";
/// Whether a signal ends the run.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Disks in compressed memory that are in use, which no folder tells of.
static ZRAMS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The folder of one run; when it is dropped, it goes with all that hangs on it.
#[derive(Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the one of this process, whose id it bears, after removing those whose process is gone.
    pub fn make(parent: &Path) -> Result<PathBuf> {
        for entry in fs::read_dir(parent).with_context(|| parent.display().to_string())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix(PREFIX).and_then(|id| id.parse::<u32>().ok()) else { continue };
            if !Path::new("/proc").join(id.to_string()).exists() {
                scrub(&entry.path());
            }
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Guards a folder that was made: also SIGINT, SIGTERM and SIGHUP end the run only after all was cleaned up.
    pub fn guard(path: &Path) -> Result<Self> {
        // What a killed child leaves running comes to us, and is found.
        nix::sys::prctl::set_child_subreaper(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handlers = runtime.block_on(async {
            Ok::<_, std::io::Error>([
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ])
        });
        let [mut interrupt, mut terminate, mut hangup] = handlers?;
        let folder = path.to_owned();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            ENDING.store(true, Ordering::SeqCst);
            eprintln!("bench: ended by a signal, cleaning up");
            end_children();
            scrub(&folder);
            // What the run began meanwhile: its errors are no longer told to anybody.
            end_children();
            scrub(&folder);
            std::process::exit(130);
        });
        Ok(Self(path.to_owned()))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        scrub(&self.0);
    }
}

/// Where a signal ends the run, stays here until all is cleaned up, with which the process ends.
pub fn yield_to_signal() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Notes a disk in compressed memory while it is in use, for a run that is ended by a signal.
pub fn note_zram(path: &Path, used: bool) {
    let mut zrams = ZRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    zrams.retain(|known| known != path);
    if used {
        zrams.push(path.to_owned());
    }
}

/// Unmounts, detaches, unpins and removes, in this order, all that lies in `folder`. What is not there is no error.
fn scrub(folder: &Path) {
    let devices = loop_devices(folder);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let mut words = line.split(' ');
        let (Some(source), Some(point)) = (words.next(), words.next()) else { continue };
        if Path::new(point).starts_with(folder) || devices.iter().any(|device| device == source) {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
    for device in devices {
        drop(Command::new("losetup").args(["--detach", &device]).status());
    }
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for pins in names.map(|name| pins_of_cluster(&name)).chain([pins_of_run()]) {
        drop(fs::remove_dir_all(pins));
    }
    drop(Pins::of(folder));
    let zrams = std::mem::take(&mut *ZRAMS.lock().unwrap_or_else(PoisonError::into_inner));
    for zram in zrams {
        let name = zram.file_name().unwrap_or_default().to_string_lossy().into_owned();
        drop(fs::write(format!("/sys/block/{name}/reset"), "1"));
        drop(fs::write("/sys/class/zram-control/hot_remove", name.trim_start_matches("zram")));
    }
    drop(fs::remove_dir_all(folder));
}

/// Where this run itself pins a tracker.
pub fn pins_of_run() -> PathBuf {
    Path::new(PINS).join(format!("bench-{}", std::process::id()))
}

/// Where three processes pin theirs, whose files lie in a folder of this name.
fn pins_of_cluster(folder: &OsStr) -> PathBuf {
    Path::new(PINS).join(format!("test-{}", folder.to_string_lossy().replace('.', "")))
}

/// Loop devices whose file lies in `folder`, also where it is deleted already.
fn loop_devices(folder: &Path) -> Vec<String> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()).starts_with(folder) {
            devices.push(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    devices
}

/// Kills everything below this process. Loops, as a process may fork while it is being killed.
fn end_children() {
    for _ in 0..50 {
        let found = children();
        if found.is_empty() {
            return;
        }
        found.iter().for_each(|id| _ = kill(*id, Signal::SIGKILL));
        // sleep: the kernel takes its time to end a process with much memory.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// All living processes below this one, by the parents that /proc names.
fn children() -> Vec<Pid> {
    let mut by_parent: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Its name in brackets may hold blanks; state and parent follow.
        let mut words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let (state, parent) = (words.next(), words.next().and_then(|word| word.parse().ok()));
        if let (Some(state), Some(parent)) = (state, parent)
            && state != "Z"
        {
            by_parent.entry(parent).or_default().push(id);
        }
    }
    let (mut found, mut parents) = (Vec::new(), vec![std::process::id() as i32]);
    while let Some(parent) = parents.pop() {
        for &child in by_parent.get(&parent).into_iter().flatten() {
            found.push(Pid::from_raw(child));
            parents.push(child);
        }
    }
    found
}
