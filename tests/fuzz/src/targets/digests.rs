//! Parts of a table of digests: the object as it comes, and what is behind its seal.

use crate::fields::{Fields, flag};
use crate::sealed::{header, key, mend_header, seal, suite};
use sluice_proto::digests::{PART_GRAINS, ZERO_GRAIN, grain_count, open_part, part_count, seal_part};
use sluice_proto::header::{ObjectKind, Suite};
use sluice_proto::keys::Part;
use sluice_proto::{Digest, SectorCount};

/// Grains of a part that is quickly packed and opened.
const SMALL_GRAINS: u64 = 1024;

/// Opens a part; what opens is sealed again and opens to the same.
pub fn run(input: &[u8]) {
    let mut fields = Fields::of(input);
    let flags = fields.u8();
    let (disk, part) = (SectorCount(fields.number()), fields.number());
    let grains = grain_count(disk).saturating_sub(part.saturating_mul(PART_GRAINS)).min(PART_GRAINS);
    assert!(part_count(disk) <= grain_count(disk));
    // A whole part of 4 MiB takes a thousand times as long as a small one and shows no more: only where it is asked for.
    if grains > SMALL_GRAINS && !flag(flags, 4) {
        return;
    }
    let bytes = if flag(flags, 0) {
        let mut bytes = fields.rest().to_vec();
        mend_header(&mut bytes, b"SLUICDIG");
        bytes
    } else {
        let header = header(ObjectKind::Digests, suite(flag(flags, 1)), [part, grains, disk.0]);
        let body = fields.rest();
        let mut opened = vec![u8::from(flag(flags, 2))];
        match flag(flags, 3) {
            // A whole table from few bytes, as only a packed one is small.
            true => {
                let table: Vec<u8> = body.iter().copied().cycle().take(grains as usize * 32).collect();
                opened.extend(zstd::bulk::compress(&table, 1).unwrap_or_default());
            }
            false => opened.extend_from_slice(body),
        }
        let head = header.encode();
        let sealed = seal(&header, Part { block: part, frame: 0 }, &head, &opened);
        [&head[..], &sealed].concat()
    };
    let Ok((header, table)) = open_part(&bytes, &key(), part, disk) else { return };
    assert_eq!(table.len() as u64, grains);
    assert!(header.suite != Suite::Plain, "whoever holds the cache could make it");
    let again = seal_part(&header, &key(), part, disk, &table);
    let opened = open_part(&again, &key(), part, disk).expect("our own part");
    assert!(opened.1 == table, "other digests than those that were sealed");
}

/// The sample, and parts of large and small disks.
pub fn seeds() -> Vec<Vec<u8>> {
    let sample = include_bytes!("../../../../proto/samples/v1-digests");
    let table: Vec<u8> = [Digest([1; 32]), ZERO_GRAIN].iter().flat_map(|digest| digest.0).collect();
    vec![
        [&[1, 128 + 12, 0, 0][..], sample].concat(),
        [&[0, 128 + 8, 0, 0][..], &table].concat(),
        [&[2, 128 + 8, 0, 0][..], &table].concat(),
        [&[4 | 8, 128 + 16, 0, 0][..], &table].concat(),
        [&[4, 128 + 8, 0, 0][..], &zstd::bulk::compress(&table, 1).unwrap_or_default()].concat(),
    ]
}
