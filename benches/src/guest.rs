//! The tracker beside dm-era, in a guest: this machine's kernel need not have device mapper, Debian's has.
//!
//! The guest is emulated, so that times mean nothing; what is compared is what is left of the IOPS. Three disks in the
//! guest's memory are written to in turn: one plain, one tracked by Sluice, one under dm-era. dm-era's eras are
//! compared twice: while one goes on, and right after a new one has begun, as it would with every cycle.

use crate::bench::Plan;
use crate::measure::{command, note_command, quiet};
use crate::report::{Measured, Side};
use crate::tracker::{LEFT_MIN, fio_arguments, parse_fio};
use anyhow::{Context, Result, bail};
use sluice_test_support::command::run as must;
use sluice_test_support::devices::text;
use sluice_test_support::program::{cargo, sluice};
use sluice_test_support::vm::{self, Vm, Writes};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that a command in the guest may take; it is emulated, and others may be at work too.
const PATIENCE: Duration = Duration::from_secs(300);
/// Rounds, each with all contenders.
const ROUNDS: u32 = 7;
/// Each disk's size in KiB, and where it only is to be seen that all runs; there are four of them, in 1 GiB of memory.
const DISK_KIB: u64 = 64 << 10;
const DISK_KIB_TINY: u64 = 16 << 10;
/// What dm-era notes a write by, in sectors: 64 KiB, the least that its tools advise.
const ERA_BLOCK: u64 = 128;

/// Contenders, and the disk of each.
const PLAIN: (&str, &str) = ("plain", "/dev/ram0");
const TRACKED: (&str, &str) = ("with Sluice's tracker", "/dev/ram1");
const ERA: (&str, &str) = ("with dm-era, within an era", "/dev/mapper/era");
const NEW_ERA: (&str, &str) = ("with dm-era, from an era's beginning", "/dev/mapper/era");

/// The row of what both leave.
const OVER_ERA: &str = "IOPS with Sluice's tracker over those with dm-era, within an era";

/// Whether there is an image to boot.
pub fn can_boot() -> bool {
    vm::named_image().is_some() || vm::built_image().exists()
}

/// Makes what is missing: the guest's image and QEMU; nothing where `SLUICE_VM_IMAGE` names an image.
pub fn provide() -> Result<()> {
    if vm::named_image().is_some() {
        return Ok(());
    }
    for chore in ["tools", "vm-image"] {
        let mut xtask = cargo();
        xtask.args(["xtask", chore]);
        quiet(xtask).with_context(|| format!("cargo xtask {chore}"))?;
    }
    Ok(())
}

/// Runs it.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    if !can_boot() {
        bail!("there is no guest to boot: `cargo xtask tools` and `cargo xtask vm-image` make one");
    }
    let folder = tempfile::Builder::new().prefix("guest-").tempdir_in(&plan.folder)?;
    let luggage = luggage(folder.path())?;
    let drive = format!("file={},format=raw,if=none,id=luggage,readonly=on", luggage.display());
    let more = ["-m", "1024", "-drive", &drive, "-device", "virtio-blk-pci,drive=luggage"];
    let mut guest = Vm::boot(&vm::image(), "raw", Writes::Discarded, &more);
    prepare(&mut guest, if plan.tiny { DISK_KIB_TINY } else { DISK_KIB })?;
    let kernel = guest.must("uname -r", PATIENCE);
    measured.note(format!(
        "a guest in QEMU, emulated, Linux {kernel}; disks in its memory; random writes of 4 KiB, depth 32"
    ));
    let seconds = plan.seconds(3);
    for round in 0..plan.rounds(ROUNDS) {
        let mut contenders = vec![PLAIN, TRACKED, ERA, NEW_ERA];
        contenders.rotate_left(round as usize % 4);
        let mut iops = Vec::new();
        for contender @ (name, device) in contenders {
            if contender == NEW_ERA {
                guest.must("dmsetup message era 0 checkpoint", PATIENCE);
            }
            let printed = guest.must(&fio(device, seconds), PATIENCE);
            let json = printed.get(printed.find('{').context("fio prints JSON")?..).unwrap_or_default();
            let told = parse_fio(json)?;
            measured.add(&format!("IOPS {name}"), "k/s", told / 1000.0);
            iops.push((name, told));
        }
        let of = |wanted: &str| iops.iter().find(|(name, _)| *name == wanted).map_or(f64::NAN, |(_, told)| *told);
        for (name, _) in [TRACKED, ERA, NEW_ERA] {
            measured.add(&format!("IOPS {name} over plain"), "x", of(name) / of(PLAIN.0));
        }
        measured.add(OVER_ERA, "x", of(TRACKED.0) / of(ERA.0));
    }
    measured.promise("3", &format!("IOPS {} over plain", TRACKED.0), Side::AtLeast, LEFT_MIN);
    measured.promise("3", OVER_ERA, Side::AtLeast, 1.0);
    let bars = [TRACKED, ERA, NEW_ERA].map(|(name, _)| format!("IOPS {name} over plain"));
    let bars: Vec<&str> = bars.iter().map(String::as_str).collect();
    measured.bars("dm-era", "Random writes of 4 KiB at depth 32 in a guest, IOPS over plain", &bars);
    Ok(())
}

