//! Installs what tests need besides Rust and a C compiler, as Debian packages. Tools from npm (Azurite) the tests
//! install themselves, once, into the folder that they are told of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command (by name) or a file (by path), and the Debian package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("btrfs", "btrfs-progs"),
    ("clang-14", "clang-14"),
    ("faketime", "faketime"),
    ("fio", "fio"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("ip", "iproute2"),
    ("llvm-strip-14", "llvm-14"),
    ("losetup", "mount"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("openssl", "openssl"),
    ("sfdisk", "fdisk"),
    ("fstrim", "util-linux"),
];

/// Both halves of QEMU must be of one version, so they are installed together.
const QEMU: [&str; 2] = ["qemu-img", "qemu-system-x86_64"];

/// Where tests keep tools from npm; they find it in `SLUICE_TEST_TOOLS`.
pub fn dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("test-tools"))
}

/// Installs whatever is missing; not as root, it fails with the one line that installs it.
pub fn install() -> Result<()> {
    let mut missing: Vec<&str> = TOOLS.iter().filter(|(tool, _)| !present(tool)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    let qemu_missing = !QEMU.into_iter().all(present);
    if !missing.is_empty() || qemu_missing {
        if !nix::unistd::geteuid().is_root() {
            missing.extend(["qemu-utils", "qemu-system-x86"].iter().filter(|_| qemu_missing));
            bail!("tests need more than is installed: sudo apt-get install {}", missing.join(" "));
        }
        apt(&["update"])?;
        let mut packages: Vec<String> = missing.iter().map(|package| (*package).to_owned()).collect();
        if qemu_missing {
            // A qemu-utils from elsewhere (backports) can be newer than the system emulator that can be had.
            let version = candidate("qemu-system-x86")?;
            packages.extend(["qemu-utils", "qemu-system-x86"].map(|package| format!("{package}={version}")));
        }
        let mut install = vec!["install", "--yes", "--no-install-recommends", "--allow-downgrades"];
        install.extend(packages.iter().map(String::as_str));
        apt(&install)?;
    }
    Ok(())
}

/// Whether a command is on the path or where Debian keeps a superuser's commands, or whether a file exists.
fn present(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    Path::new(tool).is_absolute() && Path::new(tool).exists() || dirs.into_iter().any(|dir| dir.join(tool).is_file())
}

/// The version of a package that apt would install afresh.
fn candidate(package: &str) -> Result<String> {
    let policy = workspace::output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    let policy = String::from_utf8_lossy(&policy).into_owned();
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version.with_context(|| format!("apt knows no package {package}"))?.to_owned())
}

fn apt(args: &[&str]) -> Result<()> {
    println!("apt-get {}", args.join(" "));
    let status = Command::new("apt-get")
        .args(["--quiet=2", "--option=DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("apt-get could not be started; tests install what they need on Debian only")?;
    if !status.success() {
        bail!("apt-get {} failed: {status}", args.join(" "));
    }
    Ok(())
}
