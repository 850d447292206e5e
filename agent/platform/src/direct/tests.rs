use super::*;
use crate::testing::{Loop, root};

mod faults;
mod model;
mod support;

use support::{Disk, ENGINES, disks, pattern, read, write};

#[test]
fn reads_back_what_was_written() {
    for disk in disks(1 << 20) {
        for (offset, len) in [(0, 4096), (8192, 65536), (512, 512), (100, 1000), (65536 - 1, 2), (1 << 19, 1 << 19)] {
            let bytes = pattern(offset, len);
            write(&disk, offset, &bytes);
            assert_eq!(read(&disk, offset, len), bytes, "{disk:?} {offset}+{len}");
        }
        disk.sync_data_blocking().expect("flushes");
    }
}

#[test]
fn writes_a_range_of_a_buffer_at_any_address() {
    for disk in disks(1 << 20) {
        let bytes = pattern(0, 20_000);
        for (offset, range) in [(0, 512..4608), (4096, 1..4097), (512, 100..1124), (10_000, 4096..4096), (0, 3..20_000)]
        {
            let expected = bytes[range.clone()].to_vec();
            let (buf, result) = disk.write_at_blocking(offset, AlignedBuf::from_slice(&bytes), range);
            result.expect("writes");
            assert_eq!(&buf[..], bytes, "the buffer comes back as it was");
            assert_eq!(read(&disk, offset, expected.len()), expected, "{disk:?} {offset}");
        }
    }
}

#[test]
fn the_last_partial_unit_of_an_odd_file_works() {
    for engine in ENGINES {
        for size in [1, 511, 513, 4095, 4097, 65536 + 17, 1_000_001] {
            let disk = Disk::file(size, engine);
            let bytes = pattern(0, size as usize);
            write(&disk, 0, &bytes);
            disk.sync_data_blocking().expect("flushes");
            assert_eq!(disk.size().expect("asked").0, size, "not longer than it was");
            assert_eq!(read(&disk, 0, size as usize), bytes);
            let tail = size.saturating_sub(700);
            let other = vec![0xee; (size - tail) as usize];
            write(&disk, tail, &other);
            assert_eq!(read(&disk, tail, other.len()), other);
            assert_eq!(read(&disk, 0, tail as usize), bytes[..tail as usize]);
            // Other readers see the same.
            let file = std::fs::read(disk.path()).expect("read");
            assert_eq!((&file[..tail as usize], &file[tail as usize..]), (&bytes[..tail as usize], &other[..]));
            // Behind the end there is nothing, and no short read either.
            let (_, result) = disk.read_at_blocking(tail, AlignedBuf::new(8192), (size - tail) as usize + 1);
            assert_eq!(result.expect_err("past the end").kind(), IoErrorKind::PastEnd);
        }
    }
}

#[test]
fn a_file_grows_by_writing_and_by_set_len() {
    for engine in ENGINES {
        let disk = Disk::file(0, engine);
        write(&disk, 0, &pattern(0, 4096));
        write(&disk, 4096, &pattern(4096, 700));
        assert_eq!(disk.size().expect("asked"), ByteCount(4796));
        write(&disk, 4796, &pattern(4796, 5000));
        assert_eq!(disk.size().expect("asked"), ByteCount(9796));
        assert_eq!(read(&disk, 0, 9796), pattern(0, 9796));
        blocking::wait(disk.set_len(ByteCount(100_000))).expect("grows");
        assert_eq!(read(&disk, 9796, 90_204), vec![0; 90_204]);
        blocking::wait(disk.set_len(ByteCount(100))).expect("shrinks");
        assert_eq!(read(&disk, 0, 100), pattern(0, 100));
        blocking::wait(disk.allocate(0, 1 << 20)).expect("allocates");
        assert_eq!(disk.size().expect("asked"), ByteCount(1 << 20));
    }
}

#[test]
fn punched_and_zeroed_ranges_read_as_zeros_and_the_rest_stays() {
    for disk in disks(1 << 20) {
        let all = pattern(0, 1 << 20);
        for (offset, len) in [
            (65536, 65536),
            (512, 1024),
            (100, 50),
            (4000, 10_000),
            (5, 300_000),
            (0, 1 << 20),
            ((1 << 20) - 10, 10),
            (7, 0),
        ] {
            for free in [true, false] {
                write(&disk, 0, &all);
                let zeroing = async {
                    if free { disk.punch_hole(offset, len).await } else { disk.zero_range(offset, len).await }
                };
                blocking::wait(zeroing).unwrap_or_else(|error| panic!("{disk:?} {error}"));
                let mut expected = all.clone();
                expected[offset as usize..(offset + len) as usize].fill(0);
                assert!(read(&disk, 0, 1 << 20) == expected, "{disk:?} {offset}+{len} free: {free}");
            }
        }
        assert_eq!(disk.size().expect("asked").0, 1 << 20);
    }
}

#[test]
fn holes_are_freed_and_found() {
    for engine in ENGINES {
        let disk = Disk::file(4 << 20, engine);
        let extents = || {
            let (mut at, mut found) = (0, Vec::new());
            while let Some(extent) = blocking::wait(disk.next_data(at)).expect("asked") {
                at = extent.end;
                found.push(extent);
            }
            found
        };
        assert_eq!(extents(), [], "a new sparse file is all hole");
        write(&disk, 1 << 20, &pattern(0, 65536));
        write(&disk, 3 << 20, &pattern(0, 1 << 20));
        assert_eq!(extents(), [1 << 20..(1 << 20) + 65536, 3 << 20..4 << 20]);
        blocking::wait(disk.punch_hole(3 << 20, 1 << 19)).expect("punched");
        assert_eq!(extents(), [1 << 20..(1 << 20) + 65536, (3 << 20) + (1 << 19)..4 << 20]);
    }
}

