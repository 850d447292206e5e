//! Builds the bootable Debian image of `vm-images/`: a raw disk with a partition table, GRUB and an ext4 root.
//!
//! Nothing is mounted and no loop device is used: mke2fs fills the file system from a folder, and GRUB's two parts are
//! written where the BIOS and GRUB itself look for them. So there is nothing to clean up after a failure, and the
//! disk boots by itself, also after it was replicated into another format.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// The whole disk, in bytes; the file is sparse.
const DISK_BYTES: u64 = 1 << 30;
/// Where the root partition starts; GRUB's core lies before it.
const PARTITION_OFFSET: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// The part of the first sector that is code; the partition table follows.
const BOOT_CODE: usize = 440;
const GRUB: &str = "/usr/lib/grub/i386-pc";
/// What GRUB needs to find its configuration and start Linux.
const GRUB_MODULES: [&str; 7] = ["biosdisk", "part_msdos", "ext2", "linux", "normal", "serial", "terminal"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Left out of every package: nobody reads it in a test's guest.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
/// Done in the guest's root when its packages are installed.
const SETTLE: &str = "chroot \"$1\" systemctl --quiet enable systemd-networkd && chroot \"$1\" systemctl --quiet mask \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer systemd-networkd-wait-online.service && \
    rm -f \"$1/etc/machine-id\" && touch \"$1/etc/machine-id\"";

/// Returns the image, built now unless there is one made from the same recipe.
pub fn build() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("vm-images");
    let image = dir.join("debian.raw");
    let stamp = dir.join("debian.stamp");
    let recipe = recipe()?;
    if image.exists() && fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == recipe) {
        return Ok(image);
    }
    ensure!(nix::unistd::geteuid().is_root(), "the image can be built by root only: sudo cargo xtask vm-image");
    fs::create_dir_all(&dir)?;
    let _ = fs::remove_file(&stamp);
    let start = Instant::now();
    println!("building {}", image.display());
    let root = dir.join("root");
    bootstrap(&root)?;
    assemble(&root, &image)?;
    fs::remove_dir_all(&root)?;
    fs::write(&stamp, recipe)?;
    println!("built {} in {:.0} s", image.display(), start.elapsed().as_secs_f64());
    Ok(image)
}

/// Changes whenever this file or one in `vm-images/` does.
fn recipe() -> Result<String> {
    let root = workspace::root()?;
    let mut hasher = DefaultHasher::new();
    include_str!("vm_image.rs").hash(&mut hasher);
    for path in workspace::files()?.iter().filter(|path| path.starts_with("vm-images/")) {
        path.hash(&mut hasher);
        fs::read(root.join(path))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Installs Debian into `root`, from the mirrors that this machine itself is installed from.
fn bootstrap(root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let recipe = workspace::root()?.join("vm-images");
    let packages = fs::read_to_string(recipe.join("packages"))?;
    let packages: Vec<&str> = packages.split_whitespace().collect();
    let (codename, sources) = sources()?;
    let list = root.with_extension("list");
    fs::write(&list, sources)?;
    let files = ["boot", "etc", "usr"].map(|top| format!("'{}'", recipe.join("files").join(top).display())).join(" ");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--format=directory", "--variant=minbase"]);
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.args([
        format!("--include={}", packages.join(",")),
        // Before the kernel is installed, so that its initrd is built once, and by our rules.
        format!("--essential-hook=copy-in {files} /"),
        format!("--customize-hook={SETTLE}"),
        codename,
    ]);
    run(command.arg(root).arg(&list))?;
    Ok(fs::remove_file(&list)?)
}

/// Codename of this machine's Debian, and its sources as apt sees them, without those of third parties.
fn sources() -> Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned();
    let format = format!("$(ORIGIN)|$(CODENAME)|deb [signed-by={KEYRING}] $(REPO_URI) $(RELEASE) $(COMPONENT)");
    let targets = workspace::output(Command::new("apt-get").args(["indextargets", "--format", &format]))?;
    let sources = debian_only(&String::from_utf8_lossy(&targets), &codename);
    if sources.is_empty() {
        bail!("apt knows no source of Debian {codename}; run apt-get update, and see that its sources name one");
    }
    Ok((codename, sources))
}

fn debian_only(targets: &str, codename: &str) -> String {
    let mut lines = Vec::new();
    for target in targets.lines() {
        let mut fields = target.splitn(3, '|');
        let (Some(origin), Some(name), Some(line)) = (fields.next(), fields.next(), fields.next()) else { continue };
        // The same line comes once for each of a source's indices.
        let ours = origin == "Debian" && name.split('-').next() == Some(codename) && line.ends_with(" main");
        if ours && !name.ends_with("backports") && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Makes a disk of the folder.
fn assemble(root: &Path, image: &Path) -> Result<()> {
    let _ = fs::remove_file(image);
    let disk = File::create_new(image)?;
    disk.set_len(DISK_BYTES)?;
    let table = format!("label: dos\nstart={}, type=83, bootable\n", PARTITION_OFFSET / SECTOR);
    let script = image.with_extension("sfdisk");
    fs::write(&script, table)?;
    run(Command::new("sfdisk").arg("--quiet").arg(image).stdin(File::open(&script)?))?;
    fs::remove_file(&script)?;
    let kib = (DISK_BYTES - PARTITION_OFFSET) / 1024;
    let extended = format!("offset={PARTITION_OFFSET},root_owner=0:0");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "sluice-root", "-E", &extended, "-d"]).arg(root);
    run(mke2fs.arg(image).arg(format!("{kib}k")))?;
    boot_loader(&disk, image)?;
    Ok(disk.sync_all()?)
}

fn boot_loader(disk: &File, image: &Path) -> Result<()> {
    let core_file = image.with_extension("core");
    let mut mkimage = Command::new("grub-mkimage");
    mkimage.args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"]).arg(&core_file).args(GRUB_MODULES);
    run(&mut mkimage)?;
    let boot = fs::read(Path::new(GRUB).join("boot.img"))?;
    let core = fs::read(&core_file)?;
    fs::remove_file(&core_file)?;
    ensure!(core.len() as u64 <= PARTITION_OFFSET - SECTOR, "GRUB's core does not fit before the partition");
    disk.write_all_at(boot.get(..BOOT_CODE).context("GRUB's boot.img is too short")?, 0)?;
    // boot.img loads its core from the second sector on, unless it is told otherwise.
    Ok(disk.write_all_at(&core, SECTOR)?)
}

/// Runs a command that has nothing to say when all is well.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    // A superuser's commands are not on every path that root has.
    let status = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("`{name}` could not be started; `cargo xtask tools` installs it"))?;
    ensure!(status.success(), "`{name}` failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::debian_only;

    #[test]
    fn sources_of_third_parties_and_other_releases_are_left_out() {
        let targets = "Debian|bookworm|deb a bookworm main\nDebian|bookworm|deb a bookworm main\n\
                       Debian|bookworm-security|deb b bookworm-security main\n\
                       Debian|bookworm-backports|deb a bookworm-backports main\n\
                       Debian|trixie|deb a trixie main\nDebian|bookworm|deb a bookworm contrib\n\
                       Other|bookworm|deb c bookworm main\nbroken";
        assert_eq!(debian_only(targets, "bookworm"), "deb a bookworm main\ndeb b bookworm-security main\n");
    }
}
