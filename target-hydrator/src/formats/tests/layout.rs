//! Sizes, refusals, and what the layouts cost.

use super::super::export::LayoutReader;
use super::super::{FormatErrorKind, LogicalSector, Step, open, open_as};
use super::*;
use sluice_proto::{Extent, Sector};
use std::os::unix::fs::MetadataExt;

const SIZES: [u64; 6] = [MIB, 5 * MIB + 7, 2 * GIB, 40 * GIB, 127 * GIB + 1, 2040 * GIB];

#[test]
fn every_format_opens_as_what_it_was_laid_out_to_be() {
    for format in Format::ALL {
        for size in SIZES {
            let layout = new_layout(format, size);
            let reader = LayoutReader(&layout);
            let image = open_as(format, &reader, layout.file_size).expect("opens");
            assert_eq!((image.format, image.virtual_size), (format, layout.virtual_size), "{format} {size}");
            assert_eq!((image.uuid, image.linear_start()), (layout.uuid, layout.linear_start), "{format} {size}");
            assert_eq!(image.findings, [], "{format} {size}");
            let probed = open(&reader, layout.file_size).expect("probes");
            assert_eq!(probed.format, format, "{size}");
            for other in Format::ALL.into_iter().filter(|other| !matches(format, *other)) {
                let error = open_as(other, &reader, layout.file_size).expect_err("another format");
                assert!(matches!(error.kind, FormatErrorKind::NotThisFormat), "{format} as {other}: {error}");
            }
        }
    }
}

/// True where an image of `format` may be opened as `other`: everything is raw, and a dynamic VHDX may be full.
fn matches(format: Format, other: Format) -> bool {
    other == format || other == Format::Raw || (format, other) == (Format::Vhdx, Format::VhdxDynamic)
}

#[test]
fn sizes_are_rounded_up_to_whole_mib_except_in_raw() {
    let odd = 5 * MIB + 7;
    for format in Format::ALL {
        let expected = if format == Format::Raw { odd } else { 6 * MIB };
        assert_eq!(new_layout(format, odd).virtual_size, ByteCount(expected), "{format}");
    }
    assert_eq!(new_layout(Format::Vhd, odd).file_size, ByteCount(6 * MIB + 512), "Azure wants size + 512");
    assert_eq!(new_layout(Format::Raw, odd).file_size, ByteCount(odd));
}

#[test]
fn too_large_and_empty_sources_are_refused_with_advice() {
    let refuse = |format, size| {
        let error = Layout::create(format, ByteCount(size), &TestIds::new(1), NOW_MS).expect_err("refused");
        assert_eq!(error.kind, FormatErrorKind::Size);
        error.to_string()
    };
    assert_eq!(
        refuse(Format::Vhd, 2041 * GIB),
        "the source has 2041 GiB (2191507062784 bytes), a VHD holds at most 2040 GiB: use --format vhdx"
    );
    assert!(refuse(Format::VhdDynamic, 2040 * GIB + 1).ends_with("use --format vhdx-dynamic"));
    for format in Format::ALL {
        assert!(refuse(format, 64 * TIB + 1).contains("64 TiB") || format.name().starts_with("vhd"), "{format}");
        assert_eq!(refuse(format, 0), "the source is empty: there is no disk to replicate");
    }
}

#[test]
fn a_64_tib_vhdx_is_laid_out_in_small_chunks_and_opens() {
    for format in [Format::Vhdx, Format::VhdxDynamic] {
        let layout = new_layout(format, 64 * TIB);
        let mut table = 0;
        for step in layout.steps() {
            if let Step::Write(_, bytes) = step {
                assert!(bytes.len() as u64 <= MIB, "a chunk of {} bytes", bytes.len());
                table += bytes.len();
            }
        }
        assert!(table < 18 << 20, "{format}: {table} bytes of metadata");
        let image = open(&LayoutReader(&layout), layout.file_size).expect("opens");
        assert_eq!(image.virtual_size, ByteCount(64 * TIB));
        let last = Extent::new(64 * TIB / 512 - 8, 8);
        let found = image.resolve_read(&LayoutReader(&layout), last).expect("in range");
        let expected = layout.linear_start.map(|start| start + 64 * TIB - 4096);
        assert_eq!((found.len(), found[0].file_offset), (1, expected));
        let behind = Extent { start: Sector(last.start.0 + 1), ..last };
        assert!(image.resolve_read(&LayoutReader(&layout), behind).is_err());
    }
}

#[test]
fn new_images_take_next_to_no_space() {
    let dir = tempfile::tempdir().expect("a folder");
    for (format, size) in [
        (Format::Vhd, 2040 * GIB),
        (Format::VhdDynamic, 2040 * GIB),
        (Format::Vhdx, 4 * TIB),
        (Format::VhdxDynamic, 4 * TIB),
        (Format::Raw, 40 * GIB),
    ] {
        let path = dir.path().join(format.name());
        let (file, layout) = new_file(&path, format, size);
        let meta = file.metadata().expect("metadata");
        assert_eq!(ByteCount(meta.len()), layout.file_size, "{format}");
        assert!(meta.blocks() * 512 < 6 * MIB, "{format} takes {} bytes", meta.blocks() * 512);
        let image = open(&file, ByteCount(meta.len())).expect("opens");
        assert_eq!(image.format, format);
    }
}

#[test]
fn sectors_of_4096_bytes_are_for_vhdx_only() {
    let ids = TestIds::new(1);
    for format in [Format::Vhdx, Format::VhdxDynamic] {
        let layout = Layout::create_with(format, ByteCount(40 * GIB), LogicalSector::B4096, &ids, NOW_MS).expect("ok");
        let image = open(&LayoutReader(&layout), layout.file_size).expect("opens");
        assert!(image.facts.contains(&("sector size", "logical 4096, physical 4096 bytes".into())));
        assert!(image.findings[0].text.contains("QEMU refuses"));
    }
    for format in [Format::Vhd, Format::VhdDynamic, Format::Raw] {
        let refused = Layout::create_with(format, ByteCount(MIB), LogicalSector::B4096, &ids, NOW_MS);
        assert_eq!(refused.expect_err("refused").kind, FormatErrorKind::Unsupported);
    }
}

#[test]
fn names_and_suffixes() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!("vmdk".parse::<Format>().expect_err("unknown").to_string().contains("vhdx-dynamic"));
    let by_suffix = |name: &str| Format::from_suffix(Path::new(name));
    assert_eq!(by_suffix("/a/b.vhd"), Ok(Format::Vhd));
    assert_eq!(by_suffix("b.VHDX"), Ok(Format::Vhdx));
    assert_eq!(by_suffix("b.img"), Ok(Format::Raw));
    assert_eq!(by_suffix("b.raw"), Ok(Format::Raw));
    for name in ["/dev/sdb", "b.qcow2", "vhd"] {
        assert!(by_suffix(name).expect_err("unknown").to_string().contains("say it with --format"), "{name}");
    }
}
