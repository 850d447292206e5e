//! Disk images: templates that the product made, patches that an input lays over them, and what must hold of any image
//! that opens, whoever made it.

use crate::fields::{Fields, flag};
use crate::sparse::Sparse;
use sluice_hydrator::formats::{
    Format, Layout, LiveImage, OpenedImage, ReadRange, Step, grow, open, open_as, run_steps,
};
use sluice_proto::env::Entropy;
use sluice_proto::{ByteCount, Extent, SECTOR_BYTES};

/// By how much images are made larger.
const GROWN_BYTES: u64 = 5 << 20;

/// What tests and templates take for random: the same in every run.
pub struct Ids;

impl Entropy for Ids {
    fn fill(&self, out: &mut [u8]) {
        out.fill(0x5a);
    }
}

/// Sectors that are read and written at each place that is looked at.
const LOOK_SECTORS: u64 = 24;
/// A disk's sectors cost nothing, but steps that write zeros one by one do: what an image may ask for in one go.
const STEP_BYTES_MAX: usize = 160 << 20;

/// A new image of `size` bytes in which `extents` were written; only the first `steps_max` steps of that were done.
pub fn template(format: Format, size: u64, extents: &[Extent], steps_max: usize) -> Sparse {
    let mut file = Sparse::default();
    let layout = Layout::create(format, ByteCount(size), &Ids, 1_795_132_800_000).expect("a layout");
    run_steps(&mut file, layout.steps()).expect("a file in memory");
    let image = open_as(format, &file, ByteCount(file.len())).expect("a new image");
    let (mut live, _) = LiveImage::new(image, &Ids);
    let steps = write(&file, &mut live, extents, 1);
    run_steps(&mut file, steps.into_iter().flatten().take(steps_max)).expect("a file in memory");
    file
}

/// All steps that write these sectors, data included; `None` where the image refuses them.
fn write(file: &Sparse, live: &mut LiveImage, extents: &[Extent], value: u8) -> Option<Vec<Step>> {
    let mut data = Vec::new();
    for extent in extents {
        for range in live.resolve_write(file, *extent).ok()? {
            let len = range.disk.bytes().0.min(live.virtual_size().0 - range.disk.start.offset());
            data.push(Step::Write(range.file_offset, vec![value; len as usize]));
        }
    }
    let mut steps = live.steps_before_data(&Ids);
    steps.extend(data);
    steps.extend(live.steps_after_data(&Ids));
    Some(steps)
}

/// Lays patches over a template: each is a place, a distance from it, a length and bytes.
pub fn patch(file: &mut Sparse, fields: &mut Fields<'_>, places: &[u64]) {
    let flags = fields.u8();
    if flag(flags, 0) {
        let len = fields.number();
        file.resize(if flag(flags, 1) { file.len().wrapping_add(len) } else { len }.min(1 << 48));
    }
    while !fields.is_empty() {
        let place = usize::from(fields.u8());
        let from = match places.get(place % (places.len() + 1)) {
            Some(place) => *place,
            None => file.len().saturating_sub(SECTOR_BYTES),
        };
        let at = from.wrapping_add(fields.number());
        let how = fields.u8();
        match how {
            0..=63 => file.put(at, fields.bytes(usize::from(how) + 1)),
            // Numbers as the tables hold them.
            64..=127 => file.put(at, &fields.number().to_le_bytes()),
            128..=191 => file.put(at, &fields.number().to_be_bytes()[usize::from(how & 1) * 4..]),
            _ => file.put(at, &vec![fields.u8(); usize::from(how & 63) * 64]),
        }
    }
}

/// Opens the image in every way; what opens must be readable by its own map, stay whole when it is mended and when it is
/// written to, and show then what was written and nothing else.
pub fn use_it(file: &Sparse) {
    let size = ByteCount(file.len());
    if let Ok(image) = open(file, size)
        && image.format != Format::Raw
    {
        let format = image.format;
        look(&image, file);
        drop(image);
        live(format, file);
    }
    for format in Format::ALL {
        drop(open_as(format, file, size).map(|image| image.findings.len() + image.facts.len()));
    }
}

/// First, middle and last sectors of a disk.
fn places(size: ByteCount) -> [Extent; 3] {
    let sectors = size.sectors_ceil().0;
    let len = sectors.min(LOOK_SECTORS);
    [0, sectors / 2, sectors].map(|at| Extent::new(at.min(sectors - len), len))
}

/// What each place reads; `None` where the file ends before.
fn contents(image: &OpenedImage, file: &Sparse) -> [Option<Vec<u8>>; 3] {
    places(image.virtual_size).map(|place| {
        let mut bytes = vec![0; place.bytes().0 as usize];
        image.read(file, place, &mut bytes).ok().map(|()| bytes)
    })
}