#[test]
fn behind_a_file_s_end_zeroing_changes_nothing() {
    for engine in ENGINES {
        let disk = Disk::file(10_000, engine);
        write(&disk, 0, &pattern(0, 10_000));
        blocking::wait(disk.punch_hole(9_000, 1 << 30)).expect("punched");
        blocking::wait(disk.zero_range(20_000, 10)).expect("zeroed");
        assert_eq!(disk.size().expect("asked"), ByteCount(10_000));
        assert_eq!(read(&disk, 0, 9_000), pattern(0, 9_000));
        assert_eq!(read(&disk, 9_000, 1_000), vec![0; 1_000]);
    }
}

#[test]
fn a_device_answers_as_all_data() {
    if !root("next_data of a device") {
        return;
    }
    let device = Loop::new(1 << 20, 512);
    let disk = DirectFile::open(device.path()).expect("opens");
    assert_eq!(blocking::wait(disk.next_data(4096)).expect("asked"), Some(4096..1 << 20));
    assert_eq!(blocking::wait(disk.next_data(1 << 20)).expect("asked"), None);
}

#[test]
fn a_device_that_ends_inside_a_sector_counts_whole_sectors() {
    if !root("a device of an odd size") {
        return;
    }
    for engine in ENGINES {
        // The kernel fails every access to the last 512 bytes, through the page cache too.
        let disk = Disk::device((1 << 20) + 512, 4096, engine);
        assert_eq!(disk.size().expect("asked"), ByteCount(1 << 20));
        write(&disk, 0, &pattern(0, 1 << 20));
        assert!(read(&disk, 0, 1 << 20) == pattern(0, 1 << 20));
        assert_eq!(read(&disk, (1 << 20) - 512, 512), pattern((1 << 20) - 512, 512));
    }
}

#[test]
fn buffered_and_direct_users_of_one_file_see_the_same() {
    for engine in ENGINES {
        let disk = Disk::file(65536, engine);
        assert_eq!(read(&disk, 0, 65536), vec![0; 65536]);
        let mut expected = vec![0; 65536];
        for at in [0usize, 700, 4096, 65535] {
            std::os::unix::fs::FileExt::write_all_at(&disk.other(), &[at as u8 | 1], at as u64).expect("written");
            expected[at] = at as u8 | 1;
            assert_eq!(read(&disk, 0, 65536), expected);
        }
        write(&disk, 0, &pattern(0, 65536));
        let mut seen = vec![0; 65536];
        std::os::unix::fs::FileExt::read_exact_at(&disk.other(), &mut seen, 0).expect("read");
        assert_eq!(seen, pattern(0, 65536));
    }
}

#[test]
fn a_file_system_without_direct_io_works_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    let disk = OpenOptions::new().create(true).direct(false).open(path).expect("opens");
    assert!(!disk.is_direct());
    assert_eq!(disk.alignment(), Alignment { offset: 1, memory: 1 });
    write(&disk, 100, &pattern(100, 10_000));
    blocking::wait(disk.punch_hole(150, 5)).expect("punched");
    let mut expected = pattern(100, 10_000);
    expected[50..55].fill(0);
    assert_eq!(read(&disk, 100, 10_000), expected);
}

#[test]
fn the_engine_is_as_chosen() {
    for (choice, kind) in ENGINES.into_iter().zip([EngineKind::Ring, EngineKind::Threads]) {
        assert_eq!(Disk::file(1, choice).engine(), kind);
    }
}

#[test]
fn threads_stand_in_where_a_ring_is_refused() {
    let made = Disk::file(4096, EngineChoice::Auto);
    let files = || Arc::new(Files::open(made.path(), true, false, false, true).expect("opens"));
    // More entries than any ring may have.
    assert!(Handle::start(files(), EngineChoice::Ring, 40_000).is_err());
    let engine = Handle::start(files(), EngineChoice::Auto, 40_000).expect("threads do");
    assert_eq!(engine.kind, EngineKind::Threads);
    let disk = DirectFile { files: files(), engine };
    write(&disk, 0, &pattern(0, 4096));
    assert_eq!(read(&disk, 0, 4096), pattern(0, 4096));
}

/// Parts of any size, in any order, with gaps in the buffer; many more than there are slots.
#[test]
fn parts_come_from_their_places_and_go_there() {
    for disk in disks(1 << 20) {
        write(&disk, 0, &pattern(0, 1 << 20));
        for (unit, gap) in [(4096, 0), (512, 0), (512, 512), (700, 100)] {
            let step = unit + gap;
            let part = |i: usize| Part {
                offset: (((i * 7) % 150) * 5000 / unit * unit) as u64,
                range: i * step..i * step + unit,
            };
            let mut parts: Vec<Part> = (0..150).map(part).collect();
            parts.push(Part { offset: 0, range: 5..5 });
            let (buf, result) = blocking::wait(disk.read_parts(parts.clone(), AlignedBuf::zeroed(150 * step)));
            result.expect("reads");
            for Part { offset, range } in &parts {
                assert!(buf[range.clone()] == pattern(*offset, range.len()), "{disk:?} {offset} {unit}");
            }
            // The same bytes, one unit further on.
            parts.iter_mut().for_each(|part| part.offset += unit as u64);
            let (mut buf, result) = blocking::wait(disk.write_parts(parts.clone(), buf));
            result.expect("writes");
            for Part { offset, range } in &parts {
                assert!(read(&disk, *offset, range.len()) == buf[range.clone()], "{disk:?} {offset} {unit}");
            }
            buf.fill(0);
            write(&disk, 0, &pattern(0, 1 << 20));
        }
    }
}
