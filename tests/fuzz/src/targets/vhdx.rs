//! VHDXs, fixed and dynamic, with and without a log to be applied: opened, read, mended and written.

use crate::fields::{Fields, flag};
use crate::images::{patch, template, use_it};
use crate::sparse::Sparse;
use sluice_hydrator::formats::{Format, open_as};
use sluice_proto::{ByteCount, Extent};
use std::sync::OnceLock;

const MIB: u64 = 1 << 20;
/// How much of a log is looked at for entries.
const LOG_LOOK_BYTES: u64 = 256 << 10;
/// Where patches go: identifier, headers, region tables, log, its first data sector, metadata and their items, block table.
const PLACES: &[u64] =
    &[0, 64 << 10, 128 << 10, 192 << 10, 256 << 10, MIB, MIB + 4096, 2 * MIB, 2 * MIB + (64 << 10), 3 * MIB];

/// The first byte chooses a template and whether checksums are mended; the rest is patches.
pub fn run(input: &[u8]) {
    let mut fields = Fields::of(input);
    let flags = fields.u8();
    let mut file = templates()[usize::from(flags >> 2) % 4].clone();
    patch(&mut file, &mut fields, PLACES);
    if flag(flags, 0) {
        [64 << 10, 128 << 10].into_iter().for_each(|at| mend(&mut file, at, 4096));
        [192 << 10, 256 << 10].into_iter().for_each(|at| mend(&mut file, at, 65536));
    }
    if flag(flags, 1) {
        mend_log(&mut file);
    }
    use_it(&file);
}

/// Fixed, dynamic and new, dynamic with blocks, and one whose writer was cut off while its log was full.
fn templates() -> &'static [Sparse; 4] {
    static TEMPLATES: OnceLock<[Sparse; 4]> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let some = [Extent::new(0, 8), Extent::new((40 << 20) / 512, 8)];
        let dynamic = |steps_max| template(Format::VhdxDynamic, 64 * MIB, &some, steps_max);
        let is_dirty = |file: &Sparse| {
            let image = open_as(Format::VhdxDynamic, file, ByteCount(file.len())).expect("opens at every step");
            image.findings.iter().any(|finding| finding.text.contains("its log holds"))
        };
        [
            template(Format::Vhdx, 64 * MIB, &some, usize::MAX),
            template(Format::VhdxDynamic, 64 * MIB, &[], usize::MAX),
            dynamic(usize::MAX),
            (1..40).map(dynamic).find(is_dirty).expect("a step at which the log is full"),
        ]
    })
}

/// Makes the CRC-32C at byte 4 of a structure right.
fn mend(file: &mut Sparse, at: u64, len: usize) {
    let Some(mut part) = file.get(at, len) else { return };
    part[4..8].fill(0);
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &part) as u32;
    file.put(at + 4, &sum.to_le_bytes());
}

/// The same for entries in the log, where either header says that it is and at its usual place.
fn mend_log(file: &mut Sparse) {
    let places = [64 << 10, 128 << 10].map(|header| {
        let bytes = file.get(header + 72, 8)?;
        Some(u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    });
    for log in places.into_iter().flatten().chain([MIB]) {
        for at in (0..LOG_LOOK_BYTES).step_by(4096).filter_map(|within| log.checked_add(within)) {
            let Some(head) = file.get(at, 12).filter(|head| head.starts_with(b"loge")) else { continue };
            let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
            if (4096..=1 << 20).contains(&len) {
                mend(file, at, len);
            }
        }
    }
}

/// The templates, and one patch at each place.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..4).map(|template| vec![template << 2 | 3, 0]).collect();
    seeds.extend([
        // Log id, length and offset of the header; a region's place; a descriptor; metadata; block sizes; entries.
        vec![0xf, 0, 2, 48, 0, 0],
        vec![0xb, 0, 2, 68, 64, 128 + 21, 0],
        vec![0xb, 0, 3, 32, 64, 128 + 22, 0],
        vec![0xf, 0, 5, 64 + 16, 64, 128 + 21, 0],
        vec![0xf, 0, 5, 24, 64, 2, 5, 64, 15, b'z', b'e', b'r', b'o', 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0],
        vec![0xb, 0, 8, 0, 64, 128 + 21, 0],
        vec![0xb, 0, 8, 8, 64, 128 + 40, 0],
        vec![0xb, 0, 9, 0, 64, 128 + 22, 6],
        vec![0xb, 3, 128 + 21, 0],
        vec![0xb, 1, 128 + 45, 0],
    ]);
    seeds
}
