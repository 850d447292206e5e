//! What happens when things go wrong, or nobody waits any more.

use super::*;
use crate::buf::BufPool;
use std::fs::File;
use std::task::{Context, Waker};

#[test]
fn errors_say_where_and_what_to_do() {
    for engine in ENGINES {
        let disk = Disk::file(10_240, engine);
        let path = disk.path().display();
        let (buf, result) = disk.read_at_blocking(10_000, AlignedBuf::new(4096), 1000);
        assert_eq!(buf.capacity(), 4096, "the buffer comes back with an error too");
        let expected = format!(
            "cannot read {path} at byte 10000 for 1000 bytes (sectors 19..22): unexpected end of file; \
             it is smaller than expected; if it was shrunk, it has to be protected anew"
        );
        let error = result.expect_err("past the end");
        assert_eq!(error.to_string(), expected);
        assert_eq!(
            (error.kind(), error.op(), error.offset(), error.len_bytes()),
            (IoErrorKind::PastEnd, IoOp::Read, 10_000, 1000)
        );
    }
}

#[test]
fn a_disk_opened_for_reading_is_never_written() {
    let made = Disk::file(4096, EngineChoice::Auto);
    let disk = DirectFile::open(made.path()).expect("opens");
    let (_, result) = disk.write_at_blocking(0, AlignedBuf::zeroed(512), 0..512);
    let results = [
        result,
        blocking::wait(disk.punch_hole(0, 512)),
        blocking::wait(disk.set_len(ByteCount(0))),
        blocking::wait(disk.allocate(0, 1)),
    ];
    for result in results {
        let error = result.expect_err("read-only");
        assert_eq!(error.kind(), IoErrorKind::ReadOnly);
        assert!(error.to_string().contains("opened for reading only"), "{error}");
    }
}

#[test]
fn requests_outside_their_buffer_are_refused() {
    let disk = Disk::file(1 << 20, EngineChoice::Auto);
    disk.read_at_blocking(0, AlignedBuf::new(4096), 4097).1.expect_err("larger than the buffer");
    disk.write_at_blocking(0, AlignedBuf::zeroed(100), 0..101).1.expect_err("larger than the buffer");
    disk.write_at_blocking(0, AlignedBuf::zeroed(100), Range { start: 60, end: 50 }).1.expect_err("backwards");
    disk.write_at_blocking(u64::MAX - 10, AlignedBuf::zeroed(100), 0..100).1.expect_err("no such place");
    blocking::wait(disk.punch_hole(u64::MAX - 10, 100)).expect_err("no such place");
    disk.read_at_blocking(u64::MAX, AlignedBuf::new(1), 1).1.expect_err("no such place");
}

#[test]
fn a_missing_disk_is_told_so() {
    let error = DirectFile::open("/dev/no-such-disk").expect_err("not there");
    let expected = "cannot open /dev/no-such-disk: No such file or directory (os error 2); \
                    check the path; a device may have got another name since the last boot";
    assert_eq!(error.to_string(), expected);
    for path in ["/dev/null", "/proc"] {
        let error = DirectFile::open(path).expect_err("no disk");
        assert_eq!(error.kind(), IoErrorKind::NotADisk);
        let expected = "neither a block device nor a regular file; give a block device or an image file";
        assert_eq!(error.to_string(), format!("cannot open {path}: {expected}"));
    }
}

#[test]
fn writing_past_a_device_s_end_is_refused() {
    if !root("a write past a device's end") {
        return;
    }
    for engine in ENGINES {
        let disk = Disk::device(1 << 20, 512, engine);
        for (offset, len) in [((1 << 20) - 512, 1024), (1 << 20, 512), ((1 << 20) - 100, 200)] {
            let (_, result) = disk.write_at_blocking(offset, AlignedBuf::zeroed(len), 0..len);
            let error = result.expect_err("past the end");
            assert_eq!(error.kind(), IoErrorKind::PastEnd);
            assert!(error.to_string().contains("the target is smaller than the data"), "{error}");
        }
        let error = blocking::wait(disk.punch_hole((1 << 20) - 512, 1024)).expect_err("past the end");
        assert_eq!(error.kind(), IoErrorKind::PastEnd);
    }
}

