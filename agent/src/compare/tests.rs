use super::table::{Base, LocalTable};
use super::*;
use crate::journal::{EachEntry, JournalError, Records};
use crate::testing::{self, Dice, Fake, MemDisk, MemRecords};
use async_trait::async_trait;
use sluice_client::AgentApi;
use sluice_proto::CycleNo;
use sluice_proto::cycle::CycleKind;
use sluice_proto::header::Suite;
use sluice_proto::wire::{CycleRef, NextRequest};
use std::collections::BTreeMap;

/// Digests of bytes at hand.
struct Known(Vec<Digest>);

impl Known {
    fn of(target: &[u8]) -> Self {
        Self(target.chunks(GRAIN_BYTES as usize).map(grain_digest).collect())
    }
}

#[async_trait]
impl Reference for Known {
    async fn part(&mut self, part: u64) -> Result<Vec<Digest>, CaptureError> {
        Ok(self.0.chunks(PART_GRAINS as usize).nth(part as usize).unwrap_or_default().to_vec())
    }
}

fn capture(disk: &MemDisk) -> Capture {
    testing::capture(disk, &Fake::new(disk, &[]).0, Suite::Plain, 1)
}

/// Grains that differ, byte by byte.
fn naive(source: &[u8], target: &[u8]) -> SectorBitmap {
    let grains = source.chunks(GRAIN_BYTES as usize).zip(target.chunks(GRAIN_BYTES as usize)).enumerate();
    let extent = |i: usize, bytes: &[u8]| Extent::new(i as u64 * GRAIN_SECTORS, bytes.len() as u64 / SECTOR_BYTES);
    grains.filter(|(_, (a, b))| a != b).map(|(i, (a, _))| extent(i, a)).collect()
}