/// A disk with what the guest does not have: `sluice`, and `fio` with all that it is linked to.
fn luggage(folder: &Path) -> Result<PathBuf> {
    let carried = folder.join("luggage");
    fs::create_dir_all(carried.join("lib"))?;
    fs::copy(sluice(), carried.join("sluice"))?;
    let fio = must("sh", &["-c", "command -v fio"]);
    fs::copy(&fio, carried.join("fio"))?;
    for word in must("ldd", &[&fio]).split_whitespace().filter(|word| word.starts_with('/')) {
        let name = Path::new(word).file_name().context("a library has a name")?;
        fs::copy(word, carried.join("lib").join(name))?;
    }
    let image = folder.join("luggage.img");
    let kib = must("du", &["-sk", text(&carried)]);
    let kib: u64 = kib.split_whitespace().next().and_then(|word| word.parse().ok()).context("du tells a size")?;
    let size = format!("{}k", kib + kib / 8 + (16 << 10));
    quiet(command("mke2fs", &["-q", "-F", "-t", "ext4", "-d", text(&carried), text(&image), &size]))?;
    fs::remove_dir_all(carried)?;
    Ok(image)
}

/// Four disks in memory: three for the contenders, one for what dm-era notes. All have been written once.
fn prepare(guest: &mut Vm, kib: u64) -> Result<()> {
    let sectors = kib * 2;
    for step in [
        "mount -o ro /dev/vdb /mnt".to_owned(),
        format!("modprobe brd rd_nr=4 rd_size={kib} && modprobe dm-era"),
        "for i in 0 1 2; do dd if=/dev/urandom of=/dev/ram$i bs=1M; done 2>/dev/null; true".to_owned(),
        "dd if=/dev/zero of=/dev/ram3 bs=1M count=4 2>/dev/null; sync".to_owned(),
        format!("dmsetup create era --table '0 {sectors} era /dev/ram3 /dev/ram2 {ERA_BLOCK}'"),
        // Tracking goes on when it has ended.
        "/mnt/sluice replicate /dev/ram1 /tmp/copy.raw --tracker ebpf".to_owned(),
        "test -n \"$(ls /sys/fs/bpf/sluice)\"".to_owned(),
    ] {
        note_command(&format!("in the guest: {step}"));
        let (code, said) = guest.run(&step, PATIENCE);
        // dd ends at the disk's end, which it calls an error; the step's last command counts.
        if code != 0 {
            bail!("in the guest `{step}`: {said}");
        }
    }
    Ok(())
}

fn fio(device: &str, seconds: u64) -> String {
    let arguments = fio_arguments(Path::new(device), 32, seconds, "randwrite", "4k").join(" ");
    note_command(&format!("in the guest: fio {arguments}"));
    format!("/mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib /mnt/fio {arguments}")
}
