//! The programs that Sluice is measured beside, and those that measure.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is called, and Debian's package of it.
const PEERS: [(&str, &str); 6] = [
    ("qemu-img", "qemu-utils"),
    ("nbdkit", "nbdkit"),
    ("nbdcopy", "libnbd-bin"),
    ("rsync", "rsync"),
    ("restic", "restic"),
    ("fio", "fio"),
];

/// Installs those that are missing.
pub fn install() -> Result<()> {
    let missing: Vec<&str> =
        PEERS.into_iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    for arguments in [&["update", "-qq"][..], &[&install[..], &missing].concat()] {
        let output = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output();
        let output = output.context("apt-get")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("apt-get {}: {}{said}install {} by hand", arguments.join(" "), output.status, missing.join(" "));
        }
    }
    Ok(())
}

/// blocksync-fast, which Debian does not have: `$SLUICE_BLOCKSYNC_FAST`, else on the path. `None` where it was not
/// built.
pub fn blocksync_fast() -> Option<PathBuf> {
    match std::env::var_os("SLUICE_BLOCKSYNC_FAST").filter(|path| !path.is_empty()) {
        Some(path) => Some(PathBuf::from(path)),
        None => find("blocksync-fast"),
    }
}

/// Where a program lies, also where Debian keeps a superuser's.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.map(|folder| Path::new(&folder).join(program)).find(|path| path.is_file())
}