#[tokio::test(start_paused = true)]
async fn finds_the_grains_that_differ_and_no_other() {
    // Whole blocks, a last block of two grains, a last grain of one sector, a last sector of one byte.
    for (seed, size) in
        [3 << 20, (2 << 20) + 2 * 65536, (1 << 20) + 512, (1 << 20) + 65536 + 1, 100].into_iter().enumerate()
    {
        let disk = MemDisk::filled(size, seed as u64);
        let mut dice = Dice::new(seed as u64 + 100);
        for changes in [0, 1, 9] {
            let mut target = disk.data();
            for _ in 0..changes {
                let at = dice.below(target.len() as u64) as usize;
                target[at] ^= 0x80;
            }
            // A grain that is zero here and not there, and the other way round.
            let last = target.len() - 1;
            target[last] = if changes == 9 { !target[last] } else { target[last] };
            let found = differing(&capture(&disk), &mut Known::of(&target), None).await.unwrap();
            assert_eq!(found, naive(&disk.data(), &target), "{size} bytes, {changes} changes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn holes_are_compared_without_reading_them() {
    let disk = MemDisk::new(8 << 20);
    disk.write(Extent::new(2048 * 5, 1), &mut Dice::new(1));
    let capture = capture(&disk);
    let mut target = vec![0; 8 << 20];
    target[3 << 20] = 1;
    let found = differing(&capture, &mut Known::of(&target), None).await.unwrap();
    assert_eq!(found, naive(&disk.data(), &target));
    assert_eq!(disk.take_reads(), [Extent::new(2048 * 5, 2048)], "one block holds data");
    assert_eq!(capture.counts.bytes_compared.load(Ordering::Relaxed), 8 << 20);
    assert_eq!(capture.counts.bytes_read.load(Ordering::Relaxed), 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_grain_that_nobody_has_a_digest_of_differs() {
    let disk = MemDisk::filled(2 << 20, 3);
    let mut short = Known::of(&disk.data());
    short.0.truncate(30);
    let found = differing(&capture(&disk), &mut short, None).await.unwrap();
    assert_eq!(found, SectorBitmap::from_extents([Extent::new(30 * 128, 2 * 128)]));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_can_t_be_read_ends_it() {
    let disk = MemDisk::filled(4 << 20, 3);
    disk.set_bad(Some(Extent::new(2048 * 3 + 7, 1)));
    let result = differing(&capture(&disk), &mut Known::of(&disk.data()), None).await;
    assert!(matches!(result, Err(CaptureError::Source(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn reading_keeps_to_its_rate() {
    let disk = MemDisk::filled(16 << 20, 3);
    for (rate, seconds) in [(1 << 20, 16.0), (4 << 20, 4.0), (512 << 20, 0.03)] {
        let begun = Instant::now();
        differing(&capture(&disk), &mut Known::of(&disk.data()), Some(rate)).await.unwrap();
        let took = begun.elapsed().as_secs_f64();
        assert!((took - seconds).abs() < 0.05, "{rate} B/s: {took} s");
    }
    // A rate of nothing is the slowest, not none.
    let small = MemDisk::filled(10 << 10, 3);
    let begun = Instant::now();
    differing(&capture(&small), &mut Known::of(&small.data()), Some(0)).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_not_made_up_for() {
    let mut pace = Pace::new(Some(1000));
    pace.after(1000).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let begun = Instant::now();
    pace.after(5000).await;
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_digest_of_the_whole_disk_is_b3sum_s() {
    for size in [1, 512, 1 << 20, (1 << 20) + 1, (5 << 20) + 700] {
        let disk = MemDisk::filled(size, size);
        assert_eq!(whole_digest(&capture(&disk)).await.unwrap(), Digest::of(&disk.data()), "{size} bytes");
    }
}

/// Two parts of the table and three grains of a third.
const SECTORS: SectorCount = SectorCount((2 * PART_GRAINS + 3) * GRAIN_SECTORS - 5);

fn proof(cycle: u64) -> CycleRef {
    CycleRef { cycle: CycleNo(cycle), manifest: Digest([cycle as u8; 32]) }
}

fn digest(cycle: u64, grain: u64) -> Digest {
    Digest::of(&[cycle, grain].map(u64::to_le_bytes).concat())
}

/// What the target holds, by grain; what is not here is zeros.
type Truth = BTreeMap<u64, Digest>;

/// A scan disk's cycles; tells the truth of each that was proven. `None` where the process died.
fn live(table: &mut LocalTable, truths: &mut Vec<(CycleRef, Truth)>) {
    let mut truth = Truth::new();
    let mut cycle = |table: &mut LocalTable, number: u64, grains: &[u64], ends: bool| {
        let before = truth.clone();
        for grain in grains {
            truth.insert(*grain, digest(number, *grain));
        }
        // Sent in three goes: the last comes back to one grain of the first part.
        let notes: Vec<_> = grains.iter().map(|grain| (*grain, digest(number, *grain))).collect();
        table.note(&notes);
        table.note(&notes[notes.len() / 2..]);
        table.note(&notes[..1]);
        match ends {
            true => {
                // True of the target from the moment of the proof on, whatever becomes of the table.
                truths.push((proof(number), truth.clone()));
                table.verified(proof(number));
            }
            false => {
                truth = before;
                table.lose();
            }
        }
    };
    table.begin(Base::Nothing);
    for part in 0..3 {
        table.adopt(part, &vec![ZERO_GRAIN; (2 * PART_GRAINS + 3 - part * PART_GRAINS).min(PART_GRAINS) as usize]);
    }
    cycle(table, 1, &[0, 5, PART_GRAINS, 2 * PART_GRAINS + 2], true);
    table.begin(Base::Kept);
    cycle(table, 2, &[5, 6, PART_GRAINS + 1], true);
    table.begin(Base::Kept);
    cycle(table, 3, &[7, PART_GRAINS], false);
    table.begin(Base::Kept);
    cycle(table, 4, &[8], true);
}

async fn check(table: &mut LocalTable, truths: &[(CycleRef, Truth)], at: &str) {
    for (verified, truth) in truths.iter().filter(|(_, truth)| !truth.is_empty()) {
        if !table.is_of(*verified) {
            continue;
        }
        for part in 0..3 {
            for (i, known) in table.part(part).await.expect("a table that is believed").into_iter().enumerate() {
                let grain = part * PART_GRAINS + i as u64;
                let held = truth.get(&grain).copied().unwrap_or(ZERO_GRAIN);
                assert_eq!(known, held, "grain {grain} after {verified:?}, {at}");
            }
        }
    }
}

#[tokio::test]
async fn a_table_is_never_believed_wrongly_wherever_the_process_dies() {
    for after in [false, true] {
        for change in 0.. {
            let (records, mut truths) = (MemRecords::default(), Vec::new());
            records.die_at(change, after);
            live(&mut LocalTable::new(Box::new(records.clone()), SECTORS), &mut truths);
            let died = records.is_dead();
            records.revive();
            let mut table = LocalTable::new(Box::new(records.clone()), SECTORS);
            check(&mut table, &truths, &format!("dead at change {change}, after it: {after}")).await;
            if !died {
                assert!(change > 15, "{change}");
                assert!(table.is_of(proof(4)) && !table.is_of(proof(2)) && !table.is_of(proof(3)));
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_table_with_a_part_missing_is_an_error_not_zeros() {
    let (records, mut truths) = (MemRecords::default(), Vec::new());
    let mut table = LocalTable::new(Box::new(records.clone()), SECTORS);
    live(&mut table, &mut truths);
    records.forget("digests-000001");
    assert!(matches!(table.part(1).await, Err(CaptureError::Journal(_))));
}

#[test]
fn a_table_of_which_not_all_was_noted_is_not_believed() {
    let mut table = LocalTable::new(Box::new(MemRecords::default()), SECTORS);
    table.begin(Base::Nothing);
    table.note(&[(0, digest(1, 0))]);
    table.verified(proof(1));
    assert!(!table.is_of(proof(1)));
    let other = LocalTable::new(Box::new(MemRecords::default()), SectorCount(5));
    assert!(!other.is_of(proof(1)));
}

#[test]
fn a_full_medium_loses_the_table_only() {
    struct Full;
    impl Records for Full {
        fn load(&self, _: &str) -> Result<Option<Vec<u8>>, JournalError> {
            Ok(None)
        }
        fn save(&mut self, _: &str, _: &[u8]) -> Result<(), JournalError> {
            Err(JournalError("no space".into()))
        }
        fn remove(&mut self, _: &str) -> Result<(), JournalError> {
            Ok(())
        }
        fn read_log(&mut self, _: &str, _: &mut EachEntry<'_>) -> Result<(), JournalError> {
            Ok(())
        }
        fn append(&mut self, _: &str, _: &[u8]) -> Result<(), JournalError> {
            Err(JournalError("no space".into()))
        }
    }
    let mut table = LocalTable::new(Box::new(Full), SECTORS);
    table.begin(Base::Nothing);
    table.note(&[(0, digest(1, 0)), (PART_GRAINS, digest(1, 1))]);
    assert!(!table.is_noting());
    table.verified(proof(1));
    assert!(!table.is_of(proof(1)));
}

#[tokio::test(start_paused = true)]
async fn parts_of_two_comparisons_are_not_mixed() {
    let disk = MemDisk::filled(1 << 20, 5);
    let (api, _stop) = Fake::new(&disk, &[CycleKind::Resync]);
    api.next(testing::DISK, first_order()).await.expect("an order");
    let mut remote = RemoteReference {
        api,
        disk: testing::DISK,
        cycle: CycleNo(1),
        generation: testing::GENERATION,
        key: testing::key(),
        sectors: disk.sectors(),
        comparison: None,
    };
    remote.part(0).await.expect("a part");
    assert!(remote.comparison.is_some());
    remote.comparison = Some(Digest([1; 32]));
    let error = remote.part(0).await.expect_err("of another comparison");
    assert!(error.to_string().contains("another comparison"), "{error}");
}

fn first_order() -> NextRequest {
    NextRequest { generation: testing::GENERATION, settled: CycleNo(0), running: None, wait_ms: 0 }
}
