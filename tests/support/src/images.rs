//! Disks compared by others than Sluice.

use crate::command::{output, said};
use crate::devices::text;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Panics unless QEMU finds the disk at `source` (a device or a raw file) in the image at `target`. `driver` is QEMU's
/// name for the target's format: raw, vpc (VHD), vhdx.
pub fn assert_qemu_finds_equal(source: &Path, target: &Path, driver: &str) {
    qemu_finds_equal(source, target, driver).unwrap_or_else(|why| panic!("{why}"));
}

/// The same without a panic: says what QEMU found.
pub fn qemu_finds_equal(source: &Path, target: &Path, driver: &str) -> Result<(), String> {
    let compare = ["compare", "-U", "-f", "raw", "-F", driver, text(source), text(target)];
    let check = ["check", "-U", "-f", driver, text(target)];
    // QEMU can check no VHD, and a raw disk has nothing to be checked.
    let looks: &[&[&str]] = if driver == "vhdx" { &[&compare, &check] } else { &[&compare] };
    looks.iter().try_for_each(|arguments| {
        let looked = output("qemu-img", arguments);
        if looked.status.success() {
            Ok(())
        } else {
            Err(format!("qemu-img {}: {}", arguments.join(" "), said(&looked)))
        }
    })
}

/// True if QEMU says that they differ; panics if it can't tell.
pub fn qemu_finds_different(source: &Path, target: &Path, driver: &str) -> bool {
    let output = output("qemu-img", &["compare", "-U", "-f", "raw", "-F", driver, text(source), text(target)]);
    match output.status.code() {
        Some(0) => false,
        Some(1) => true,
        _ => panic!("qemu-img can't compare {} and {}: {}", source.display(), target.display(), said(&output)),
    }
}

/// Panics unless the bytes of `source` stand at the start of `target`, followed by zeros up to the footer of `footer`
/// bytes: a raw disk (no footer), or a fixed VHD (512).
pub fn assert_bytes_equal(source: &Path, target: &Path, footer: u64) {
    let open = |path: &Path| File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let length = |path: &Path| {
        let end = std::io::Seek::seek(&mut open(path), std::io::SeekFrom::End(0));
        end.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let (size, whole) = (length(source), length(target) - footer);
    assert!(whole >= size, "{} has {whole} bytes for a source of {size}", target.display());
    let mut source_reader = BufReader::with_capacity(1 << 20, open(source)).chain(std::io::repeat(0));
    let mut target_reader = BufReader::with_capacity(1 << 20, open(target)).take(whole);
    let (mut at, mut ours, mut theirs) = (0_u64, vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = target_reader.read(&mut theirs).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
        if count == 0 {
            break;
        }
        let read = source_reader.read_exact(&mut ours[..count]);
        read.unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        if let Some(i) = (0..count).find(|&i| ours[i] != theirs[i]) {
            panic!("{} and {} differ at byte {}", source.display(), target.display(), at + i as u64);
        }
        at += count as u64;
    }
    assert_eq!(at, whole, "all of {} was read", target.display());
}
