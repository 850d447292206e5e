//! Writing to images in place, against a plain model.

use super::super::{FileRange, LiveImage, ReadAt, Step, WriteAt, open_as};
use super::disk::MemDisk;
use super::*;
use sluice_proto::{Extent, SECTOR_BYTES};

/// A disk as it should be: its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model(pub(super) Vec<u8>);

impl Model {
    /// A disk of so many bytes, rounded up to whole MiB, all zeros.
    pub(super) fn new(size: u64) -> Self {
        Self(vec![0; size.next_multiple_of(MIB) as usize])
    }
    pub(super) fn write(&mut self, disk: Extent, bytes: &[u8]) {
        self.0[disk.start.offset() as usize..disk.end().offset() as usize].copy_from_slice(bytes);
    }
    pub(super) fn read(&self, disk: Extent) -> &[u8] {
        &self.0[disk.start.offset() as usize..disk.end().offset() as usize]
    }
}

/// What one batch changes. The extents don't overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<(Extent, Vec<u8>)>,
    pub(super) zeros: Vec<Extent>,
}

impl Batch {
    /// `count` changes, each in a strip of the disk of its own, of at most `longest` sectors; one in five are zeros.
    pub(super) fn random(ids: &TestIds, sectors: u64, count: u64, longest: u64) -> Self {
        let mut batch = Self::default();
        let strip = sectors / count;
        for i in 0..count {
            let start = ids.below(strip);
            let disk = Extent::new(i * strip + start, (1 + ids.below(longest)).min(strip - start));
            if ids.below(5) == 0 {
                batch.zeros.push(disk);
            } else {
                batch.writes.push((disk, ids.bytes(disk.bytes().0 as usize)));
            }
        }
        batch
    }
    pub(super) fn apply(&self, model: &mut Model) {
        self.writes.iter().for_each(|(disk, bytes)| model.write(*disk, bytes));
        self.zeros.iter().for_each(|disk| model.write(*disk, &vec![0; disk.bytes().0 as usize]));
    }

    /// The batch as steps on the file: resolved, metadata before, data, metadata after.
    pub(super) fn steps(&self, reader: &dyn ReadAt, live: &mut LiveImage, ids: &TestIds) -> Vec<Step> {
        let mut data = Vec::new();
        let mut put = |range: FileRange, bytes: Vec<u8>| data.push(Step::Write(range.file_offset, bytes));
        for (disk, bytes) in &self.writes {
            for range in live.resolve_write(reader, *disk).expect("resolves") {
                let from = (range.disk.start.offset() - disk.start.offset()) as usize;
                put(range, bytes[from..from + range.disk.bytes().0 as usize].to_vec());
            }
        }
        for disk in &self.zeros {
            for range in live.resolve_present(reader, *disk).expect("resolves") {
                put(range, vec![0; range.disk.bytes().0 as usize]);
            }
        }
        let mut steps = live.steps_before_data(ids);
        steps.extend(data);
        steps.extend(live.steps_after_data(ids));
        assert_eq!(steps.last(), Some(&Step::Sync));
        steps
    }
}

/// Opens an image for writing, recovery done.
pub(super) fn open_live<F: ReadAt + WriteAt>(format: Format, file: &mut F, size: u64, ids: &TestIds) -> LiveImage {
    let image = open_as(format, file, ByteCount(size)).expect("opens");
    let (live, recovery) = LiveImage::new(image, ids);
    run_steps(file, recovery).expect("recovery");
    live
}

/// Opens an image, carries a batch out on it, and notes that in the model.
pub(super) fn put(format: Format, file: &mut MemDisk, model: &mut Model, batch: &Batch, ids: &TestIds) {
    let size = file.len();
    let mut live = open_live(format, file, size, ids);
    let steps = batch.steps(file, &mut live, ids);
    run_steps(file, steps).expect("steps");
    batch.apply(model);
}

/// Reads the whole disk and compares it with the model.
pub(super) fn assert_reads_as(format: Format, file: &dyn ReadAt, size: u64, model: &Model) {
    let image = open_as(format, file, ByteCount(size)).expect("opens");
    let sectors = image.virtual_size.sectors_ceil().0;
    for start in (0..sectors).step_by(2048) {
        let disk = Extent::new(start, 2048.min(sectors - start));
        let mut found = vec![1; disk.bytes().0 as usize];
        image.read(file, disk, &mut found).expect("reads");
        if found != model.read(disk) {
            let wrong = found.chunks(512).zip(model.read(disk).chunks(512)).position(|(found, right)| found != right);
            panic!("{format}: sector {} differs", start + wrong.unwrap_or(0) as u64);
        }
    }
}

