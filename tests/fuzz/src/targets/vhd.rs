//! VHDs, fixed and dynamic: opened, read, mended and written.

use crate::fields::{Fields, flag};
use crate::images::{patch, template, use_it};
use crate::sparse::Sparse;
use sluice_hydrator::formats::Format;
use sluice_proto::Extent;
use std::sync::OnceLock;

/// Where patches go: footer and its copy, second header, block table, first block's bitmap.
const PLACES: &[u64] = &[0, 512, 1536, 4096 - 512];
/// Bytes of the templates' disks: four blocks.
const SIZE: u64 = 8 << 20;

/// The first byte chooses: a file of the input's own bytes, or patches over a template; with checksums mended or not.
pub fn run(input: &[u8]) {
    let mut fields = Fields::of(input);
    let flags = fields.u8();
    let mut file = match flags >> 1 & 3 {
        3 => Sparse::of(fields.rest()),
        template => {
            let mut file = templates()[usize::from(template)].clone();
            patch(&mut file, &mut fields, PLACES);
            file
        }
    };
    if flag(flags, 0) {
        mend(&mut file);
    }
    use_it(&file);
}

fn templates() -> &'static [Sparse; 3] {
    static TEMPLATES: OnceLock<[Sparse; 3]> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let some = [Extent::new(0, 8), Extent::new(3 * 4096, 8)];
        let fixed = template(Format::Vhd, SIZE, &some, usize::MAX);
        let mut used = template(Format::VhdDynamic, SIZE, &some, usize::MAX);
        // A guest's last sector of the last block that looks like a footer, of an image with another id.
        let mut forged = fixed.get(SIZE, 512).unwrap_or_default();
        forged[68] ^= 1;
        let at = used.len() - 1024;
        used.put(at, &forged);
        mend_part(&mut used, at, 512, 64);
        [fixed, template(Format::VhdDynamic, SIZE, &[], usize::MAX), used]
    })
}

/// Makes the checksums of both footers and of the second header right.
fn mend(file: &mut Sparse) {
    let tail = file.len().checked_sub(512);
    for at in [Some(0), tail].into_iter().flatten() {
        mend_part(file, at, 512, 64);
    }
    // Where the footer at the end, or else its copy, says that the second header is.
    let header_at =
        tail.and_then(|tail| file.get(tail + 16, 8)).map(|bytes| u64::from_be_bytes(std::array::from_fn(|i| bytes[i])));
    for at in [Some(512), header_at.filter(|at| *at > 512)].into_iter().flatten() {
        mend_part(file, at, 1024, 36);
    }
}

fn mend_part(file: &mut Sparse, at: u64, len: usize, sum_at: usize) {
    let Some(mut part) = file.get(at, len).filter(|part| part.starts_with(b"c")) else { return };
    part[sum_at..sum_at + 4].fill(0);
    let sum = part.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    part[sum_at..sum_at + 4].copy_from_slice(&(!sum).to_be_bytes());
    file.put(at, &part);
}

/// The templates, files of their first bytes, and one patch of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let front = templates()[1].get(0, 2560).unwrap_or_default();
    let footer = templates()[0].get(SIZE, 512).unwrap_or_default();
    let sparse_file = [&[7][..], &front, &footer].concat();
    vec![
        vec![1, 0],
        vec![3, 0],
        vec![5, 0],
        sparse_file,
        [&[7][..], &footer].concat(),
        // Another disk size; another place of the second header; a table entry; a longer and a shorter file.
        vec![5, 0, 4, 48, 132, 128 + 33, 0, 0, 48, 132, 128 + 33, 0],
        vec![5, 0, 4, 16, 132, 192, 0, 2],
        vec![5, 0, 2, 4, 129, 8],
        vec![5, 3, 128 + 20, 0],
        vec![5, 1, 128 + 22, 0],
        // Without its footer: what is its last sector then looks like one.
        [&[4, 1, 255][..], &(templates()[2].len() - 512).to_le_bytes()].concat(),
    ]
}
