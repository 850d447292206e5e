//! What QEMU, and two readers by other authors, make of our images.

use super::super::{ReadAt, open};
use super::disk::MemDisk;
use super::export::export;
use super::in_place::{Batch, Model, open_live};
use super::*;
use sluice_proto::Extent;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

/// Runs one of QEMU's tools; true where it exits with 0.
pub(super) fn qemu(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}. Install it: apt-get install qemu-utils"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn qemu_ok(program: &str, arguments: &[&str]) -> String {
    let (ok, text) = qemu(program, arguments);
    assert!(ok, "{program} {arguments:?}: {text}");
    text
}

/// QEMU's name for the format.
pub(super) fn driver(format: Format) -> &'static str {
    match format {
        Format::Vhd | Format::VhdDynamic => "vpc",
        Format::Vhdx | Format::VhdxDynamic => "vhdx",
        Format::Raw => "raw",
    }
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// QEMU and the second readers find exactly the model's disk in the image.
pub(super) fn assert_others_read(format: Format, path: &Path, model: &Model) {
    let raw = path.with_extension("model");
    std::fs::write(&raw, &model.0).expect("the model's file");
    qemu_ok("qemu-img", &["compare", "-f", "raw", "-F", driver(format), text(&raw), text(path)]);
    if driver(format) == "vhdx" {
        assert!(qemu_ok("qemu-img", &["check", "-f", "vhdx", text(path)]).contains("No errors"), "{format}");
    }
    let mut found = Vec::new();
    match driver(format) {
        "vpc" => vhd::VhdReader::open(path).expect("vhd-core opens").read_to_end(&mut found).expect("reads"),
        "vhdx" => vhdx::VhdxReader::open(path).expect("vhdx-core opens").read_to_end(&mut found).expect("reads"),
        _ => return,
    };
    assert!(found == model.0, "{format}: the second reader finds another disk");
}

#[test]
fn qemu_sees_the_exact_size_of_new_images() {
    let dir = tempfile::tempdir().expect("a folder");
    let sizes = [MIB, 5 * MIB + 7, 2 * GIB, 40 * GIB, 2040 * GIB, 8 * TIB];
    for format in Format::ALL {
        for size in sizes.into_iter().filter(|size| *size <= 2040 * GIB || driver(format) != "vpc") {
            let path = dir.path().join(format!("{format}-{size}"));
            let (_, layout) = new_file(&path, format, size);
            let info = qemu_ok("qemu-img", &["info", "--output=json", "-f", driver(format), text(&path)]);
            // QEMU rounds raw files up to whole sectors.
            let expected = layout.virtual_size.0.next_multiple_of(512);
            assert!(info.contains(&format!("\"virtual-size\": {expected},")), "{format} {size}: {info}");
            if driver(format) == "vhdx" {
                assert!(qemu_ok("qemu-img", &["check", "-f", "vhdx", text(&path)]).contains("No errors"), "{info}");
            }
            std::fs::remove_file(&path).expect("removes");
        }
    }
}

/// An image on disk, written to in place in several sittings.
fn written_image(dir: &Path, format: Format, size: u64, seed: u64) -> (PathBuf, Model) {
    let ids = TestIds::new(seed);
    let path = dir.join(format!("{format}-{seed}"));
    let (mut file, layout) = new_file(&path, format, size);
    let mut model = Model::new(layout.virtual_size.0);
    for round in 0..4 {
        let len = file_size(&file).0;
        let mut live = open_live(format, &mut file, len, &ids);
        for _ in 0..2 {
            let batch = Batch::random(&ids, size / 512, 3 + round * 4, 5000);
            let steps = batch.steps(&file, &mut live, &ids);
            run_steps(&mut file, steps).expect("steps");
            batch.apply(&mut model);
        }
    }
    (path, model)
}