#[test]
fn random_batches_read_back_as_the_model_says() {
    for format in Format::ALL {
        let ids = TestIds::new(7);
        let layout = new_layout(format, 21 * MIB + 512);
        let mut file = MemDisk::default();
        run_steps(&mut file, layout.steps()).expect("layout");
        let mut model = Model::new(layout.virtual_size.0);
        for round in 0..5 {
            // Opened anew each round, and within a round used for several batches.
            let size = file.len();
            let mut live = open_live(format, &mut file, size, &ids);
            for _ in 0..3 {
                let batch = Batch::random(&ids, layout.source_size.sectors_ceil().0, 1 + round * 2, 700);
                let steps = batch.steps(&file, &mut live, &ids);
                run_steps(&mut file, steps).expect("steps");
                batch.apply(&mut model);
            }
            assert_reads_as(format, &file, file.len(), &model);
        }
    }
}

/// A reader that counts.
struct Counted<'a>(&'a MemDisk, std::cell::Cell<usize>);

impl ReadAt for Counted<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.1.set(self.1.get() + 1);
        self.0.read_at(offset, buf)
    }
}

#[test]
fn who_walks_a_disk_reads_the_metadata_of_a_block_once() {
    let ids = TestIds::new(9);
    let mut file = MemDisk::default();
    run_steps(&mut file, new_layout(Format::VhdDynamic, 64 * MIB).steps()).expect("layout");
    let size = file.len();
    let mut live = open_live(Format::VhdDynamic, &mut file, size, &ids);
    let writes = (0..64).map(|mib| (Extent::new(mib * 2048, 8), vec![7; 4096])).collect();
    let steps = Batch { writes, zeros: Vec::new() }.steps(&file, &mut live, &ids);
    run_steps(&mut file, steps).expect("steps");
    let size = file.len();
    let live = open_live(Format::VhdDynamic, &mut file, size, &ids);
    let reader = Counted(&file, std::cell::Cell::new(0));
    for mib in 0..64 {
        let rest = Extent::new(mib * 2048, (64 - mib) * 2048);
        assert!(!live.resolve_present(&reader, rest).expect("resolves").is_empty());
    }
    // Blocks of 2 MiB.
    assert_eq!(reader.1.get(), 32);
}

#[test]
fn what_is_resolved_but_not_yet_in_the_table_can_be_read_back() {
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        let ids = TestIds::new(8);
        let mut file = MemDisk::default();
        run_steps(&mut file, new_layout(format, 64 * MIB).steps()).expect("layout");
        let size = file.len();
        let mut live = open_live(format, &mut file, size, &ids);
        let disk = Extent::new(4090, 20);
        assert_eq!(live.resolve_present(&file, disk).expect("in range"), []);
        let written = live.resolve_write(&file, disk).expect("in range");
        assert!(written.iter().all(|range| range.fresh), "{format}");
        assert_eq!(written.iter().map(|range| range.disk.len.0).sum::<u64>(), 20);
        let present = live.resolve_present(&file, disk).expect("in range");
        assert_eq!(present.iter().map(|range| range.disk.len.0).sum::<u64>(), 20, "{format}");
        let steps = [live.steps_before_data(&ids), live.steps_after_data(&ids)].concat();
        run_steps(&mut file, steps).expect("steps");
        assert!(live.resolve_write(&file, disk).expect("in range").iter().all(|range| !range.fresh), "{format}");
    }
}

#[test]
fn data_lies_where_direct_writes_can_reach_it() {
    for format in Format::ALL {
        let ids = TestIds::new(9);
        let mut file = MemDisk::default();
        run_steps(&mut file, new_layout(format, 64 * MIB).steps()).expect("layout");
        let size = file.len();
        let mut live = open_live(format, &mut file, size, &ids);
        for _ in 0..20 {
            let grain = ids.below(64 * MIB / 65536);
            for range in live.resolve_write(&file, Extent::new(grain * 128, 128)).expect("in range") {
                assert_eq!(range.file_offset % 4096, 0, "{format}");
                assert_eq!(range.disk.len.0 * SECTOR_BYTES, 65536, "{format}: a grain is in one piece");
            }
        }
    }
}

#[test]
fn sectors_behind_the_end_are_refused() {
    for format in Format::ALL {
        let ids = TestIds::new(10);
        let mut file = MemDisk::default();
        run_steps(&mut file, new_layout(format, MIB).steps()).expect("layout");
        let size = file.len();
        let mut live = open_live(format, &mut file, size, &ids);
        for disk in [Extent::new(2048, 1), Extent::new(2047, 2), Extent::new(u64::MAX, 1), Extent::new(1, u64::MAX)] {
            assert!(live.resolve_write(&file, disk).is_err(), "{format} {disk:?}");
            assert!(live.resolve_read(&file, disk).is_err(), "{format} {disk:?}");
        }
    }
}
