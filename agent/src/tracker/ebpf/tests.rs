use super::device::Facts;
use super::geometry::Geometry;
use super::header::{self, Identity, Skips};
use super::kernel::Area;
use super::{Attached, EbpfTracker, default_folder, drain, flight, mismatch, missed, pins};
use crate::testing::Pins;
use crate::tracker::{Doubt, Tracker, TrackingEpoch};
use proptest::prelude::*;
use sluice_platform::system::OsEntropy;
use sluice_proto::bitmap::SectorBitmap;
use sluice_proto::units::{Extent, SectorCount};
use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};
use std::path::Path;
use std::process::Command;

/// `cargo xtask test` installs the compiler; who has not got it builds nothing, and CI does it for them.
#[test]
fn bpf_object_is_what_the_source_builds() {
    if Command::new("clang-14").arg("--version").output().is_err() {
        eprintln!("skipped: clang-14 is not installed (apt-get install clang-14 llvm-14)");
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let folder = tempfile::tempdir().expect("a folder");
    let built = folder.path().join("track.bpf.o");
    let status = Command::new(source.join("build.sh")).arg(&built).status().expect("the build script runs");
    assert!(status.success(), "building track.bpf.c: {status}");
    let bytes = std::fs::read(&built).expect("the object");
    assert!(bytes == pins::OBJECT, "track.bpf.o is not what track.bpf.c builds: run agent/bpf/build.sh and commit it");
}

fn identity() -> Identity {
    let facts = Facts { device: 7 << 8, disk_seq: 5, first: 0, sectors: 1000, zone_sectors: 0, requests: true };
    Identity { epoch: TrackingEpoch { run: [1; 16], boot: [2; 16] }, facts, leaf_bits: 20 }
}

#[test]
fn only_the_same_run_of_the_same_disk_goes_on() {
    let found = identity();
    let epoch = found.epoch;
    assert_eq!(mismatch(&found, &found.facts, epoch.boot, Some(epoch)), None);
    assert_eq!(mismatch(&found, &found.facts, [3; 16], Some(epoch)), Some(Doubt::OtherEpoch));
    let other = TrackingEpoch { run: [9; 16], ..epoch };
    assert_eq!(mismatch(&found, &found.facts, epoch.boot, Some(other)), Some(Doubt::OtherEpoch));
    for change in [
        Facts { device: 1, ..found.facts.clone() },
        Facts { disk_seq: 6, ..found.facts.clone() },
        Facts { sectors: 1001, ..found.facts.clone() },
        Facts { first: 8, ..found.facts.clone() },
        Facts { requests: false, ..found.facts.clone() },
    ] {
        let doubt = mismatch(&found, &change, epoch.boot, Some(epoch));
        assert!(matches!(doubt, Some(Doubt::DiskChanged(_))), "{change:?}: {doubt:?}");
    }
}

#[test]
fn an_event_is_lost_only_if_start_and_end_are_unknown() {
    let skips = |unknown, ends| Skips { starts: unknown, unknown, ends };
    assert_eq!(missed(skips(0, 0), skips(0, 0)), None);
    assert_eq!(missed(skips(0, 9), skips(0, 0)), None, "ends alone are made up for");
    assert_eq!(missed(skips(9, 0), skips(0, 0)), None, "starts alone are made up for");
    assert!(missed(skips(1, 1), skips(0, 0)).is_some());
    assert!(missed(skips(1, 2), skips(1, 1)).is_some(), "a start may be long past");
    assert!(missed(skips(2, 1), skips(1, 1)).is_some());
    assert_eq!(missed(skips(1, 1), skips(1, 1)), None, "answered for");
}

/// An area in a file in place of a map.
fn area(words: u64) -> Area {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(words * 8).expect("its size");
    Area::new(file.into(), words).expect("mapped")
}

fn get(area: &Area, index: u64) -> u64 {
    area.cursor().load(index).expect("a word")
}

fn put(area: &Area, index: u64, value: u64) {
    area.cursor().store(index, value).expect("a word");
}

/// Marks one sector as the programs do, with the leaf in `slot`.
fn mark(area: &Area, g: &Geometry, buffer: u64, sector: u64, slot: u64) {
    let base = g.base(buffer);
    let set = |index: u64, bit: u64| put(area, index, get(area, index) | 1 << bit);
    set(base + g.leaves_at + slot * 2 + sector % 128 / 64, sector % 64);
    set(base + g.leaf_sum_at + slot / 64 / 64, slot / 64 % 64);
    if g.hash_bits != 0 {
        let at = base + g.keys_at + slot / 2;
        let mut keys = get(area, at).to_ne_bytes();
        let from = (slot % 2 * 4) as usize;
        keys[from..from + 4].copy_from_slice(&((sector / 128 + 1) as u32).to_ne_bytes());
        put(area, at, u64::from_ne_bytes(keys));
    }
}

fn mark_coarse(area: &Area, g: &Geometry, buffer: u64, grain: u64) {
    let (base, bit) = (g.base(buffer), grain >> g.coarse_shift);
    let set = |index: u64, bit: u64| put(area, index, get(area, index) | 1 << bit);
    set(base + g.coarse_at + bit / 64, bit % 64);
    set(base + g.coarse_sum_at + bit / 64 / 64 / 64, bit / 64 / 64 % 64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_marked_is_drained_and_cleared(
        sectors in 1u64..200_000,
        buffer in 0u64..2,
        marks in proptest::collection::vec((any::<u64>(), any::<bool>()), 0..200),
    ) {
        let g = Geometry::new(SectorCount(sectors), 8);
        let area = area(g.area_words());
        let mut expected = SectorBitmap::new();
        let mut next_slot = std::collections::BTreeMap::new();
        for (sector, coarse) in marks {
            let sector = sector % sectors;
            let grain = sector / 128;
            let free = next_slot.len() as u64;
            if coarse || free >= g.leaves {
                mark_coarse(&area, &g, buffer, grain);
                let unit = g.coarse_sectors();
                let start = sector / unit * unit;
                expected.set(Extent::new(start, unit.min(sectors - start)));
            } else {
                let slot = if g.hash_bits == 0 { grain } else { *next_slot.entry(grain).or_insert(free) };
                mark(&area, &g, buffer, sector, slot);
                expected.set(Extent::new(sector, 1));
            }
        }
        let drained = |buffer| {
            let mut dirty = SectorBitmap::new();
            drain::drain(&area, &g, buffer, &mut dirty).expect("drained");
            dirty
        };
        prop_assert_eq!(drained(buffer), expected.clone());
        prop_assert_eq!(drained(buffer + 1), SectorBitmap::new());
        prop_assert_eq!(drain::is_empty(&area, &g, buffer).expect("read"), expected.is_empty());
        drain::clear(&area, &g, buffer).expect("cleared");
        prop_assert!((0..g.area_words()).all(|index| get(&area, index) == 0));
    }
}

#[test]
fn what_has_not_ended_is_marked_and_what_is_too_old_is_dropped() {
    let table = area(flight::BUCKET_WORDS * 4);
    let put = |bucket: u64, slot: u64, words: [u64; 3]| {
        for (i, word) in words.into_iter().enumerate() {
            put(&table, bucket * flight::BUCKET_WORDS + slot * 3 + i as u64, word);
        }
    };
    put(0, 0, [0xffff_8880_0000_1000, 8 << 24 | 2, 99]);
    put(1, 4, [0xffff_8880_0000_2000, 40 << 24 | 1, 100]);
    put(3, 2, [0xffff_8880_0000_3000, 0, 7]);
    put(3, 3, [0, 60 << 24 | 1, 7]);
    put(3, 4, [0xffff_8880_0000_4000, 99 << 24 | 2, 98]);
    let unended = |ended| {
        let mut dirty = SectorBitmap::new();
        flight::add_unended(&table, ended, 100, &mut dirty).expect("read");
        dirty
    };
    let first = SectorBitmap::from_extents([Extent::new(8, 2)]);
    assert_eq!(unended(100), first, "that of interval 100 is marked there; what is no range of the disk is left out");
    put(2, 1, [0xffff_8880_0000_5000, u64::MAX, 100]);
    assert_eq!(unended(101), SectorBitmap::full(SectorCount(100)));
    flight::purge(&table, 164).expect("written");
    assert_eq!(unended(200), SectorBitmap::full(SectorCount(100)));
    flight::purge(&table, 165).expect("written");
    assert_eq!(unended(200), SectorBitmap::new());
}

#[test]
fn an_identity_is_read_as_it_was_written_and_damage_is_found() {
    let identity = identity();
    let words = Geometry::new(SectorCount(1000), 20).area_words();
    let table = area(words);
    assert!(Identity::read(&table).is_err(), "nothing there");
    identity.write(&table);
    assert_eq!(Identity::read(&table).as_ref(), Ok(&identity));
    for index in [64, 65, 73, 77] {
        let value = table.load(index);
        table.store(index, value ^ 0x4_0000);
        assert!(Identity::read(&table).is_err(), "word {index}");
        table.store(index, value);
    }
    let other = area(words + 512);
    identity.write(&other);
    assert!(Identity::read(&other).is_err(), "an area of another size");
    assert_eq!(header::doubt_of(1), None, "the flag for all is no doubt");
    assert_eq!(header::doubt_of(2 | 4), Some(Doubt::UnknownWrite));
    assert_eq!(header::doubt_of(16), Some(Doubt::Damaged));
}

/// As after an upgrade, or a step back from one, to a program that knows another layout: what is pinned can't be read. It is
/// replaced and told as a doubt, of which comes a comparison, and tracking goes on.
#[test]
fn pins_of_another_layout_version_are_replaced_and_doubted() {
    if !is_root("pins_of_another_layout_version_are_replaced_and_doubted") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 8 << 20, 512);
    let pins = Pins(default_folder().join(format!("test-layout-{}", std::process::id())));
    let attach = |expect| {
        let attached = EbpfTracker::attach(disk.path(), &pins.0, expect, &OsEntropy::new());
        let Attached { tracker, doubt } = attached.expect("it starts, whatever is pinned");
        (tracker, doubt)
    };
    let write = |sector: u64| {
        let (to, seek) = (format!("of={}", text(disk.path())), format!("seek={sector}"));
        run("dd", &["if=/dev/urandom", &to, &seek, "bs=512", "count=1", "oflag=direct", "conv=notrunc", "status=none"]);
    };
    let (mut tracker, _) = attach(None);
    for version in [0, 2, u64::MAX] {
        let epoch = tracker.epoch();
        write(10);
        tracker.held.area.store(65, version);
        drop(tracker);
        // While no agent runs.
        write(20);
        let (mut newer, doubt) = attach(Some(epoch));
        let told = doubt.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(matches!(doubt, Some(Doubt::ForeignPins(_))), "{doubt:?}");
        assert!(told.contains(&format!("layout version {version}, this program knows 1")), "{told}");
        assert_ne!(newer.epoch(), epoch);
        newer.swap().expect("swapped");
        newer.release(1).expect("released");
        write(30);
        let swap = newer.swap().expect("swapped");
        assert_eq!(swap.doubt, None);
        let mut missing = SectorBitmap::from_extents([Extent::new(30, 1)]);
        missing.subtract(&swap.dirty);
        assert!(missing.is_empty(), "what is written after it began is marked: {:?}", swap.dirty);
        newer.release(2).expect("released");
        let epoch = newer.epoch();
        drop(newer);
        let (again, doubt) = attach(Some(epoch));
        assert_eq!(doubt, None, "what was made anew goes on");
        tracker = again;
    }
}
