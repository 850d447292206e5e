//! Hostile bytes: no panic, no memory by what a field claims, no block where it must not be.

use super::super::{Format, LiveImage, Step, open, open_as};
use super::disk::MemDisk;
use super::in_place::{Batch, Model, assert_reads_as, open_live, put};
use super::*;
use proptest::prelude::*;
use sluice_proto::Extent;
use std::sync::OnceLock;

/// Images of all formats with data in them, and dynamic VHDXs whose logs are full.
fn samples() -> &'static [(Format, Vec<u8>)] {
    static SAMPLES: OnceLock<Vec<(Format, Vec<u8>)>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let clean = Format::ALL.into_iter().map(|format| (format, sample(format, usize::MAX)));
        // Step by step through a batch: somewhere on the way the header names the log.
        let dirty = (8..20).map(|steps| (Format::VhdxDynamic, sample(Format::VhdxDynamic, steps)));
        clean.chain(dirty).collect()
    })
}

fn sample(format: Format, steps_max: usize) -> Vec<u8> {
    let ids = TestIds::new(20);
    let mut file = MemDisk::default();
    run_steps(&mut file, new_layout(format, 8 * MIB).steps()).expect("layout");
    let size = file.len();
    let mut live = open_live(format, &mut file, size, &ids);
    let batch = Batch::random(&ids, 8 * MIB / 512, 4, 100);
    let steps = batch.steps(&file, &mut live, &ids);
    run_steps(&mut file, steps.into_iter().take(steps_max)).expect("steps");
    bytes_of(&file)
}

fn bytes_of(file: &MemDisk) -> Vec<u8> {
    let mut bytes = vec![0; file.len() as usize];
    super::super::ReadAt::read_at(file, 0, &mut bytes).expect("reads");
    bytes
}

/// Does with an image all that can be done with it; an error is fine.
fn use_it(bytes: &[u8]) {
    let ids = TestIds::new(21);
    let size = ByteCount(bytes.len() as u64);
    let mut images = vec![open(&bytes, size)];
    images.extend(Format::ALL.map(|format| open_as(format, &bytes, size)));
    for image in images.into_iter().flatten() {
        let sectors = image.virtual_size.sectors_ceil().0;
        let len = sectors.min(64);
        let mut buf = vec![0; len as usize * 512];
        for start in [0, sectors / 2, sectors - len] {
            let disk = Extent::new(start.min(sectors - len), len);
            let _ = image.read(&bytes, disk, &mut buf);
            for range in image.resolve_read(&bytes, disk).into_iter().flatten() {
                let end = range.file_offset.map(|at| at + range.disk.bytes().0);
                // The last sector of a raw image may be partial; a log may make the file longer than it is.
                assert!(end.is_none_or(|end| end <= (80 << 40) + 512), "a range at {end:?}");
            }
        }
        let (mut live, _) = LiveImage::new(image, &ids);
        let _ = live.resolve_write(&bytes, Extent::new(0, len));
        live.steps_before_data(&ids);
        live.steps_after_data(&ids);
    }
}

/// Where metadata is in the samples: the first 4 MiB and the last sectors.
fn place(len: usize) -> impl Strategy<Value = usize> {
    let within = move |at: usize| at % len;
    prop_oneof![
        (0_usize..2048).prop_map(within),
        (0_usize..512).prop_map(move |at| (len - 1).saturating_sub(at)),
        (64_usize << 10..(64 << 10) + 128).prop_map(within),
        (128_usize << 10..(128 << 10) + 128).prop_map(within),
        (192_usize << 10..(192 << 10) + 128).prop_map(within),
        (1_usize << 20..(1 << 20) + 8192).prop_map(within),
        (2_usize << 20..(2 << 20) + 256).prop_map(within),
        ((2_usize << 20) + 65536..(2 << 20) + 65536 + 64).prop_map(within),
        (3_usize << 20..(3 << 20) + 128).prop_map(within),
        0..len,
    ]
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (0..samples().len()).prop_flat_map(|i| {
        let sample = &samples()[i].1;
        let len = sample.len();
        let flips = prop::collection::vec((place(len), any::<u8>()), 0..8);
        let cut = prop_oneof![3 => Just(len), 1 => 0..=len, 1 => 0_usize..5000];
        (flips, cut, any::<bool>()).prop_map(|(flips, cut, mend)| {
            let mut bytes = sample.clone();
            for (at, byte) in flips {
                bytes[at] = byte;
            }
            bytes.truncate(cut);
            if mend {
                mend_checksums(&mut bytes);
            }
            bytes
        })
    })
}

