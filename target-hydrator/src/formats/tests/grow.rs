//! Images that become larger, in place: they read as before, with zeros behind, wherever the power was cut.

use super::super::{LiveImage, Step, check_growth, grow, open_as};
use super::disk::MemDisk;
use super::hostile::{VHD_BLOCK, forged_footer};
use super::in_place::{Batch, Model, assert_reads_as, open_live, put};
use super::qemu::{assert_others_read, driver, qemu_ok, text};
use super::*;
use sluice_proto::Extent;

/// An image with something in it, at both ends of the disk too. The last sectors of a dynamic VHD's blocks look like footers:
/// where a file is cut off behind a block, they are its last.
fn used_image(format: Format, size: u64, ids: &TestIds) -> (MemDisk, Model) {
    let mut file = MemDisk::default();
    run_steps(&mut file, new_layout(format, size).steps()).expect("layout");
    let mut model = Model::new(size);
    write(format, &mut file, &mut model, size / 512, ids);
    if format == Format::VhdDynamic {
        let lasts = (1..=size / VHD_BLOCK).map(|blocks| Extent::new(blocks * VHD_BLOCK / 512 - 1, 1));
        let writes = lasts.zip([true, false].into_iter().cycle()).map(|(disk, fixed)| (disk, forged_footer(fixed)));
        put(format, &mut file, &mut model, &Batch { writes: writes.collect(), zeros: vec![] }, ids);
    }
    (file, model)
}

fn write(format: Format, file: &mut MemDisk, model: &mut Model, sectors: u64, ids: &TestIds) {
    let mut batch = Batch::random(ids, sectors - 16, 5, 300);
    batch.writes.push((Extent::new(sectors - 9, 9), ids.bytes(9 * 512)));
    put(format, file, model, &batch, ids);
}

/// The steps that grow an image which is mended, as the hydrator has them.
fn steps_of(format: Format, file: &mut MemDisk, from: u64, to: u64, ids: &TestIds) -> Vec<Step> {
    if !matches!(format, Format::Raw | Format::Vhd) {
        let size = file.len();
        open_live(format, file, size, ids);
    }
    grow(format, file, ByteCount(file.len()), ByteCount(from), ByteCount(to), ids).expect("it can grow")
}

fn grown(format: Format, file: &mut MemDisk, model: &mut Model, from: u64, to: u64, ids: &TestIds) {
    let steps = steps_of(format, file, from, to, ids);
    assert!(steps.is_empty() || steps.last() == Some(&Step::Sync));
    run_steps(file, steps).expect("steps");
    model.0.resize(Model::new(to).0.len(), 0);
    assert_reads_as(format, file, file.len(), model);
}

/// As [`Model`], but a raw image is as long as its source.
fn check_size(format: Format, file: &MemDisk, size: u64) {
    let image = open_as(format, file, ByteCount(file.len())).expect("opens");
    let expected = if format == Format::Raw { size } else { size.next_multiple_of(MIB) };
    assert_eq!(image.virtual_size, ByteCount(expected), "{format}");
    assert!(image.findings.is_empty(), "{format}: {:?}", image.findings);
}

#[test]
fn images_grow_again_and_again_and_are_written_in_between() {
    // Within a MiB, within a block, by several blocks, and so far that the table of a dynamic VHD has no room.
    let sizes = [3 * MIB, 3 * MIB + 512, 4 * MIB, 4 * MIB, 9 * MIB, 11 * MIB + 1024, 270 * MIB];
    for format in Format::ALL {
        let ids = TestIds::new(21);
        let (mut file, mut model) = used_image(format, sizes[0], &ids);
        for pair in sizes.windows(2) {
            // A model is whole MiB, a raw image is not.
            let last = if format == Format::Raw { pair[1] } else { pair[1].next_multiple_of(MIB) };
            let steps = steps_of(format, &mut file, pair[0], pair[1], &ids);
            run_steps(&mut file, steps).expect("steps");
            model.0.resize(last as usize, 0);
            check_size(format, &file, pair[1]);
            assert_reads_as(format, &file, file.len(), &model);
            write(format, &mut file, &mut model, pair[1] / 512, &ids);
            assert_reads_as(format, &file, file.len(), &model);
            assert_eq!(steps_of(format, &mut file, pair[1], pair[1], &ids), [], "{format}: it is as large");
        }
    }
}

/// Power cuts after each step, and again while it is repeated.
fn cut_after_each_step(format: Format, [from, to]: [u64; 2], seed: u64) -> usize {
    let ids = TestIds::new(seed);
    let (before, old) = used_image(format, from, &ids);
    let mut new = old.clone();
    new.0.resize(Model::new(to).0.len(), 0);
    let mut file = before.clone();
    let steps = steps_of(format, &mut file, from, to, &ids);
    for (done, step) in steps.iter().enumerate() {
        run_steps(&mut file, [step.clone()]).expect("step");
        for _ in 0..4 {
            let context = format!("{format} from {from} to {to}, seed {seed}, cut after step {}", done + 1);
            let mut after = file.crashed(&ids);
            assert_old_or_new(format, &after, &old, &new, &context);
            let again = steps_of(format, &mut after, from, to, &ids);
            let until = ids.below(again.len() as u64 + 1) as usize;
            run_steps(&mut after, again[..until].to_vec()).expect("steps");
            let mut after = after.crashed(&ids);
            assert_old_or_new(format, &after, &old, &new, &format!("{context}, again after {until} more"));
            grown(format, &mut after, &mut old.clone(), from, to, &ids);
            write(format, &mut after, &mut new.clone(), to / 512, &ids);
        }
    }
    steps.len()
}

