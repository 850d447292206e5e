//! Whether this machine can track by eBPF at all.

use std::fs;
use std::path::Path;

/// Magic of a BPF file system (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Says why eBPF tracking cannot be had, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Why(pub(super) String);

/// Checks what tracking needs, and mounts the BPF file system where it is missing.
pub fn available() -> Result<(), Why> {
    if !has_capabilities() {
        return Err(Why("not allowed to use BPF: run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN".into()));
    }
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    if !btf.exists() {
        return Err(Why(format!(
            "the kernel does not describe itself ({} is missing): CONFIG_DEBUG_INFO_BTF is needed, which distributions' kernels have",
            btf.display()
        )));
    }
    super::kernel::Barrier::new().map_err(|e| Why(format!("the kernel refuses BPF: {e}")))?;
    ensure_bpffs(Path::new("/sys/fs/bpf"))
}

/// CAP_SYS_ADMIN, which mounts and opens programs by id, implies the finer ones.
fn has_capabilities() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_SYS_ADMIN & 1 == 1)
}

fn ensure_bpffs(folder: &Path) -> Result<(), Why> {
    let is_bpffs = || nix::sys::statfs::statfs(folder).is_ok_and(|stat| stat.filesystem_type().0 == BPF_FS_MAGIC);
    if is_bpffs() {
        return Ok(());
    }
    let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC;
    let mounted = nix::mount::mount(Some("bpf"), folder, Some("bpf"), flags, Some("mode=0700"));
    match mounted {
        Ok(()) if is_bpffs() => Ok(()),
        Ok(()) => Err(Why(format!("{} is no BPF file system even after mounting one", folder.display()))),
        Err(e) => Err(Why(format!("cannot mount the BPF file system on {}: {e}", folder.display()))),
    }
}