/// Makes the checksums right again, so that the fields behind them are looked at.
fn mend_checksums(bytes: &mut [u8]) {
    let len = bytes.len();
    for at in [Some(0), len.checked_sub(512)].into_iter().flatten().filter(|at| at + 512 <= len) {
        mend_vhd(&mut bytes[at..at + 512], 64);
    }
    if len >= 1536 {
        mend_vhd(&mut bytes[512..1536], 36);
    }
    for (at, size) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 65536), (256 << 10, 65536), (1 << 20, 8192)] {
        let Some(part) = bytes.get_mut(at..at + size) else { continue };
        part[4..8].fill(0);
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, part) as u32;
        part[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Bytes of a dynamic VHD's block.
pub(super) const VHD_BLOCK: u64 = 2 * MIB;

/// A whole footer of an image of one block, as a guest could write it into its disk: of a fixed VHD, or of a dynamic one.
pub(super) fn forged_footer(fixed: bool) -> Vec<u8> {
    let format = if fixed { Format::Vhd } else { Format::VhdDynamic };
    let mut file = MemDisk::default();
    run_steps(&mut file, new_layout(format, VHD_BLOCK).steps()).expect("layout");
    let mut footer = vec![0; 512];
    super::super::ReadAt::read_at(&file, file.len() - 512, &mut footer).expect("reads");
    // Another image's: whoever makes it can't know this one's id.
    footer[68] ^= 1;
    mend_vhd(&mut footer, 64);
    footer
}

#[test]
fn a_guest_s_sector_that_looks_like_a_footer_is_none() {
    for fixed in [false, true] {
        let ids = TestIds::new(23);
        let (mut file, mut model) = (MemDisk::default(), Model::new(2 * VHD_BLOCK));
        run_steps(&mut file, new_layout(Format::VhdDynamic, 2 * VHD_BLOCK).steps()).expect("layout");
        let lasts = [1, 2].map(|blocks| (Extent::new(blocks * VHD_BLOCK / 512 - 1, 1), forged_footer(fixed)));
        let batch = Batch { writes: lasts.to_vec(), zeros: vec![Extent::new(0, 1)] };
        put(Format::VhdDynamic, &mut file, &mut model, &batch, &ids);
        // Cut off behind its last block, as by a crash while the file grew.
        let whole = file.len();
        run_steps(&mut file, [Step::SetLen(whole - 512), Step::Sync]).expect("cut off");
        assert_reads_as(Format::VhdDynamic, &file, file.len(), &model);
        let len = file.len();
        open_live(Format::VhdDynamic, &mut file, len, &ids);
        assert_eq!(file.len(), whole, "mended");
        assert_reads_as(Format::VhdDynamic, &file, whole, &model);
    }
}

#[test]
fn a_vhdx_that_names_a_region_or_an_item_twice_or_has_two_in_one_place_is_refused() {
    let (mut file, len) = (MemDisk::default(), 64 * MIB);
    run_steps(&mut file, new_layout(Format::VhdxDynamic, len).steps()).expect("layout");
    let bytes = bytes_of(&file);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        mend_checksums(&mut bytes);
        let opened = open_as(Format::VhdxDynamic, &&bytes[..], ByteCount(bytes.len() as u64));
        opened.err().map(|error| error.to_string())
    };
    assert_eq!(refused(&|_| {}), None);
    // A third entry in both region tables, which is the first once more, at another place.
    let region_twice = refused(&|bytes| {
        bytes.resize(bytes.len() + 2 * MIB as usize, 0);
        let end = bytes.len() as u64 - MIB;
        for table in [192 << 10, 256 << 10] {
            bytes[table + 8] = 3;
            bytes.copy_within(table + 16..table + 48, table + 80);
            bytes[table + 96..table + 104].copy_from_slice(&end.to_le_bytes());
            bytes[table + 104..table + 108].copy_from_slice(&(MIB as u32).to_le_bytes());
        }
    });
    assert!(region_twice.as_ref().is_some_and(|text| text.contains("one region twice")), "{region_twice:?}");
    // The tables say different things.
    let tables_differ = refused(&|bytes| bytes[(256 << 10) + 44] ^= 1);
    assert!(tables_differ.as_ref().is_some_and(|text| text.contains("not the same")), "{tables_differ:?}");
    // The last item's id becomes the first one's.
    let item_twice = refused(&|bytes| {
        let table = 2 * MIB as usize;
        let count = usize::from(bytes[table + 10]);
        bytes.copy_within(table + 32..table + 48, table + 32 * count);
    });
    assert!(item_twice.as_ref().is_some_and(|text| text.contains("twice")), "{item_twice:?}");
    // The disk's size begins within the file's parameters: a disk that grew would change the size of its blocks.
    let shared = refused(&|bytes| bytes[2 * MIB as usize + 64 + 16] -= 4);
    assert!(shared.as_ref().is_some_and(|text| text.contains("share bytes")), "{shared:?}");
}