/// A raw image and a fixed VHD may be something in between; every other one is the old or the new.
fn assert_old_or_new(format: Format, file: &MemDisk, old: &Model, new: &Model, context: &str) {
    if matches!(format, Format::Raw | Format::Vhd) {
        return;
    }
    let image = open_as(format, file, ByteCount(file.len())).unwrap_or_else(|e| panic!("{context}: {e}"));
    let model = if image.virtual_size.0 == old.0.len() as u64 { old } else { new };
    assert_reads_as(format, file, file.len(), model);
}

#[test]
fn a_power_cut_after_any_step_of_growing_loses_nothing() {
    for format in Format::ALL {
        for sizes in [[3 * MIB, 4 * MIB], [5 * MIB, 9 * MIB]] {
            for seed in 0..3 {
                assert!(cut_after_each_step(format, sizes, seed) >= 2, "{format} {sizes:?}");
            }
        }
    }
}

#[test]
fn entries_behind_a_vhdx_s_disk_never_become_its_blocks() {
    let (format, ids, mut file) = (Format::VhdxDynamic, TestIds::new(33), MemDisk::default());
    run_steps(&mut file, new_layout(format, 8 * MIB).steps()).expect("layout");
    // The table begins at 3 MiB; a block has 2 MiB. This one would lie on the log.
    let mut entries = vec![0; 512];
    entries[5 * 8..6 * 8].copy_from_slice(&(MIB | 6).to_le_bytes());
    run_steps(&mut file, [Step::Write(3 * MIB, entries)]).expect("step");
    let grown = |file: &MemDisk, to| grow(format, file, ByteCount(file.len()), ByteCount(8 * MIB), ByteCount(to), &ids);
    assert!(grown(&file, 10 * MIB).is_ok(), "not looked at yet");
    let refused = grown(&file, 12 * MIB).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains("block 5")));
}

/// Reads these sectors.
fn read(format: Format, file: &MemDisk, disk: Extent) -> Vec<u8> {
    let image = open_as(format, file, ByteCount(file.len())).expect("opens");
    let mut found = vec![1; disk.bytes().0 as usize];
    image.read(file, disk, &mut found).expect("reads");
    found
}

/// So far that a VHDX's table has no room in its region of 1 MiB: it is moved, and for a fixed image out of the way again.
#[test]
fn a_table_of_a_vhdx_that_has_no_room_is_moved() {
    for (format, sizes) in [
        (Format::VhdxDynamic, [200 * MIB, 300 * GIB, 301 * GIB, 900 * GIB]),
        (Format::Vhdx, [200 * MIB, 140 * GIB, 140 * GIB + MIB, 300 * GIB]),
    ] {
        let ids = TestIds::new(31);
        let mut file = MemDisk::default();
        run_steps(&mut file, new_layout(format, sizes[0]).steps()).expect("layout");
        let mut written: Vec<(Extent, Vec<u8>)> = Vec::new();
        for (round, size) in sizes.into_iter().enumerate() {
            if round > 0 {
                let before = sizes[round - 1];
                let steps = steps_of(format, &mut file, before, size, &ids);
                let mut cut = file.clone();
                for step in steps.clone() {
                    let synced = step == Step::Sync;
                    run_steps(&mut cut, [step]).expect("step");
                    if !synced {
                        continue;
                    }
                    let mut after = cut.crashed(&ids);
                    let again = steps_of(format, &mut after, before, size, &ids);
                    run_steps(&mut after, again).expect("steps");
                    check_size(format, &after, size);
                    written.iter().for_each(|(disk, bytes)| assert!(read(format, &after, *disk) == *bytes, "{disk}"));
                    // Where the old table may have been.
                    let behind = Extent::new(before / 512, (size - before).min(16 * MIB) / 512);
                    assert!(read(format, &after, behind).iter().all(|byte| *byte == 0), "{format} {size}");
                }
                run_steps(&mut file, steps).expect("steps");
            }
            check_size(format, &file, size);
            let places = [Extent::new(7 + round as u64, 1), Extent::new(size / 512 - 3, 3)];
            let writes: Vec<_> = places.iter().map(|disk| (*disk, ids.bytes(disk.bytes().0 as usize))).collect();
            let len = file.len();
            let mut live = open_live(format, &mut file, len, &ids);
            let steps = Batch { writes: writes.clone(), zeros: vec![] }.steps(&file, &mut live, &ids);
            run_steps(&mut file, steps).expect("steps");
            written.extend(writes);
            for (disk, bytes) in &written {
                assert!(read(format, &file, *disk) == *bytes, "{format} {size}: {disk}");
            }
        }
    }
}

