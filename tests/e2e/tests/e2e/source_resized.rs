//! A source that grew, shrank or vanished since the last cycle.

use sluice_e2e::{Cycle, Format, Replicate, assert_equal};
use sluice_test_support::command::is_root;
use sluice_test_support::devices::Loop;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The source's first size in bytes, and what it grows to in turn: no whole MiB, and more than the table of a dynamic VHD
/// has room for.
const SIZE: u64 = 24 << 20;
const GROWN: [u64; 2] = [(29 << 20) + 700, 400 << 20];

/// Bytes of which none are like any others.
fn contents(bytes: u64) -> Vec<u8> {
    (0..bytes as u32 / 4).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn write(source: &Path, at: u64, bytes: &[u8]) {
    let written = File::options().write(true).open(source).and_then(|file| {
        file.write_all_at(bytes, at)?;
        file.sync_all()
    });
    written.unwrap_or_else(|e| panic!("{}: {e}", source.display()));
}

/// Panics unless it is a comparison that shipped little of the source.
fn assert_little(cycle: &Cycle) {
    cycle.assert_verified();
    assert_eq!(cycle.kind, "resync", "{cycle:?}");
    assert!(cycle.dirty_sectors <= 5 * 128 && cycle.bytes_sent < SIZE / 16, "{cycle:?}");
}

fn a_source_that_grew_is_followed(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    std::fs::write(&source, contents(SIZE)).expect("a source");
    let replicate = Replicate::new(&source, format, &[]);
    replicate.must();
    for size in GROWN {
        File::options().write(true).open(&source).and_then(|file| file.set_len(size)).expect("a larger source");
        write(&source, 7 << 20, &[size as u8 | 1; 3000]);
        write(&source, size - 600, &[3; 600]);
        let cycles = replicate.must();
        assert_eq!(cycles.len(), 1, "{cycles:?}");
        assert_little(&cycles[0]);
        assert_equal(&source, &replicate.target(), format);
    }
    write(&source, GROWN[1] - 5000, &[4; 5000]);
    replicate.must();
    assert_equal(&source, &replicate.target(), format);
}

#[test]
fn a_raw_image_follows_a_source_that_grew() {
    a_source_that_grew_is_followed(Format::Raw);
}

#[test]
fn a_vhd_follows_a_source_that_grew() {
    a_source_that_grew_is_followed(Format::Vhd);
    a_source_that_grew_is_followed(Format::VhdDynamic);
}

#[test]
fn a_vhdx_follows_a_source_that_grew() {
    a_source_that_grew_is_followed(Format::Vhdx);
    a_source_that_grew_is_followed(Format::VhdxDynamic);
}

#[test]
fn a_device_that_grows_while_it_is_followed_is_compared_and_goes_on() {
    if !is_root("a_device_that_grows_while_it_is_followed_is_compared_and_goes_on") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", SIZE, 512);
    write(disk.path(), 0, &contents(SIZE));
    let replicate = Replicate::new(disk.path(), Format::Vhd, &[]);
    let sluice = replicate.start(&["--follow", "--min-interval", "1s", "--max-interval", "1s"]);
    let (first, from) = sluice.wait_stdout(0, Cycle::read);
    first.assert_verified();
    disk.resize(GROWN[1]);
    write(disk.path(), 7 << 20, &[5; 3000]);
    write(disk.path(), GROWN[1] - 512, &[6; 512]);
    let (failed, from) = sluice.wait_stdout(from, |line| Cycle::read(line).filter(|cycle| !cycle.verified));
    let words = failed.error.clone().unwrap_or_default();
    assert!(words.contains(&SIZE.to_string()) && words.contains(&GROWN[1].to_string()), "{failed:?}");
    let (compared, from) = sluice.wait_stdout(from, Cycle::read);
    assert_little(&compared);
    write(disk.path(), GROWN[1] - 512, &[7; 512]);
    let (delta, _) = sluice.wait_stdout(from, |line| Cycle::read(line).filter(|cycle| cycle.dirty_sectors > 0));
    delta.assert_verified();
    assert_eq!((delta.kind.as_str(), delta.dirty_sectors <= 8), ("delta", true), "{delta:?}");
    let ended = sluice.terminate();
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_equal(disk.path(), &replicate.target(), Format::Vhd);
}

#[test]
fn a_source_that_shrank_is_refused_and_the_target_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source.img");
    let contents = contents(4 << 20);
    std::fs::write(&source, &contents).expect("a source");
    let replicate = Replicate::new(&source, Format::Raw, &[]);
    replicate.must();
    let kept = std::fs::read(replicate.target()).expect("the target");

    let size = 3 << 20;
    File::options().write(true).open(&source).and_then(|file| file.set_len(size)).expect("another size");
    let ended = replicate.run();
    assert!(ended.code().is_some_and(|code| code != 0), "{size}: {}\n{}", ended.status, ended.stderr);
    let was = contents.len().to_string();
    assert!(ended.stderr.contains(&was) && ended.stderr.contains(&size.to_string()), "{}", ended.stderr);
    assert!(ended.stderr.contains("never shrinks"), "{}", ended.stderr);
    std::fs::remove_file(&source).expect("the source goes");
    let ended = replicate.run();
    assert!(ended.code().is_some_and(|code| code != 0), "vanished: {}", ended.status);
    assert!(ended.stderr.contains("source.img"), "{}", ended.stderr);
    assert!(std::fs::read(replicate.target()).expect("the target") == kept, "the target holds the last verified cycle");

    // Nothing is lost: with its size back it goes on.
    std::fs::write(&source, &contents).expect("the source is back");
    replicate.must();
    assert_equal(&source, &replicate.target(), Format::Raw);
}