#[test]
fn others_read_what_was_written_in_place() {
    let dir = tempfile::tempdir().expect("a folder");
    for format in Format::ALL {
        for (seed, size) in [(1, 64 * MIB), (2, 33 * MIB)] {
            let (path, model) = written_image(dir.path(), format, size, seed);
            assert_others_read(format, &path, &model);
        }
    }
}

#[test]
fn others_read_exports() {
    let dir = tempfile::tempdir().expect("a folder");
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        for writes in [0, 1, 9] {
            let mut model = Model::new(97 * MIB);
            if writes > 0 {
                Batch::random(&TestIds::new(3), 97 * 2048, writes, 5000).apply(&mut model);
            }
            let path = dir.path().join(format!("{format}-{writes}"));
            let mut file = File::create_new(&path).expect("a new file");
            export(format, 97 * MIB, &model, &mut file);
            assert_others_read(format, &path, &model);
        }
    }
}

#[test]
fn the_ends_of_large_disks_are_where_qemu_looks_for_them() {
    let dir = tempfile::tempdir().expect("a folder");
    for (format, size) in [
        (Format::Vhd, 2040 * GIB),
        (Format::VhdDynamic, 2040 * GIB),
        (Format::Vhdx, 8 * TIB),
        (Format::VhdxDynamic, 8 * TIB),
        (Format::VhdxDynamic, 4 * TIB),
        (Format::Raw, 40 * GIB),
    ] {
        let ids = TestIds::new(4);
        let path = dir.path().join(format!("{format}-{size}"));
        let (mut file, _) = new_file(&path, format, size);
        let len = file_size(&file).0;
        let mut live = open_live(format, &mut file, len, &ids);
        let sectors = size / 512;
        let places = [0, sectors / 3, sectors / 2 + 1, sectors - 8].map(|start| Extent::new(start, 8));
        let writes = places.iter().zip(1..).map(|(disk, byte)| (*disk, vec![byte; 4096])).collect();
        let steps = Batch { writes, zeros: vec![] }.steps(&file, &mut live, &ids);
        run_steps(&mut file, steps).expect("steps");
        for (disk, byte) in places.iter().zip(1..) {
            let read = format!("read -P {byte} {} 4096", disk.start.offset());
            let found = qemu_ok("qemu-io", &["-r", "-f", driver(format), "-c", &read, text(&path)]);
            assert!(!found.contains("failed"), "{format} {size}: {found}");
        }
        std::fs::remove_file(&path).expect("removes");
    }
}

/// vhdx-core is not asked before: it looks for a log entry's data where MS-VHDX does not put it.
#[test]
fn qemu_applies_the_log_that_a_power_cut_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = 24 * MIB;
    let ids = TestIds::new(5);
    let mut file = MemDisk::default();
    run_steps(&mut file, new_layout(Format::VhdxDynamic, size).steps()).expect("layout");
    let len = file.len();
    let mut live = open_live(Format::VhdxDynamic, &mut file, len, &ids);
    let batch = Batch::random(&ids, size / 512, 6, 2000);
    let mut model = Model::new(size);
    batch.apply(&mut model);
    let mut logs = 0;
    for (number, step) in batch.steps(&file, &mut live, &ids).into_iter().enumerate() {
        run_steps(&mut file, [step]).expect("step");
        // The file as a power cut leaves it that loses all that wasn't synced.
        let cut = file.cut();
        let image = open(&cut, ByteCount(cut.len())).expect("opens");
        if !image.findings.iter().any(|finding| finding.text.contains("its log holds")) {
            continue;
        }
        logs += 1;
        let path = dir.path().join(format!("log-{number}"));
        let mut bytes = vec![0; cut.len() as usize];
        cut.read_at(0, &mut bytes).expect("reads");
        std::fs::write(&path, &bytes).expect("writes");
        qemu_ok("qemu-img", &["check", "-r", "all", "-f", "vhdx", text(&path)]);
        assert_others_read(Format::VhdxDynamic, &path, &model);
    }
    assert!(logs >= 2, "only {logs} cuts left a log");
}