/// A table of 3 MiB that is full and lies 2 MiB behind the last block, and then one block more: there is no room for the new
/// table between the two.
#[test]
fn a_table_that_moves_is_never_written_over_the_one_in_force() {
    let (format, ids, mut file) = (Format::Vhdx, TestIds::new(32), MemDisk::default());
    let sizes = [200, 393_120, 393_121, 393_122, 393_123, 409_600].map(|blocks| blocks * MIB);
    run_steps(&mut file, new_layout(format, sizes[0]).steps()).expect("layout");
    for pair in sizes.windows(2) {
        for step in steps_of(format, &mut file, pair[0], pair[1], &ids) {
            let synced = step == Step::Sync;
            run_steps(&mut file, [step]).expect("step");
            if synced && pair[1] == sizes[3] {
                let image = open_as(format, &file, ByteCount(file.len())).expect("the old disk or the new one");
                assert!(pair.contains(&image.virtual_size.0));
            }
        }
        check_size(format, &file, pair[1]);
        let behind = Extent::new(pair[0] / 512, (pair[1] - pair[0]).min(16 * MIB) / 512);
        assert!(read(format, &file, behind).iter().all(|byte| *byte == 0), "{}", pair[1]);
    }
}

#[test]
fn others_read_what_has_grown() {
    let dir = tempfile::tempdir().expect("a folder");
    for format in Format::ALL {
        let ids = TestIds::new(41);
        let (from, to) = (33 * MIB, 300 * MIB);
        let (mut file, mut model) = used_image(format, from, &ids);
        grown(format, &mut file, &mut model, from, to, &ids);
        write(format, &mut file, &mut model, to / 512, &ids);
        let path = dir.path().join(format!("{format}"));
        let mut bytes = vec![0; file.len() as usize];
        super::super::ReadAt::read_at(&file, 0, &mut bytes).expect("reads");
        std::fs::write(&path, &bytes).expect("writes");
        let info = qemu_ok("qemu-img", &["info", "--output=json", "-f", driver(format), text(&path)]);
        assert!(info.contains(&format!("\"virtual-size\": {to},")), "{format}: {info}");
        assert_others_read(format, &path, &model);
    }
}

#[test]
fn what_a_format_does_not_hold_and_what_would_shrink_is_refused() {
    let refused = |format, from: u64, to: u64| {
        check_growth(format, ByteCount(from), ByteCount(to)).expect_err("refused").to_string()
    };
    for format in [Format::Vhd, Format::VhdDynamic] {
        let error = refused(format, GIB, 2041 * GIB);
        assert!(error.contains("2040 GiB") && error.contains("vhdx"), "{error}");
    }
    for format in Format::ALL {
        assert!(refused(format, GIB, GIB - 1).contains("only grows"));
    }
    assert!(refused(Format::Vhdx, GIB, 65 * TIB).contains("64 TiB"));
}

#[test]
fn an_image_that_is_not_what_it_should_be_is_not_grown() {
    let ids = TestIds::new(51);
    for format in [Format::Vhd, Format::VhdDynamic, Format::Vhdx, Format::VhdxDynamic] {
        let (mut file, _) = used_image(format, 4 * MIB, &ids);
        run_steps(&mut file, [Step::SetLen(5 * MIB / 2), Step::Sync]).expect("cut");
        let result = grow(format, &file, ByteCount(file.len()), ByteCount(4 * MIB), ByteCount(9 * MIB), &ids);
        result.expect_err("a file that was cut is damaged");
    }
    let (file, _) = used_image(Format::Vhdx, 4 * MIB, &ids);
    let error = grow(Format::Vhdx, &file, ByteCount(file.len()), ByteCount(3 * MIB), ByteCount(9 * MIB), &ids);
    assert!(error.expect_err("another disk").to_string().contains("neither"));
}

#[test]
fn a_fixed_vhd_keeps_its_id_and_its_first_size() {
    let ids = TestIds::new(61);
    let (mut file, _) = used_image(Format::Vhd, 4 * MIB, &ids);
    let before = open_as(Format::Vhd, &file, ByteCount(file.len())).expect("opens");
    let steps = steps_of(Format::Vhd, &mut file, 4 * MIB, 9 * MIB, &ids);
    run_steps(&mut file, steps).expect("steps");
    assert_eq!(file.len(), 9 * MIB + 512, "what Azure wants: the disk and the footer, nothing else");
    let after = open_as(Format::Vhd, &file, ByteCount(file.len())).expect("opens");
    assert_eq!((after.uuid, &after.facts), (before.uuid, &before.facts));
    let mut footer = [0; 512];
    super::super::ReadAt::read_at(&file, 9 * MIB, &mut footer).expect("reads");
    let number = |at: usize| u64::from_be_bytes(*footer[at..].first_chunk().expect("eight bytes"));
    assert_eq!((number(40), number(48)), (4 * MIB, 9 * MIB), "original and current size");
    let (live, recovery) = LiveImage::new(after, &ids);
    assert_eq!((live.linear_start(), recovery), (Some(0), vec![]));
}
