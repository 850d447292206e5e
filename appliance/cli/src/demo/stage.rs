//! The demo's disk and its folder, and how all of it goes again.

use super::Args;
use crate::outcome::Refusal;
use crate::progress::say;
use crate::units;
use sluice_agent::tracker::ebpf;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Lines of each log that are shown after a failure.
const LOG_LINES: usize = 12;

/// The beginning of the folder's name.
const PREFIX: &str = "sluice-demo-";
/// The file in the folder that a demo holds locked while it runs; gone from a folder that is kept.
const RUNNING: &str = "running";
/// The disk's file in the folder.
const IMAGE: &str = "disk.img";
/// Where the disk is mounted in the folder.
const MOUNT: &str = "mounted";

/// What the writers write to.
#[derive(Clone, Debug)]
pub enum Playground {
    /// A mounted file system.
    Folder(PathBuf),
    /// The disk itself, an image file.
    Image(PathBuf),
}

/// The stage. Taken down when it is dropped.
pub struct Stage {
    folder: TempDir,
    _running: File,
    keep: bool,
    image: PathBuf,
    disk: Disk,
    down: bool,
}

enum Disk {
    Loop { device: PathBuf, mount: Option<PathBuf> },
    File { why: String },
}

impl Stage {
    /// Makes folder and disk.
    pub fn set(args: &Args) -> Result<Self, Refusal> {
        let failed = |e: std::io::Error| Refusal::at("the demo's folder can't be made", e);
        sweep(&std::env::temp_dir());
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir().map_err(failed)?;
        let running = File::create_new(folder.path().join(RUNNING)).map_err(failed)?;
        running.try_lock().map_err(|e| failed(e.into()))?;
        check_room(folder.path(), args.size)?;
        let image = folder.path().join(IMAGE);
        File::create_new(&image).and_then(|file| file.set_len(args.size)).map_err(failed)?;
        let disk = Disk::File { why: String::new() };
        let mut stage = Self { folder, _running: running, keep: args.keep, image, disk, down: false };
        if let Err(why) = stage.make_loop() {
            stage.remove_disk();
            stage.disk = Disk::File { why };
        }
        Ok(stage)
    }

    /// A loop device with a mounted ext4, which `ebpf` can track; or why there can be none.
    fn make_loop(&mut self) -> Result<(), String> {
        ebpf::available().map_err(|why| why.to_string())?;
        let device = PathBuf::from(command("losetup", &["--find", "--show"], &self.image)?);
        self.disk = Disk::Loop { device: device.clone(), mount: None };
        command("mkfs.ext4", &["-q", "-F"], &device)?;
        let mount = self.folder.path().join(MOUNT);
        fs::create_dir(&mount).map_err(|e| e.to_string())?;
        nix::mount::mount(Some(&device), &mount, Some("ext4"), nix::mount::MsFlags::empty(), None::<&str>)
            .map_err(|e| format!("{} can't be mounted: {e}", device.display()))?;
        self.disk = Disk::Loop { device, mount: Some(mount) };
        Ok(())
    }

    /// The disk.
    pub fn source(&self) -> &Path {
        match &self.disk {
            Disk::Loop { device, .. } => device,
            Disk::File { .. } => &self.image,
        }
    }

    /// Where the writers write.
    pub fn playground(&self) -> Playground {
        match &self.disk {
            Disk::Loop { mount: Some(mount), .. } => Playground::Folder(mount.clone()),
            _ => Playground::Image(self.image.clone()),
        }
    }

    /// Why the disk is compared and not tracked, where it is.
    pub fn why_scan(&self) -> Option<&str> {
        match &self.disk {
            Disk::Loop { .. } => None,
            Disk::File { why } => Some(why),
        }
    }

    /// The folder of all files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where trackers are pinned: apart from those of a real agent.
    pub fn pins(&self) -> PathBuf {
        pins_of(self.folder.path())
    }

    /// The hydrator's folder of targets.
    pub fn targets(&self) -> PathBuf {
        self.folder.path().join("targets")
    }

    /// The target.
    pub fn target(&self) -> Result<PathBuf, Refusal> {
        let folder = self.targets();
        let entries = fs::read_dir(&folder).map_err(|e| Refusal::at(folder.display(), e))?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths
            .find(|path| path.extension().is_some_and(|suffix| suffix == "vhd"))
            .ok_or_else(|| Refusal::new(format!("the hydrator made no VHD in {}", folder.display())))
    }

