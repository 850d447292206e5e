//! A guest with Debian's kernel, Sluice on a disk of its own, and a monitor.

use crate::Monitor;
use sluice_test_support::command::run;
use sluice_test_support::devices::text;
use sluice_test_support::program::sluice;
use sluice_test_support::vm::{self, Vm, Writes};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that a command in the guest may take; it is emulated, and others are at work too.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The host as the guest sees it over QEMU's own network.
pub const HOST: &str = "10.0.2.2";

/// A running guest. Its disks are `/dev/vda` (its own), `/dev/vdb` (mounted at `/mnt`: Sluice and what else it was
/// given), and from `/dev/vdc` on those of the scenario.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
    /// To plug disks.
    pub monitor: Monitor,
}

impl Guest {
    /// True where the image of a guest was built, which `cargo xtask test` does; else says that `test` did not run.
    pub fn can_boot(test: &str) -> bool {
        let can = std::env::var_os("SLUICE_VM_IMAGE").is_some();
        if !can {
            eprintln!(
                "SKIPPED {test}: `cargo xtask test` builds the image that this needs, and names it in SLUICE_VM_IMAGE"
            );
        }
        can
    }

    /// Makes the disk that carries `sluice`, and whatever else is in `folder` already, into the guest.
    pub fn luggage(folder: &Path) -> PathBuf {
        let program = folder.join("sluice");
        fs::copy(sluice(), &program).unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let kib = fs::metadata(&program).expect("a copied file").len() / 1024 + (16 << 10);
        let image = folder.with_extension("img");
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", text(folder), text(&image), &format!("{kib}k")]);
        image
    }

    /// A disk for a guest's own system, on which it can write and which is there after a reboot.
    pub fn system(folder: &Path) -> PathBuf {
        let overlay = folder.join("system.qcow2");
        let base = vm::image().canonicalize().expect("the image is there");
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", text(&base), "-F", "raw", text(&overlay)]);
        overlay
    }

    /// Boots the system that [`Guest::system`] made, or, with none, the common one, whose writes go when it ends. `disks`
    /// goes to QEMU as it is.
    pub fn boot(system: Option<&Path>, luggage: &Path, disks: &[&str]) -> Self {
        let folder = luggage.parent().expect("a file lies in a folder");
        let socket = folder.join("monitor");
        let monitor = format!("unix:{},server=on,wait=off", socket.display());
        let carried = format!("file={},format=raw,if=none,id=luggage,readonly=on", luggage.display());
        let more = ["-m", "1024", "-qmp", &monitor, "-drive", &carried, "-device", "virtio-blk-pci,drive=luggage"];
        // Without a network that leads anywhere but to this machine.
        let network = ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"];
        let more = [&more[..], &network, disks].concat();
        let mut vm = match system {
            Some(system) => Vm::boot(system, "qcow2", Writes::Kept, &more),
            None => Vm::boot(&vm::image(), "raw", Writes::Discarded, &more),
        };
        vm.must("mount -o ro /dev/vdb /mnt", PATIENCE);
        Self { vm, monitor: Monitor::connect(&socket) }
    }

    /// Runs a command of one line that must succeed; what it printed.
    pub fn must(&mut self, command: &str) -> String {
        self.vm.must(command, PATIENCE)
    }

    /// Reboots in good order, or as `command` says, and waits for the end: it is to be booted again.
    pub fn reboot(self, command: &str) {
        self.vm.end_by(command, PATIENCE);
    }
}