#[test]
fn a_failing_device_is_named_with_its_sectors() {
    if !root("a failing device") {
        return;
    }
    for engine in ENGINES {
        let disk = Disk::device(1 << 20, 512, engine);
        // The ground goes away under the device: what was there can't be read any more.
        let facts = crate::device::DeviceFacts::of(disk.path()).expect("asked");
        let backing = std::fs::read_to_string(format!("/sys/block/{}/loop/backing_file", facts.name)).expect("told");
        File::options().write(true).open(backing.trim()).and_then(|file| file.set_len(4096)).expect("cut");
        assert_eq!(read(&disk, 0, 4096), vec![0; 4096]);
        let (_, result) = disk.read_at_blocking(8192, AlignedBuf::new(4096), 4096);
        let error = result.expect_err("nothing there");
        let text = error.to_string();
        assert_eq!((error.kind(), error.errno()), (IoErrorKind::Medium, Some(libc::EIO)), "{text}");
        assert!(text.contains("at byte 8192 for 4096 bytes (sectors 16..24): Input/output error"), "{text}");
        assert!(text.contains("see dmesg and the device's SMART log"), "{text}");
    }
}

#[test]
fn a_full_file_system_is_told_so_and_goes_on_once_there_is_room() {
    if !root("a full file system") {
        return;
    }
    for engine in ENGINES {
        let device = Loop::new(16 << 20, 512);
        let mount = device.mkfs_and_mount("ext4");
        let options = OpenOptions::new().create(true).engine(engine);
        let disk = options.open(mount.at().join("disk")).expect("opens");
        let error = (0..64)
            .find_map(|i| disk.write_at_blocking(i << 20, AlignedBuf::zeroed(1 << 20), 0..1 << 20).1.err())
            .expect("64 MiB don't fit into 16");
        assert_eq!(error.kind(), IoErrorKind::NoSpace);
        assert!(error.to_string().contains("free some space there"), "{error}");
        blocking::wait(disk.set_len(ByteCount(0))).expect("emptied");
        write(&disk, 0, &pattern(0, 1 << 20));
        drop(disk);
    }
}

/// Starts a request and gives up at once.
fn abandon<F: Future>(future: F) {
    let mut future = Box::pin(future);
    let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn an_abandoned_request_gives_its_buffer_back_when_the_kernel_is_done() {
    for disk in disks(1 << 20) {
        let pool = BufPool::new(4, 256 << 10);
        for round in 0..200u64 {
            let mut buf = pool.take_blocking();
            buf.set_len(65536);
            let offset = round * 512 % (1 << 19);
            if round % 2 == 0 {
                abandon(disk.read_at(offset, buf, 65536));
            } else {
                abandon(disk.write_at(offset, buf, 0..65536));
            }
        }
        // All come back, with nobody waiting for any answer.
        let all: Vec<_> = (0..4).map(|_| pool.take_blocking()).collect();
        assert_eq!(pool.available(), 0);
        drop(all);
        // And an abandoned write never overtakes or undoes a later one.
        abandon(disk.write_at(512, AlignedBuf::from_slice(&[1; 8192]), 0..8192));
        write(&disk, 0, &pattern(0, 16384));
        assert_eq!(read(&disk, 0, 16384), pattern(0, 16384));
    }
}

#[test]
fn dropping_a_disk_waits_for_what_is_under_way_and_frees_it() {
    if !root("exclusive use of a loop device") {
        return;
    }
    let device = Loop::new(8 << 20, 512);
    let _alone = crate::testing::no_children();
    for engine in ENGINES {
        let options = OpenOptions::new().write(true).exclusive(true).engine(engine);
        for round in 0..20 {
            let disk = options.open(device.path()).unwrap_or_else(|error| panic!("{engine:?} round {round}: {error}"));
            for i in 0..64 {
                abandon(disk.write_at(i * 65536, AlignedBuf::zeroed(65536), 0..65536));
            }
        }
    }
}

#[test]
fn a_file_has_one_claimant_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target");
    let claim = OpenOptions::new().create(true).exclusive(true);
    let first = claim.open(&path).expect("nobody claims it");
    assert_eq!(claim.open(&path).expect_err("claimed").kind(), IoErrorKind::Busy);
    OpenOptions::new().open(&path).expect("who only reads claims nothing");
    drop(first);
    claim.open(&path).expect("nobody claims it any more");
}

#[test]
fn more_requests_than_slots_all_get_answered() {
    for engine in ENGINES {
        let made = Disk::file(1 << 20, engine);
        let disk = OpenOptions::new().engine(engine).depth(2).open(made.path()).expect("opens");
        write(&made, 0, &pattern(0, 1 << 20));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let disk = &disk;
                scope.spawn(move || {
                    for i in 0..64u64 {
                        let offset = (i * 7919 + thread * 104_729) % ((1 << 20) - 5000);
                        assert_eq!(read(disk, offset, 5000), pattern(offset, 5000));
                    }
                });
            }
        });
    }
}

