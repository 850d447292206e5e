//! A machine whose disks have other names after a reboot, as another disk has come before them.

use sluice_machine::Guest;
use sluice_test_support::command::is_root;
use sluice_test_support::devices::text;
use std::fs;
use std::path::{Path, PathBuf};

const SIZE: usize = 4 << 20;
const REPLICATE: &str = "/mnt/sluice replicate --tracker ebpf";

/// A disk of noise with this serial number, as QEMU takes it.
fn disk(folder: &Path, serial: &str) -> [String; 2] {
    let path = folder.join(serial);
    let noise = sluice_crash::Noise::seeded(serial.len() as u64).bytes(SIZE);
    fs::write(&path, noise).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let drive = format!("file={},format=raw,if=none,id={serial}", text(&path));
    [drive, format!("virtio-blk-pci,drive={serial},serial={serial}")]
}

fn boot(system: &Path, luggage: &Path, disks: &[&[String; 2]]) -> Guest {
    let options: Vec<&str> =
        disks.iter().flat_map(|[drive, device]| ["-drive", drive.as_str(), "-device", device.as_str()]).collect();
    Guest::boot(Some(system), luggage, &options)
}

#[test]
fn a_disk_under_another_s_name_is_not_copied_over_its_target() {
    let test = "a_disk_under_another_s_name_is_not_copied_over_its_target";
    if !is_root(test) || !Guest::can_boot(test) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let carried = folder.path().join("carried");
    fs::create_dir(&carried).expect("a folder");
    let (system, luggage): (PathBuf, PathBuf) = (Guest::system(folder.path()), Guest::luggage(&carried));
    let (data, other) = (disk(folder.path(), "data"), disk(folder.path(), "other"));

    let mut guest = boot(&system, &luggage, &[&data]);
    guest.must(&format!("{REPLICATE} /dev/vdc /var/lib/t.raw && sha256sum /var/lib/t.raw > /var/lib/sum && sync"));
    guest.reboot("systemctl reboot");

    let mut guest = boot(&system, &luggage, &[&other, &data]);
    let refused = guest.must(&format!("! {REPLICATE} /dev/vdc /var/lib/t.raw"));
    for words in ["serial data", "serial other", "it is /dev/disk/by-id/virtio-data now", "--yes"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    guest.must("sha256sum --check /var/lib/sum");
    // The right one goes on under its new name, and its target is its copy as before.
    let compared = guest.must(&format!("{REPLICATE} /dev/vdd /var/lib/t.raw"));
    assert!(compared.contains("compared"), "tracking did not outlive the reboot: {compared}");
    guest.must("sha256sum --check /var/lib/sum && /mnt/sluice verify /dev/vdd /var/lib/t.raw");
    // One that takes its place is compared too.
    guest.must(&format!("{REPLICATE} /dev/vdc /var/lib/t.raw --yes && /mnt/sluice verify /dev/vdc /var/lib/t.raw"));
    guest.must(&format!("! {REPLICATE} /dev/vdd /var/lib/t.raw"));
}
