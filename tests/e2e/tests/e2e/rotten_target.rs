//! A target that rots where it lies: bytes change on the disk under its file system, and nothing of the file tells. No delta
//! finds that. A scrub by the policy does, and ships what differs and nothing else.

use sluice_e2e::{Apart, Format, assert_equal};
use sluice_proto::DiskId;
use sluice_proto::cycle::{CycleKind, State};
use sluice_proto::wire::CycleView;
use sluice_test_support::cluster::Part;
use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};
use sluice_test_support::mounts::{FileSystem, Mount};
use sluice_test_support::program::Sluice;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const SECTOR: usize = 512;
/// Sectors in a grain of 64 KiB, which is what a comparison finds to differ.
const GRAIN_SECTORS: u64 = 128;
/// Where bytes rot, on the disk that is protected: one in a grain, and two that are neighbours in two grains.
const ROTTEN: [u64; 4] = [1_000_000, (9 << 20) - 1, 9 << 20, (20 << 20) + 17];
/// What an operator sets for scrubs; the first is due at once.
const SCRUBS: [(&str, &str); 2] = [
    ("[schedule]", "min_interval = \"1s\"\nmax_interval = \"1s\""),
    ("[scrub]", "interval = \"1s\"\nrate = \"500MB/s\""),
];

/// Flips a bit of each of the bytes where they lie on the disk `under` the target's file system.
fn rot(source: &Path, under: &Loop) {
    let disk = File::options().read(true).write(true).open(under.backing()).expect("the disk's own file");
    let image = fs::read(under.backing()).expect("the disk's own file");
    let source = File::open(source).expect("the source");
    for place in ROTTEN {
        let (mut sector, at) = ([0; SECTOR], place / SECTOR as u64 * SECTOR as u64);
        source.read_exact_at(&mut sector, at).expect("a sector of the source");
        // No two sectors are alike: whichever format the target has, and wherever its file lies, this is the one.
        let found: Vec<usize> =
            image.chunks_exact(SECTOR).enumerate().filter(|(_, other)| *other == sector).map(|(i, _)| i).collect();
        let [number] = found[..] else { panic!("byte {place} lies in sectors {found:?} of the disk") };
        let within = (place - at) as usize;
        let rotten = [sector[within] ^ 0x10];
        disk.write_all_at(&rotten, (number * SECTOR + within) as u64).expect("a byte rots");
    }
    disk.sync_all().expect("it stays");
}

/// What of a file changes when somebody writes to it.
fn looks(file: &Path) -> [i64; 6] {
    let facts = fs::metadata(file).expect("the target");
    let (size, inode) = (facts.size() as i64, facts.ino() as i64);
    [size, inode, facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec()]
}

fn differs(source: &Path, target: &Path) -> bool {
    let verify = Sluice::run(&["verify", text(source), text(target), "--json"]);
    assert!(matches!(verify.code(), Some(0 | 1)), "{}{}", verify.stdout, verify.stderr);
    verify.code() == Some(1)
}

/// The first scrub after a cycle. Deltas are due as often, of a source that nobody writes: they bring nothing.
fn next_scrub(apart: &Apart, disk: DiskId, mut after: u64) -> CycleView {
    loop {
        let cycle = apart.cluster.operator().wait_verified(disk, after);
        if cycle.kind == CycleKind::Resync {
            return cycle;
        }
        assert_eq!((cycle.kind, cycle.sectors.0), (CycleKind::Delta, 0), "{cycle:?}");
        after = cycle.cycle.0;
    }
}

fn what_rots_is_found(format: Format) {
    let folder = tempfile::tempdir().expect("a folder");
    let under = Loop::new(folder.path(), "under", 128 << 20, 512);
    let mount = Mount::format(under.path(), FileSystem::Ext4);
    let mut apart = Apart::prepare(|setup| {
        setup.targets = Some(mount.path().to_owned());
        setup.format = format.word();
    });
    // By the configuration's own schedule an initial cycle and a delta come now, and the next in an hour.
    Part::ALL.into_iter().for_each(|part| apart.cluster.start_part(part));
    let disk = apart.cluster.operator().only_disk();
    apart.cluster.operator().wait_verified(disk, 1);
    let target = apart.cluster.target(disk);

    run("sync", &["--file-system", text(&target)]);
    let before = looks(&target);
    rot(apart.source.path(), &under);
    assert_eq!(looks(&target), before, "nothing shows");
    apart.write(12 << 20, 3000, 5);
    let delta = apart.order(disk);
    let delta = apart.wait_end(disk, delta);
    assert_eq!((delta.kind, delta.state), (CycleKind::Delta, State::Verified), "{delta:?}");
    assert!(differs(apart.source.path(), &target), "it is there, and no delta reads it");

    let config = apart.cluster.config(Part::Appliance);
    let mut words = fs::read_to_string(&config).expect("the appliance's configuration");
    for (table, keys) in SCRUBS {
        assert_eq!(words.matches(&format!("\n{table}\n")).count(), 1, "{words}");
        words = words.replace(&format!("\n{table}\n"), &format!("\n{table}\n{keys}\n"));
    }
    fs::write(&config, words).expect("the appliance's configuration");
    apart.cluster.take(Part::Appliance).terminate();
    apart.cluster.start_part(Part::Appliance);
    let found = next_scrub(&apart, disk, delta.cycle.0);
    assert_eq!((found.kind, found.sectors.0), (CycleKind::Resync, ROTTEN.len() as u64 * GRAIN_SECTORS), "{found:?}");
    assert_eq!(found.bitmaps_equal, Some(true), "{found:?}");
    assert!(found.source_digest.is_some() && found.source_digest == found.target_digest, "{found:?}");
    let next = next_scrub(&apart, disk, found.cycle.0);
    assert_eq!((next.kind, next.sectors.0), (CycleKind::Resync, 0), "nothing is left: {next:?}");

    apart.cluster.end();
    assert_equal(apart.source.path(), &target, format);
}

#[test]
fn what_rots_on_a_target_is_found_by_a_scrub() {
    if !is_root("what_rots_on_a_target_is_found_by_a_scrub") {
        return;
    }
    [Format::Vhd, Format::VhdxDynamic, Format::Raw].into_iter().for_each(what_rots_is_found);
}
