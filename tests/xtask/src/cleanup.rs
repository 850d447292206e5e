//! Leaves the machine as it was found: a test run has one folder, and only what hangs on that folder is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

/// On a disk on every Debian (unlike /tmp, which may be memory and then lacks O_DIRECT).
const PARENT: &str = "/var/tmp";
/// Followed by the run's process id.
const PREFIX: &str = "sluice-test-run-";
/// Where trackers pin their maps and links.
const PINS: &str = "/sys/fs/bpf/sluice";

/// The folder that holds all temporary files of one run; dropped, it goes with all that stands on it.
pub struct RunDir {
    path: PathBuf,
    pins_before: BTreeSet<PathBuf>,
}

impl RunDir {
    /// Makes the folder for this process's run.
    pub fn new() -> Result<Self> {
        let path = Path::new(PARENT).join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("{} could not be made", path.display()))?;
        Ok(Self { path, pins_before: pins() })
    }

    /// What tests get as `TMPDIR`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // An agent that works on this machine keeps its own pins: only new ones are the tests', and only where no other run
        // may have made them.
        let new = if others_run() { BTreeSet::new() } else { &pins() - &self.pins_before };
        for pin in &new {
            let removed = if pin.is_dir() { fs::remove_dir_all(pin) } else { fs::remove_file(pin) };
            eprintln!("left behind and removed: {} {}", pin.display(), outcome(removed.is_ok()));
        }
        if let Err(error) = scrub(&self.path) {
            eprintln!("clean-up: {error:#}");
        }
    }
}

/// Removes what runs left behind whose process is gone.
pub fn leftovers() -> Result<()> {
    let runs = runs()?.into_iter();
    runs.filter(|(pid, _)| !is_alive(pid)).try_for_each(|(_, folder)| scrub(&folder))
}

/// True while another run than this process's is under way.
fn others_run() -> bool {
    let own = std::process::id().to_string();
    runs().is_ok_and(|runs| runs.keys().any(|pid| *pid != own && is_alive(pid)))
}

/// The folders of runs, by process id.
fn runs() -> Result<BTreeMap<String, PathBuf>> {
    let entries = fs::read_dir(PARENT)?.flatten();
    let run = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned(), entry.path()));
    Ok(entries.filter_map(run).collect())
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

fn pins() -> BTreeSet<PathBuf> {
    fs::read_dir(PINS).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Unmounts, detaches and removes, in this order, all that lies in `dir`.
fn scrub(dir: &Path) -> Result<()> {
    let devices = loop_devices(Path::new("/sys/block"), dir);
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for point in mounts_of(&mounts, dir, &devices) {
        let point = Path::new(&point);
        let unmounted = umount2(point, MntFlags::empty()).or_else(|_| umount2(point, MntFlags::MNT_DETACH));
        eprintln!("left behind and unmounted: {} {}", point.display(), outcome(unmounted.is_ok()));
    }
    for device in devices {
        let detached = Command::new("losetup").args(["--detach", &device]).status();
        eprintln!("left behind and detached: {device} {}", outcome(detached.is_ok_and(|status| status.success())));
    }
    fs::remove_dir_all(dir).with_context(|| format!("{} could not be removed", dir.display()))
}

fn outcome(well: bool) -> &'static str {
    if well { "" } else { "(FAILED)" }
}

/// Loop devices whose backing file lies in `dir`, also where it is deleted already.
fn loop_devices(sys_block: &Path, dir: &Path) -> Vec<String> {
    let mut devices = Vec::new();
    for entry in fs::read_dir(sys_block).into_iter().flatten().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()).starts_with(dir) {
            devices.push(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    devices
}

/// Mount points in `dir`, or of `devices` or their partitions, the last mounted first.
fn mounts_of(mounts: &str, dir: &Path, devices: &[String]) -> Vec<String> {
    let is_ours = |source: &str| {
        devices.iter().any(|device| {
            let partition = source.strip_prefix(device.as_str());
            partition.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
        })
    };
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?))
    });
    let ours = fields.filter(|(source, point)| Path::new(point).starts_with(dir) || is_ours(source));
    let mut points: Vec<String> = ours.map(|(_, point)| point.to_owned()).collect();
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_the_run_are_found_last_first() {
        let mounts = "/dev/vda / ext4 rw 0 0\n/dev/loop1 /mnt/a ext4 rw 0 0\n/dev/loop1p2 /mnt/b ext4 rw 0 0\n\
                      /dev/loop10 /mnt/c ext4 rw 0 0\ntmpfs /var/tmp/sluice-test-run-7/x tmpfs rw 0 0\n\
                      tmpfs /var/tmp/sluice-test-run-77/x tmpfs rw 0 0\n";
        let found = mounts_of(mounts, Path::new("/var/tmp/sluice-test-run-7"), &["/dev/loop1".to_owned()]);
        assert_eq!(found, ["/var/tmp/sluice-test-run-7/x", "/mnt/b", "/mnt/a"]);
    }

    #[test]
    fn only_loop_devices_of_the_run_are_found() {
        let sys = std::env::temp_dir().join(format!("sluice-test-sys-{}", std::process::id()));
        for (name, backing) in
            [("loop0", "/var/tmp/sluice-test-run-7/a.img (deleted)\n"), ("loop1", "/var/tmp/sluice-test-run-77/a\n")]
        {
            fs::create_dir_all(sys.join(name).join("loop")).expect("a temporary folder can be made");
            fs::write(sys.join(name).join("loop/backing_file"), backing).expect("a file can be written");
        }
        let found = loop_devices(&sys, Path::new("/var/tmp/sluice-test-run-7"));
        fs::remove_dir_all(&sys).expect("the temporary folder can be removed");
        assert_eq!(found, ["/dev/loop0"]);
    }
}
