//! Power cuts between and within the steps: the image opens, and what was not written is as before.

use super::super::{LiveImage, Step, open_as};
use super::disk::MemDisk;
use super::in_place::{Batch, Model, assert_reads_as, open_live};
use super::*;
use sluice_proto::Extent;

const DISK: u64 = 12 * MIB;

/// An image with something in it.
fn used_image(format: Format, ids: &TestIds) -> (MemDisk, Model) {
    let mut file = MemDisk::default();
    let mut model = Model::new(DISK);
    run_steps(&mut file, new_layout(format, DISK).steps()).expect("layout");
    let size = file.len();
    let mut live = open_live(format, &mut file, size, ids);
    let batch = Batch::random(ids, DISK / 512, 4, 300);
    let steps = batch.steps(&file, &mut live, ids);
    run_steps(&mut file, steps).expect("steps");
    batch.apply(&mut model);
    (file, model)
}

/// Every sector of the disk is as before the batch or, where the batch wrote, as after it.
fn assert_old_or_new(format: Format, file: &MemDisk, old: &Model, new: &Model, context: &str) {
    let image = open_as(format, file, ByteCount(file.len())).unwrap_or_else(|e| panic!("{format} {context}: {e}"));
    for start in (0..DISK / 512).step_by(2048) {
        let disk = Extent::new(start, 2048);
        let mut found = vec![1; disk.bytes().0 as usize];
        image.read(file, disk, &mut found).unwrap_or_else(|e| panic!("{format} {context}: {e}"));
        let (old, new) = (old.read(disk), new.read(disk));
        if found == old || found == new {
            continue;
        }
        let pairs = old.chunks(512).zip(new.chunks(512)).zip(found.chunks(512)).enumerate();
        for (i, ((old, new), found)) in pairs {
            assert!(found == old || found == new, "{format} {context}: sector {} is neither", start + i as u64);
        }
    }
}

/// Runs a batch with a power cut after each of its steps; returns how many there were.
fn cut_after_each_step(format: Format, seed: u64) -> usize {
    let ids = TestIds::new(seed);
    let (before, old) = used_image(format, &ids);
    let mut file = before.clone();
    let size = file.len();
    let mut live = open_live(format, &mut file, size, &ids);
    let batch = Batch::random(&ids, DISK / 512, 6, 300);
    let mut new = old.clone();
    batch.apply(&mut new);
    let steps = batch.steps(&file, &mut live, &ids);
    for (done, step) in steps.iter().enumerate() {
        run_steps(&mut file, [step.clone()]).expect("step");
        for _ in 0..3 {
            let mut after = file.crashed(&ids);
            let context = format!("seed {seed}, cut after step {} of {}", done + 1, steps.len());
            assert_old_or_new(format, &after, &old, &new, &context);
            // The batch again, as the hydrator does it, with another power cut during the recovery.
            let image = open_as(format, &after, ByteCount(after.len())).expect("opens");
            let (_, recovery) = LiveImage::new(image, &ids);
            let until = ids.below(recovery.len() as u64 + 1) as usize;
            run_steps(&mut after, recovery[..until].to_vec()).expect("recovery");
            let mut after = after.crashed(&ids);
            assert_old_or_new(format, &after, &old, &new, &format!("{context}, again after {until} steps of recovery"));
            let size = after.len();
            let mut live = open_live(format, &mut after, size, &ids);
            let again = batch.steps(&after, &mut live, &ids);
            run_steps(&mut after, again).expect("steps");
            assert_reads_as(format, &after, after.len(), &new);
        }
    }
    steps.len()
}

#[test]
fn a_power_cut_after_any_step_leaves_a_valid_image() {
    for format in Format::ALL {
        for seed in 0..if format.is_dynamic() { 6 } else { 1 } {
            assert!(cut_after_each_step(format, seed) > 3);
        }
    }
}

