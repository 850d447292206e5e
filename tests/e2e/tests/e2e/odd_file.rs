//! An image file that ends in the middle of a sector. Files are tracked by scanning; this needs no root.

use sluice_e2e::{Format, Replicate, assert_equal};
use std::fs::File;
use std::os::unix::fs::FileExt;

const BYTES: u64 = (9 << 20) + 777;

#[test]
fn an_image_file_that_ends_within_a_sector() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    let file = File::create_new(&source).expect("a source");
    let noise: Vec<u8> = (0..BYTES / 4).flat_map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    file.write_all_at(&noise, BYTES - noise.len() as u64).expect("a source");
    for format in [Format::Vhd, Format::Vhdx, Format::Raw] {
        let replicate = Replicate::new(&source, format, &[]).with_cache_folder();
        let first = replicate.must();
        assert_eq!((first[0].kind.as_str(), first[0].tracker.as_deref()), ("initial", Some("scan")), "{first:?}");
        assert_equal(&source, &replicate.target(), format);

        file.write_all_at(format.word().as_bytes(), BYTES - 7).expect("written");
        let second = replicate.must();
        assert!(second[0].dirty_sectors > 0 && second[0].dirty_sectors <= 128, "one grain at most: {second:?}");
        assert_equal(&source, &replicate.target(), format);

        let third = replicate.must();
        assert_eq!(third[0].dirty_sectors, 0, "{third:?}");
    }
}
