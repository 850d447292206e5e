//! The reader of recorded writes and its power cuts, on a log that is made by hand.

use sluice_crash::Noise;
use sluice_machine::{Cut, Log, Replay};
use std::collections::BTreeSet;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const ATOM: usize = 512;

/// A log as QEMU writes it: entries as place, sectors, flags and the byte that was written.
fn log(entries: &[(u64, u64, u64, u8)]) -> Log {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let sector = |fields: &[u64]| {
        let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        bytes.resize(ATOM, 0);
        bytes
    };
    let mut bytes = sector(&[MAGIC, VERSION, entries.len() as u64, ATOM as u64]);
    for &(place, length, flags, byte) in entries {
        bytes.extend(sector(&[place, length, flags, 0]));
        if flags & DISCARD == 0 {
            bytes.extend(vec![byte; length as usize * ATOM]);
        }
    }
    std::fs::write(file.path(), bytes).expect("a log");
    Log::read(file.path())
}

fn firsts(disk: &[u8]) -> Vec<u8> {
    disk.chunks(ATOM).map(|sector| sector[0]).collect()
}

#[test]
fn a_flush_keeps_all_before_it_and_a_cut_between_keeps_some_of_the_rest() {
    let log =
        log(&[(0, 1, 0, 1), (0, 0, FLUSH, 0), (1, 2, 0, 2), (3, 1, FUA, 3), (0, 1, DISCARD, 0), (0, 0, FLUSH, 0)]);
    assert_eq!((log.len(), log.flushes()), (6, 2));
    assert_eq!(log.cuts_at_flushes(), [Cut::AtFlush(1), Cut::AtFlush(5)]);
    assert_eq!(log.grains_written(0..4 * ATOM, 6), 1);
    assert!(Cut::Between(5) < Cut::AtFlush(5) && Cut::AtFlush(1) < Cut::Between(5));
    let (mut seen, mut noise) = (BTreeSet::new(), Noise::seeded(1));
    for _ in 0..200 {
        let mut replay = Replay::new(&log, vec![9; 4 * ATOM]);
        assert_eq!(firsts(&replay.cut(Cut::AtFlush(1), &mut noise)), [1, 9, 9, 9]);
        seen.insert(firsts(&replay.cut(Cut::Between(5), &mut noise)));
        assert_eq!(firsts(&replay.cut(Cut::AtFlush(5), &mut noise)), [0, 2, 2, 3]);
    }
    assert!(seen.iter().all(|disk| disk[3] == 3), "what was forced through is there: {seen:?}");
    // The discard done or not, and of the write of two sectors both, none, or either.
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn an_ext4_s_superblock_is_not_torn_wherever_it_lies_and_all_else_is() {
    // An ext4 at the second sector: its superblock is sectors 3 and 4.
    let log = log(&[(1, 5, 0, 1)]);
    let torn_at = |ext4: bool, noise: &mut Noise| {
        let replay = Replay::new(&log, vec![0; 7 * ATOM]);
        let mut replay = if ext4 { replay.with_ext4_at(ATOM) } else { replay };
        let disk = firsts(&replay.cut(Cut::Between(1), noise));
        (1..5).filter(|i| disk[*i] != disk[*i + 1]).collect::<Vec<_>>()
    };
    let mut noise = Noise::seeded(2);
    let all: BTreeSet<usize> = (0..200).flat_map(|_| torn_at(false, &mut noise)).collect();
    let kept: BTreeSet<usize> = (0..200).flat_map(|_| torn_at(true, &mut noise)).collect();
    assert_eq!(Vec::from_iter(all), [1, 2, 3, 4]);
    assert_eq!(Vec::from_iter(kept), [1, 2, 4]);
}