#[test]
fn one_part_that_fails_fails_the_request_and_is_named() {
    for engine in ENGINES {
        let disk = Disk::file(64 << 10, engine);
        let part = |i: usize, offset| Part { offset, range: i * 4096..(i + 1) * 4096 };
        let mut parts: Vec<Part> = (0..16).map(|i| part(i, i as u64 * 4096)).collect();
        parts[9].offset = 1 << 20;
        let (buf, result) = blocking::wait(disk.read_parts(parts, AlignedBuf::zeroed(64 << 10)));
        let error = result.expect_err("behind the end");
        assert_eq!((error.kind(), error.offset(), error.len_bytes()), (IoErrorKind::PastEnd, 1 << 20, 4096));
        assert_eq!(buf.len(), 64 << 10, "the buffer comes back with an error too");
        let reader = DirectFile::open(disk.path()).expect("opens");
        let (_, result) = blocking::wait(reader.write_parts(vec![part(0, 0)], AlignedBuf::zeroed(4096)));
        assert_eq!(result.expect_err("read-only").kind(), IoErrorKind::ReadOnly);
    }
    if !root("parts past a device's end") {
        return;
    }
    for engine in ENGINES {
        let disk = Disk::device(1 << 20, 512, engine);
        let parts = vec![Part { offset: 0, range: 0..512 }, Part { offset: 1 << 20, range: 512..1024 }];
        let (_, result) = blocking::wait(disk.write_parts(parts, AlignedBuf::zeroed(1024)));
        assert_eq!(result.expect_err("past the end").kind(), IoErrorKind::PastEnd);
    }
}

#[test]
fn abandoned_parts_give_their_buffer_back_and_undo_nothing() {
    for disk in disks(1 << 20) {
        let pool = BufPool::new(4, 256 << 10);
        let parts = |shift: u64| -> Vec<Part> {
            (0..64).map(|i| Part { offset: (i as u64 * 2 + shift) * 4096, range: i * 4096..(i + 1) * 4096 }).collect()
        };
        for round in 0..100 {
            let mut buf = pool.take_blocking();
            buf.set_len(256 << 10);
            match round % 2 {
                0 => abandon(disk.read_parts(parts(0), buf)),
                _ => abandon(disk.write_parts(parts(1), buf)),
            }
        }
        let all: Vec<_> = (0..4).map(|_| pool.take_blocking()).collect();
        assert_eq!(pool.available(), 0);
        drop(all);
        abandon(disk.write_parts(parts(0), AlignedBuf::from_slice(&[1; 256 << 10])));
        write(&disk, 0, &pattern(0, 1 << 20));
        assert!(read(&disk, 0, 1 << 20) == pattern(0, 1 << 20), "{disk:?}");
    }
}

/// A request that fills all slots with its last part, and one behind it that has to wait for it.
#[test]
fn what_waits_for_many_parts_gets_its_turn_however_many_they_are() {
    for engine in ENGINES {
        for (depth, count) in (1..=3).flat_map(|depth| (1..=7_usize).map(move |count| (depth, count))) {
            let made = Disk::file(1 << 20, engine);
            let disk = OpenOptions::new().write(true).engine(engine).depth(depth).open(made.path()).expect("opens");
            let parts = (0..count)
                .map(|i| Part { offset: i as u64 * 8192, range: i * 4096..(i + 1) * 4096 })
                .collect::<Vec<_>>();
            let (done, ended) = std::sync::mpsc::channel();
            let waiter = std::thread::spawn(move || {
                let many = disk.write_parts(parts, AlignedBuf::from_slice(&vec![1; count * 4096]));
                let behind = disk.write_at(0, AlignedBuf::from_slice(&[2; 4096]), 0..4096);
                let (many, behind) = blocking::wait(futures_util::future::join(many, behind));
                let _ = done.send((many.1.is_ok(), behind.1.is_ok()));
            });
            let result = ended.recv_timeout(std::time::Duration::from_secs(60));
            assert_eq!(result, Ok((true, true)), "{engine:?}, {count} parts, {depth} slots");
            waiter.join().expect("it ended");
            assert!(read(&made, 0, 4096) == [2; 4096], "the later write is the later one");
        }
    }
}