    /// Brings the source to rest: afterwards all that was written is on it.
    pub fn rest(&mut self) -> Result<(), Refusal> {
        let Disk::Loop { mount, .. } = &mut self.disk else { return Ok(()) };
        let Some(path) = mount.take() else { return Ok(()) };
        nix::mount::umount(&path).map_err(|e| {
            let refusal = Refusal::new(format!("{} can't be unmounted: {e}", path.display()));
            *mount = Some(path);
            refusal
        })
    }

    /// The last lines of each part's log, for people.
    pub fn show_logs(&self) {
        for name in ["appliance.log", "hydrator.log", "agent.log"] {
            let Ok(text) = fs::read_to_string(self.folder.path().join(name)) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            say(format!("--- the end of {name}"));
            lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(say);
        }
    }

    /// Takes everything down; says where files were kept.
    pub fn take_down(&mut self) {
        if std::mem::replace(&mut self.down, true) {
            return;
        }
        self.remove_disk();
        // The kernel ends the tracking as the last pin goes. There is nothing where nothing was tracked.
        drop(fs::remove_dir_all(self.pins()));
        if self.keep {
            self.folder.disable_cleanup(true);
            drop(fs::remove_file(self.folder.path().join(RUNNING)));
            say(format!("kept in {}: disk.img, targets/, logs and state", self.folder.path().display()));
        }
    }

    fn remove_disk(&mut self) {
        let Disk::Loop { device, mount } = &mut self.disk else { return };
        if let Some(mount) = mount.take() {
            // Lazily: what still has a file open there must not keep it in the host's table.
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
        if let Err(why) = command("losetup", &["--detach"], device) {
            say(format!("the loop device could not be detached: {why}"));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.take_down();
    }
}

fn pins_of(folder: &Path) -> PathBuf {
    ebpf::default_folder().with_file_name(folder.file_name().unwrap_or_default())
}

/// Takes down what demos of this user left that were killed: their tracking would go on for ever, and their disks hold their
/// room. A folder that somebody kept has no such file, and that of a demo that runs is locked.
fn sweep(parent: &Path) {
    for folder in fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) || !is_private_folder(&folder) {
            continue;
        }
        let running = File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(folder.join(RUNNING));
        let Some(_dead) = running.ok().filter(|running| running.try_lock().is_ok()) else { continue };
        let (mount, image) = (folder.join(MOUNT), folder.join(IMAGE));
        if mount.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
            let _ = nix::mount::umount2(&mount, flags);
        }
        if image.symlink_metadata().is_ok_and(|found| found.is_file()) {
            let devices = command("losetup", &["--noheadings", "--output", "NAME", "--associated"], &image);
            for device in devices.unwrap_or_default().lines() {
                drop(command("losetup", &["--detach"], Path::new(device)));
            }
        }
        drop(fs::remove_dir_all(pins_of(&folder)));
        drop(fs::remove_dir_all(&folder));
        say(format!("an earlier demo was killed; what it left in {} was removed", folder.display()));
    }
}

/// A folder, not a link to one, that is this user's and nobody else's.
fn is_private_folder(path: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    path.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == own && found.mode() & 0o077 == 0)
}

/// A disk that is a fifth full, its copy, what lies in the cache, and what the writers add.
fn check_room(folder: &Path, size: u64) -> Result<(), Refusal> {
    let facts = nix::sys::statvfs::statvfs(folder).map_err(|e| Refusal::at(folder.display(), e))?;
    let free = facts.blocks_available() as u64 * facts.fragment_size() as u64;
    let needed = size / 5 * 3;
    match free >= needed {
        true => Ok(()),
        false => Err(Refusal::new(format!(
            "{} has {} free and the demo needs about {}: name another folder in $TMPDIR, or a smaller --size",
            folder.display(),
            units::bytes(free),
            units::bytes(needed)
        ))),
    }
}

/// Runs a command of the system; what it printed, or what it complained of.
fn command(program: &str, arguments: &[&str], path: &Path) -> Result<String, String> {
    let search = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    // Debian keeps tools for disks where a plain user's path does not lead.
    command.args(arguments).arg(path).env("PATH", format!("{search}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    let output = command.output().map_err(|e| format!("{program} can't be run: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
