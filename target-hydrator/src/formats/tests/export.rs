//! Exports: one pass into a new file.

use super::super::{Exporter, open_as};
use super::disk::MemDisk;
use super::in_place::{Batch, Model, assert_reads_as};
use super::*;

/// Exports the model's disk.
pub(super) fn export(format: Format, size: u64, model: &Model, file: &mut dyn super::super::WriteAt) {
    let mut exporter = Exporter::new(format, ByteCount(size), &TestIds::new(30), NOW_MS).expect("begins");
    while let Some(piece) = exporter.next_piece() {
        exporter.put(piece, model.read(piece), file).expect("puts");
    }
    exporter.finish(file).expect("finishes");
}

#[test]
fn an_export_holds_the_disk_and_leaves_zeros_out() {
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        for writes in [0, 1, 7] {
            let size = 120 * MIB - 512;
            let mut model = Model::new(size);
            if writes > 0 {
                Batch::random(&TestIds::new(31), size / 512, writes, 900).apply(&mut model);
            }
            let mut file = MemDisk::default();
            export(format, size, &model, &mut file);
            assert_reads_as(format, &file, file.len(), &model);
            let image = open_as(format, &file, ByteCount(file.len())).expect("opens");
            assert_eq!(image.findings, [], "{format}");
            assert!(file.len() < (5 + 4 * writes) * MIB, "{format}: {} bytes for {writes} writes", file.len());
        }
    }
}

#[test]
fn an_unfinished_export_is_no_image() {
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        let mut file = MemDisk::default();
        let mut exporter = Exporter::new(format, ByteCount(8 * MIB), &TestIds::new(30), NOW_MS).expect("begins");
        while let Some(piece) = exporter.next_piece() {
            exporter.put(piece, &vec![7; piece.bytes().0 as usize], &mut file).expect("puts");
            assert!(open_as(format, &file, ByteCount(file.len())).is_err(), "{format}");
        }
        exporter.finish(&mut file).expect("finishes");
        assert!(open_as(format, &file, ByteCount(file.len())).is_ok(), "{format}");
    }
}

#[test]
fn only_dynamic_formats_are_exported_and_pieces_come_in_order() {
    for format in [Format::Raw, Format::Vhd, Format::Vhdx] {
        assert!(Exporter::new(format, ByteCount(MIB), &TestIds::new(30), NOW_MS).is_err());
    }
    let mut file = MemDisk::default();
    let mut exporter = Exporter::new(Format::VhdDynamic, ByteCount(8 * MIB), &TestIds::new(30), NOW_MS).expect("ok");
    let first = exporter.next_piece().expect("a piece");
    let bytes = vec![1; first.bytes().0 as usize];
    assert!(exporter.put(first, &bytes[..512], &mut file).is_err());
    exporter.put(first, &bytes, &mut file).expect("the first");
    assert!(exporter.put(first, &bytes, &mut file).is_err());
}
