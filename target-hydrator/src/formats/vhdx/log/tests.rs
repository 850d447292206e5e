//! Logs as other programs write them: entries after one another, around the ring's end, after older ones.

use super::super::header::Header;
use super::super::log_entry::encode;
use super::super::overlay::ChangeKind;
use super::super::{LOG_SECTOR, checksum};
use super::*;
use crate::formats::io::{put_le32, put_le64};
use proptest::prelude::*;

const LOG_BYTES: u32 = 1 << 20;
const FILE_BYTES: u64 = 64 << 20;
const LOG: Uuid = Uuid::from_bytes([7; 16]);

type Sector = Box<[u8; LOG_SECTOR as usize]>;

fn header() -> Header {
    Header { sequence: 1, file_write: LOG, data_write: LOG, log: LOG, log_length: LOG_BYTES, log_offset: 0 }
}

fn sector(seed: u8) -> Sector {
    let mut bytes = Box::new([0; LOG_SECTOR as usize]);
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (i as u8).wrapping_mul(31).wrapping_add(seed) | 1;
    }
    bytes
}

/// A ring that holds entries of `counts` sectors from `start`; entry `i` has sequence number `first + i` and names
/// entry `tail` as the oldest.
fn ring(start: usize, first: u64, counts: &[usize], tail: usize) -> Vec<u8> {
    let mut ring = vec![0; LOG_BYTES as usize];
    let mut starts = Vec::new();
    let mut at = start;
    for (i, count) in counts.iter().enumerate() {
        starts.push(at);
        let sectors: Vec<_> =
            (0..*count).map(|n| ((n as u64 + 256) * LOG_SECTOR, sector((i * 16 + n) as u8))).collect();
        let mut entry = encode(LOG, first + i as u64, &sectors, FILE_BYTES);
        put_le32(&mut entry, 12, starts[tail.min(i)] as u32);
        let sum = checksum(&entry, 4);
        put_le32(&mut entry, 4, sum);
        for byte in entry {
            ring[at] = byte;
            at = (at + 1) % LOG_BYTES as usize;
        }
    }
    ring
}

fn replay(ring: &[u8]) -> Result<Replay, FormatError> {
    read(&ring, &header(), FILE_BYTES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_active_sequence_is_found_and_read_to_the_byte(
        start in 0_usize..256,
        first in prop_oneof![1_u64..5, Just((1 << 32) - 2)],
        counts in prop::collection::vec(1_usize..9, 1..12),
        tail in 0_usize..12,
    ) {
        let ring = ring(start * LOG_SECTOR as usize, first, &counts, tail);
        let replay = replay(&ring).expect("a complete sequence");
        // The newest entry names the oldest that counts.
        let oldest = tail.min(counts.len() - 1);
        let expected: Vec<_> = (oldest..counts.len()).flat_map(|i| (0..counts[i]).map(move |n| (i, n))).collect();
        prop_assert_eq!(replay.changes.len(), expected.len());
        for (change, (i, n)) in replay.changes.iter().zip(expected) {
            prop_assert_eq!(change.offset, (n as u64 + 256) * LOG_SECTOR);
            prop_assert_eq!(&change.kind, &ChangeKind::Data(sector((i * 16 + n) as u8)));
        }
        prop_assert_eq!(replay.last_file_offset, FILE_BYTES);
    }

    #[test]
    fn a_torn_newest_entry_leaves_the_ones_before_it(counts in prop::collection::vec(1_usize..9, 2..12), at in 0_usize..8192) {
        let whole = ring(0, 1, &counts, 0);
        let newest = newest_start(&counts);
        let mut torn = whole.clone();
        torn[newest + at % 4096] ^= 0x10;
        let found = replay(&torn).expect("the sequence without its newest entry");
        prop_assert_eq!(found.changes.len(), counts[..counts.len() - 1].iter().sum::<usize>());
    }
}

/// Where the newest entry of a ring from 0 starts.
fn newest_start(counts: &[usize]) -> usize {
    counts[..counts.len() - 1].iter().map(|count| (count + 1) * LOG_SECTOR as usize).sum()
}

#[test]
fn a_log_without_a_complete_sequence_is_corrupt() {
    assert!(replay(&vec![0; LOG_BYTES as usize]).expect_err("empty").to_string().contains("no complete sequence"));
    let mut broken = ring(0, 1, &[2, 2, 2], 0);
    broken[5000] ^= 1; // the oldest entry, which the others need
    assert!(replay(&broken).is_err());
    let mut foreign = ring(0, 1, &[2], 0);
    foreign[32] ^= 1;
    let sum = checksum(&foreign[..12288], 4);
    put_le32(&mut foreign, 4, sum);
    assert!(replay(&foreign).is_err(), "an entry of another log");
}

#[test]
fn a_file_that_was_cut_after_its_log_was_written_is_refused() {
    let error = read(&&ring(0, 1, &[1], 0)[..], &header(), FILE_BYTES - 1).expect_err("cut");
    assert!(error.to_string().contains("was cut"), "{error}");
}

#[test]
fn zero_descriptors_clear_and_may_not_clear_without_bound() {
    let wrong = [(1 << 62, "clears more than"), (0, "is damaged"), (1, "is damaged"), (LOG_SECTOR + 512, "is damaged")];
    for (length, refusal) in [(3 * LOG_SECTOR, "")].into_iter().chain(wrong) {
        let mut ring = ring(0, 1, &[1], 0);
        let entry = &mut ring[..8192];
        entry[64..68].copy_from_slice(b"zero");
        put_le64(entry, 72, length);
        put_le32(entry, 8, 4096); // no data sector
        let sum = checksum(&entry[..4096], 4);
        put_le32(entry, 4, sum);
        match replay(&ring) {
            Ok(replay) => assert!(refusal.is_empty() && replay.changes[0].kind == ChangeKind::Zero(length)),
            Err(error) => assert!(!refusal.is_empty() && error.to_string().contains(refusal), "{error}"),
        }
    }
}

#[test]
fn forged_entries_cost_no_more_than_a_bounded_effort() {
    // Every sector is the header of an entry as long as the log, each with a wrong checksum.
    let mut ring = vec![0; LOG_BYTES as usize];
    for sector in ring.chunks_exact_mut(LOG_SECTOR as usize) {
        sector[..4].copy_from_slice(b"loge");
        put_le32(sector, 8, LOG_BYTES);
        put_le64(sector, 16, 1);
        sector[32..48].copy_from_slice(LOG.as_bytes());
    }
    assert!(replay(&ring).expect_err("forged").to_string().contains("no program writes it so"));
}