#[test]
fn space_that_a_crash_left_behind_reads_as_zeros_when_it_is_used() {
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        let ids = TestIds::new(11);
        let mut file = MemDisk::default();
        run_steps(&mut file, new_layout(format, DISK).steps()).expect("layout");
        let empty = file.len();
        let mut live = open_live(format, &mut file, empty, &ids);
        let all = Extent::new(0, 4096);
        let batch = Batch { writes: vec![(all, vec![0xaa; all.bytes().0 as usize])], zeros: vec![] };
        let mut steps = batch.steps(&file, &mut live, &ids);
        // All data is in the file, the table knows nothing of it.
        let data = steps.iter().rposition(|s| matches!(s, Step::Write(_, b) if b.len() > 1 << 20)).expect("data");
        steps.truncate(data + 2);
        run_steps(&mut file, steps).expect("steps");
        assert_reads_as(format, &file, file.len(), &Model::new(DISK));
        let size = file.len();
        let mut live = open_live(format, &mut file, size, &ids);
        assert_eq!(file.len(), empty, "{format}: the space is given back");
        let mut model = Model::new(DISK);
        let batch = Batch { writes: vec![(Extent::new(5, 1), vec![0x55; 512])], zeros: vec![] };
        let steps = batch.steps(&file, &mut live, &ids);
        run_steps(&mut file, steps).expect("steps");
        batch.apply(&mut model);
        assert_reads_as(format, &file, file.len(), &model);
    }
}

#[test]
fn creating_an_image_that_is_cut_short_leaves_none() {
    for format in [Format::VhdDynamic, Format::Vhdx, Format::VhdxDynamic] {
        let ids = TestIds::new(12);
        let layout = new_layout(format, DISK);
        let steps: Vec<_> = layout.steps().collect();
        for done in 0..steps.len() {
            let mut file = MemDisk::default();
            run_steps(&mut file, steps[..done].to_vec()).expect("steps");
            let file = file.crashed(&ids);
            if let Ok(image) = open_as(format, &file, ByteCount(file.len())) {
                assert_eq!(image.virtual_size, layout.virtual_size);
                assert_reads_as(format, &file, file.len(), &Model::new(DISK));
            }
        }
    }
}

#[test]
fn a_batch_with_more_table_pages_than_a_log_entry_holds_survives_cuts() {
    let ids = TestIds::new(13);
    let mut file = MemDisk::default();
    run_steps(&mut file, new_layout(Format::VhdxDynamic, 600 * GIB).steps()).expect("layout");
    let size = file.len();
    let mut live = open_live(Format::VhdxDynamic, &mut file, size, &ids);
    // A page of the table holds 512 blocks of 2 MiB: one write in each GiB.
    let places: Vec<_> = (0..600).map(|gib| Extent::new(gib * GIB / 512 + 5, 1)).collect();
    let writes = places.iter().map(|disk| (*disk, ids.bytes(512))).collect();
    let batch = Batch { writes, zeros: vec![] };
    let (mut logs, mut buf) = (0, vec![0; 512]);
    for step in batch.steps(&file, &mut live, &ids) {
        let synced = step == Step::Sync;
        run_steps(&mut file, [step]).expect("step");
        if !synced {
            continue;
        }
        let cut = file.cut();
        let image = open_as(Format::VhdxDynamic, &cut, ByteCount(cut.len())).expect("opens");
        logs += usize::from(image.findings.iter().any(|finding| finding.text.contains("its log holds")));
        for (disk, bytes) in &batch.writes {
            image.read(&cut, *disk, &mut buf).expect("reads");
            assert!(buf == *bytes || buf == [0; 512], "{disk}");
        }
    }
    assert!(logs >= 6, "{logs} cuts left a log: fewer than two for each of three entries");
    let image = open_as(Format::VhdxDynamic, &file, ByteCount(file.len())).expect("opens");
    for (disk, bytes) in &batch.writes {
        image.read(&file, *disk, &mut buf).expect("reads");
        assert_eq!(&buf, bytes, "{disk}");
    }
}
