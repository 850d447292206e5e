//! Images that QEMU made or wrote to, in our hands.

use super::super::open;
use super::in_place::{Batch, Model, assert_reads_as, open_live};
use super::qemu::{assert_others_read, driver, qemu_ok, text};
use super::*;
use sluice_proto::Extent;
use std::path::PathBuf;

const DISK: u64 = 48 * MIB;

/// A raw file with a model in it, and both.
fn raw_model(dir: &Path) -> (PathBuf, Model) {
    let mut model = Model::new(DISK);
    Batch::random(&TestIds::new(40), DISK / 512, 7, 9000).apply(&mut model);
    let raw = dir.join("model.raw");
    std::fs::write(&raw, &model.0).expect("writes");
    (raw, model)
}

#[test]
fn images_that_qemu_made_open_and_can_be_written_in_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let (raw, model) = raw_model(dir.path());
    for (format, options) in [
        (Format::Vhd, "subformat=fixed,force_size=on"),
        (Format::VhdDynamic, "subformat=dynamic,force_size=on"),
        // QEMU calls it fixed, but allocates its blocks as they are written.
        (Format::VhdxDynamic, "subformat=fixed"),
        (Format::Vhdx, "subformat=fixed,block_state_zero=off"),
        (Format::VhdxDynamic, "subformat=dynamic"),
        (Format::VhdxDynamic, "subformat=dynamic,block_size=1048576,block_state_zero=off"),
    ] {
        let ids = TestIds::new(41);
        let mut model = model.clone();
        let path = dir.path().join(format!("{format}-{}", options.len()));
        qemu_ok("qemu-img", &["convert", "-f", "raw", "-O", driver(format), "-o", options, text(&raw), text(&path)]);
        let mut file = File::options().read(true).write(true).open(&path).expect("opens");
        let image = open(&file, file_size(&file)).expect("opens");
        assert_eq!((image.format, image.virtual_size), (format, ByteCount(DISK)), "{options}");
        assert_reads_as(format, &file, file_size(&file).0, &model);

        let len = file_size(&file).0;
        let mut live = open_live(format, &mut file, len, &ids);
        for _ in 0..3 {
            let batch = Batch::random(&ids, DISK / 512, 11, 3000);
            let steps = batch.steps(&file, &mut live, &ids);
            run_steps(&mut file, steps).expect("steps");
            batch.apply(&mut model);
        }
        assert_reads_as(format, &file, file_size(&file).0, &model);
        assert_others_read(format, &path, &model);
    }
}

#[test]
fn what_qemu_writes_into_our_images_is_read_by_us() {
    let dir = tempfile::tempdir().expect("a folder");
    for format in Format::ALL {
        let ids = TestIds::new(42);
        let path = dir.path().join(format.name());
        let (file, _) = new_file(&path, format, DISK);
        let mut model = Model::new(DISK);
        let mut commands = Vec::new();
        for byte in 1..40_u8 {
            let start = ids.below(DISK / 512 - 300);
            let disk = Extent::new(start, 1 + ids.below(300));
            model.write(disk, &vec![byte; disk.bytes().0 as usize]);
            commands.extend(["-c".into(), format!("write -P {byte} {} {}", start * 512, disk.bytes().0)]);
        }
        let mut arguments = vec!["-f", driver(format)];
        arguments.extend(commands.iter().map(String::as_str));
        arguments.push(text(&path));
        qemu_ok("qemu-io", &arguments);
        assert_reads_as(format, &file, file_size(&file).0, &model);
    }
}

#[test]
fn differencing_disks_are_refused_with_advice() {
    let layout = new_layout(Format::Vhd, MIB);
    let mut bytes = vec![0; layout.file_size.0 as usize];
    let (at, footer) = layout.tail.as_ref().expect("a footer");
    let footer_at = *at as usize;
    bytes[footer_at..].copy_from_slice(footer);
    bytes[footer_at + 63] = 4;
    super::hostile::mend_vhd(&mut bytes[footer_at..], 64);
    let error = open(&&bytes[..], layout.file_size).expect_err("refused");
    assert_eq!(error.to_string(), "a differencing VHD: merge it into its parent first");
}