/// Makes a VHD structure's checksum, at `at`, right.
pub(super) fn mend_vhd(part: &mut [u8], at: usize) {
    part[at..at + 4].fill(0);
    let sum = part.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    part[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_and_cut_images_never_panic(bytes in mutated()) {
        use_it(&bytes);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        use_it(&bytes);
    }
}

#[test]
fn the_samples_open_and_some_have_full_logs() {
    let dirty = samples().iter().filter(|(format, bytes)| {
        let image = open_as(*format, &&bytes[..], ByteCount(bytes.len() as u64)).expect("opens");
        image.findings.iter().any(|finding| finding.text.contains("its log holds"))
    });
    assert!(dirty.count() >= 2);
}

#[test]
fn every_single_bit_of_the_vhd_footer_and_the_vhdx_headers_counts() {
    for (format, bytes) in &samples()[..5] {
        let size = ByteCount(bytes.len() as u64);
        let all = bytes.len();
        let places: Vec<_> = match format {
            Format::Vhd => (all - 512..all).collect(),
            Format::VhdDynamic => (512..1536).collect(),
            Format::Vhdx | Format::VhdxDynamic => (0..8).collect(),
            Format::Raw => continue,
        };
        for at in places {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(open_as(*format, &&bytes[..], size).is_err(), "{format}: byte {at} was changed unnoticed");
        }
    }
}

#[test]
fn blocks_that_overlap_or_lie_on_metadata_are_refused() {
    let table_entry = |format| if format == Format::VhdDynamic { 1536 } else { 3 << 20 };
    for format in [Format::VhdDynamic, Format::VhdxDynamic] {
        let (_, good) = samples().iter().find(|(f, _)| *f == format).expect("a sample");
        let size = ByteCount(good.len() as u64);
        let (entry, width) = (table_entry(format), if format == Format::VhdDynamic { 4 } else { 8 });
        let present: Vec<usize> = (0..4)
            .map(|i| entry + i * width)
            .filter(|at| good[*at..at + width].iter().any(|b| ![0, 0xff].contains(b)))
            .collect();
        let mut twice = good.clone();
        twice.copy_within(present[0]..present[0] + width, present[1]);
        let error = open_as(format, &&twice[..], size).expect_err("two blocks in one place");
        assert!(error.to_string().contains("share") || error.to_string().contains("other data"), "{error}");

        let mut on_header = good.clone();
        let word: &[u8] = if width == 4 { &[0, 0, 0, 1] } else { &[6, 0, 0x10, 0, 0, 0, 0, 0] };
        on_header[present[0]..present[0] + width].copy_from_slice(word);
        let error = open_as(format, &&on_header[..], size).expect_err("a block on the metadata");
        assert!(error.to_string().contains("metadata") || error.to_string().contains("other data"), "{error}");
    }
}

/// A file in memory of this length with these bytes at these places, zeros elsewhere.
fn patched(layout: &Layout, len: u64, patches: &[(u64, Vec<u8>)]) -> MemDisk {
    use super::super::WriteAt;
    let mut file = MemDisk::default();
    run_steps(&mut file, layout.steps()).expect("layout");
    file.set_len(len).expect("grows");
    for (at, bytes) in patches {
        file.write_at(*at, bytes).expect("writes");
    }
    file
}

#[test]
fn claims_of_huge_tables_and_logs_cost_nothing() {
    // A dynamic VHD that claims 2^32 - 1 entries, in a sparse file that could hold them: what the disk needs is read.
    let layout = new_layout(Format::VhdDynamic, 8 * MIB);
    let mut front = layout.pieces[0].1.clone();
    front[512 + 28..512 + 32].fill(0xff);
    mend_vhd(&mut front[512..], 36);
    let (_, footer) = layout.tail.clone().expect("a footer");
    let file = patched(&layout, 20 * GIB, &[(0, front), (20 * GIB - 512, footer)]);
    let image = open_as(Format::VhdDynamic, &file, ByteCount(file.len())).expect("opens");
    assert!(image.facts.contains(&("blocks present", "0 of 4".into())));

    // A VHDX whose header names a log of almost 4 GiB that is to be applied: refused before it is read.
    let layout = new_layout(Format::VhdxDynamic, 8 * MIB);
    let mut header = layout.pieces.iter().find(|(at, _)| *at == 128 << 10).expect("a header").1.clone();
    header[48..64].fill(7);
    header[68..72].copy_from_slice(&0xfff0_0000_u32.to_le_bytes());
    header[72..80].copy_from_slice(&(16 * MIB).to_le_bytes());
    header[4..8].fill(0);
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &header) as u32;
    header[4..8].copy_from_slice(&sum.to_le_bytes());
    let file = patched(&layout, 8 * GIB, &[(128 << 10, header)]);
    let error = open_as(Format::VhdxDynamic, &file, ByteCount(file.len())).expect_err("refused");
    assert!(error.to_string().contains("larger than Sluice reads"), "{error}");
}