fn look(image: &OpenedImage, file: &Sparse) {
    let sectors = image.virtual_size.sectors_ceil().0;
    assert!(image.resolve_read(file, Extent::new(sectors, 1)).is_err(), "a sector behind the disk's end");
    for place in places(image.virtual_size) {
        let Ok(ranges) = image.resolve_read(file, place) else { continue };
        check(&ranges, place);
    }
}

/// Ranges follow each other over the whole place, within any file that can be.
fn check(ranges: &[ReadRange], place: Extent) {
    let mut next = place.start;
    for range in ranges {
        assert!(range.disk.start == next && !range.disk.is_empty(), "{ranges:?} for {place:?}");
        next = range.disk.end();
        let end = range.file_offset.map(|at| at.checked_add(range.disk.bytes().0));
        assert!(end.is_none_or(|end| end.is_some_and(|end| end <= (80 << 40) + SECTOR_BYTES)), "a range at {end:?}");
    }
    assert_eq!(next, place.end(), "{ranges:?} for {place:?}");
}

/// Mends the image as its first writer would, then writes to it, and makes it larger.
fn live(format: Format, file: &Sparse) {
    let mut file = file.clone();
    let image = open_as(format, &file, ByteCount(file.len())).expect("it was opened before");
    let before = contents(&image, &file);
    let size = image.virtual_size;
    let (mut live, steps) = LiveImage::new(image, &Ids);
    if !do_steps(&mut file, steps) {
        return;
    }
    let mended = again(format, &file, "after it was mended");
    assert_eq!(mended.virtual_size, size);
    same(&before, &contents(&mended, &file), "mending");
    let [first, middle, last] = places(size);
    let Some(steps) = write(&file, &mut live, &[first], 0xa7) else { return };
    if !do_steps(&mut file, steps) {
        return;
    }
    let written = again(format, &file, "after it was written to");
    let after = contents(&written, &file);
    if written.virtual_size.0.is_multiple_of(SECTOR_BYTES) {
        let [now, ..] = &after;
        assert!(now.as_ref().is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0xa7)), "not what was written");
    }
    for (place, (before, after)) in [middle, last].iter().zip(before.iter().zip(&after).skip(1)) {
        if place.intersect(first).is_none() && before.is_some() {
            assert!(before == after, "writing sector 0 changed {place:?}");
        }
    }
    larger(written, &mut file);
}

/// Makes an image that is whole larger; its disk stays what it was. What is new may be what lay behind the image's end.
fn larger(image: OpenedImage, file: &mut Sparse) {
    let (format, size, before) = (image.format, image.virtual_size, contents(&image, file));
    drop(image);
    let to = ByteCount(size.0.saturating_add(GROWN_BYTES));
    let Ok(steps) = grow(format, file, ByteCount(file.len()), size, to, &Ids) else { return };
    if !do_steps(file, steps) {
        return;
    }
    let image = again(format, file, "after it was made larger");
    assert!(image.virtual_size >= to, "{} where it was to be {to}", image.virtual_size);
    let mut old = places(size).into_iter().zip(before);
    let same = |(place, before): (Extent, Option<Vec<u8>>)| {
        let mut now = vec![0; place.bytes().0 as usize];
        // A disk of no whole number of sectors ends within its last one, behind which is zeros now.
        before.is_none() || image.read(file, place, &mut now).is_ok() && before == Some(now)
    };
    assert!(old.all(same), "making it larger changed what the disk holds");
}

fn again(format: Format, file: &Sparse, when: &str) -> OpenedImage {
    match open_as(format, file, ByteCount(file.len())) {
        Ok(image) => image,
        // A dynamic VHDX that has become full counts as fixed, and the reverse.
        Err(_) if matches!(format, Format::Vhdx | Format::VhdxDynamic) => {
            open(file, ByteCount(file.len())).unwrap_or_else(|error| panic!("{format} {when}: {error}"))
        }
        Err(error) => panic!("{format} {when}: {error}"),
    }
}

fn same(before: &[Option<Vec<u8>>; 3], after: &[Option<Vec<u8>>; 3], what: &str) {
    for (before, after) in before.iter().zip(after) {
        assert!(before.is_none() || before == after, "{what} changed what the disk holds");
    }
}

/// Does the steps; false where they are too many to be worth it.
fn do_steps(file: &mut Sparse, steps: Vec<Step>) -> bool {
    let is_whole = |step: &Step| match step {
        Step::Write(at, bytes) => at.is_multiple_of(SECTOR_BYTES) && (bytes.len() as u64).is_multiple_of(SECTOR_BYTES),
        _ => true,
    };
    assert!(steps.iter().all(is_whole), "a write of less than a sector");
    let bytes: usize = steps.iter().map(|step| if let Step::Write(_, bytes) = step { bytes.len() } else { 0 }).sum();
    assert!(bytes <= STEP_BYTES_MAX, "{bytes} bytes of metadata to write");
    run_steps(file, steps).is_ok()
}
