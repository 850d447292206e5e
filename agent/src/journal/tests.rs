use super::*;
use crate::testing::{self, Dice, MemDisk, MemRecords, MemTracker};
use crate::tracker::Tracker;
use sluice_proto::cycle::{CycleKind, TrackerKind};
use sluice_proto::header::Suite;
use sluice_proto::stream::BlockCv;
use sluice_proto::{ByteCount, Digest, Extent, Generation};

const SIZE: u64 = 1 << 20;

fn plan(cycle: u64) -> Plan {
    Plan::new(CycleNo(cycle), CycleKind::Delta, TrackerKind::Ebpf, None)
}

fn proof(cycle: u64) -> CycleRef {
    CycleRef { cycle: CycleNo(cycle), manifest: Digest([cycle as u8; 32]) }
}

fn stored(cycle: u64, first: u64, blocks: usize) -> Noted {
    let (hash, salt) = (Digest([first as u8; 32]), Digest([9; 32]));
    Noted { cycle: CycleNo(cycle), first, len: 4096, hash, salt, cvs: vec![BlockCv([3; 32]); blocks] }
}

/// As much of a cycle's manifest as the journal looks at.
fn manifest(cycle: u64) -> Vec<u8> {
    let header = Header {
        kind: ObjectKind::Manifest,
        suite: Suite::Aes256Gcm,
        disk: testing::DISK,
        generation: testing::GENERATION,
        cycle: CycleNo(cycle),
        salt: [1; 32],
        fields: [0; 3],
    };
    header.encode().to_vec()
}

/// A disk that is written, and which of its sectors nobody has proven yet.
struct Life {
    disk: MemDisk,
    tracker: MemTracker,
    dice: Dice,
    unproven: SectorBitmap,
}

impl Life {
    fn new() -> Self {
        let disk = MemDisk::new(SIZE);
        Self { tracker: MemTracker::new(&disk, 1), disk, dice: Dice::new(5), unproven: SectorBitmap::new() }
    }

    fn write(&mut self, start: u64, len: u64) {
        let extent = Extent::new(start, len);
        self.disk.write(extent, &mut self.dice);
        self.unproven.set(extent);
    }

    fn swap(&mut self) -> SectorBitmap {
        self.tracker.swap().expect("swaps").dirty
    }

    /// The proof has come: from now on the plan's sectors may be let go.
    fn prove(&mut self, journal: &mut Journal, cycle: u64) -> Result<(), JournalError> {
        let planned = journal.plan().map(|(_, bitmap)| bitmap.clone()).unwrap_or_default();
        let since = self.tracker.peek().expect("peeks").dirty;
        self.unproven.subtract(&planned);
        self.unproven.union_with(&since);
        journal.verified(proof(cycle))
    }

    /// Every kind of step, in an order that an agent could take.
    fn live(&mut self, journal: &mut Journal) -> Result<(), JournalError> {
        self.write(0, 9);
        let dirty = self.swap();
        journal.begin(plan(1), dirty)?;
        self.tracker.release(1).expect("releases");
        journal.note_stored(stored(1, 0, 2))?;
        journal.save_manifest(b"one")?;
        self.write(5, 20);
        journal.failed(CycleNo(1))?;
        // A comparison: what the tracker knows is kept before it begins.
        let dirty = self.swap();
        journal.add_carry(&dirty)?;
        self.tracker.release(2).expect("releases");
        self.write(100, 7);
        journal.begin(plan(2), SectorBitmap::from_extents([Extent::new(300, 3)]))?;
        journal.note_stored(stored(2, 0, 1))?;
        journal.save_manifest(b"two")?;
        self.prove(journal, 2)?;
        let dirty = self.swap();
        journal.begin(plan(3), dirty)?;
        self.tracker.release(3).expect("releases");
        // A verdict on a newer cycle than the one that runs.
        journal.settle(CycleNo(4))?;
        self.write(200, 1);
        let dirty = self.swap();
        journal.begin(plan(5), dirty)?;
        self.tracker.release(4).expect("releases");
        self.prove(journal, 5)
    }
}

#[test]
fn no_sector_is_lost_wherever_the_process_dies() {
    for after in [false, true] {
        for change in 0.. {
            let (mut life, records) = (Life::new(), MemRecords::default());
            let mut journal = testing::journal(&records, &life.disk).unwrap();
            records.die_at(change, after);
            let ended = life.live(&mut journal);
            drop(journal);
            records.revive();
            let journal = testing::journal(&records, &life.disk).expect("it can be opened whatever was cut");
            let mut known = life.disk.tracked();
            known.union_with(journal.carry());
            if let Some((_, bitmap)) = journal.plan() {
                known.union_with(bitmap);
            }
            let mut lost = life.unproven.clone();
            lost.subtract(&known);
            assert!(lost.is_empty(), "{lost:?} lost at change {change}, after it: {after}");
            if ended.is_ok() {
                assert!(change > 25, "the life has many changes, not {change}");
                assert_eq!((journal.plan(), journal.identity().settled), (None, CycleNo(5)));
                break;
            }
        }
    }
}

#[test]
fn what_was_returned_for_is_there_again() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    let bitmap = SectorBitmap::from_extents([Extent::new(3, 4), Extent::new(900, 70)]);
    let carry = SectorBitmap::from_extents([Extent::new(50, 1)]);
    journal.add_carry(&carry).unwrap();
    journal.begin(Plan { doubt: Some("why".into()), ..plan(7) }, bitmap.clone()).unwrap();
    journal.note_stored(stored(7, 0, 3)).unwrap();
    journal.note_stored(stored(7, 3, 1)).unwrap();
    // One of an older cycle that came back with a power cut is none.
    journal.save_manifest(&manifest(6)).unwrap();
    assert_eq!(journal.manifest().unwrap(), None);
    journal.save_manifest(&manifest(7)).unwrap();
    journal.update(|identity| identity.doubt = Some("another".into())).unwrap();
    let mut again = testing::journal(&records, &disk).unwrap();
    assert_eq!(again.identity(), journal.identity());
    let (plan, planned) = again.plan().unwrap();
    assert_eq!((plan.cycle, plan.doubt.as_deref()), (CycleNo(7), Some("why")));
    let whole: SectorBitmap = bitmap.runs().chain(carry.runs()).collect();
    assert_eq!(*planned, whole, "the carry goes into every plan");
    assert!(again.carry().is_empty());
    assert_eq!(again.stored(), journal.stored());
    assert_eq!(again.digest().unwrap().blocks(), 4);
    assert_eq!(again.manifest().unwrap(), Some(manifest(7)));
}

#[test]
fn a_plan_without_its_bitmap_is_refused_not_empty() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    journal.begin(plan(1), SectorBitmap::full(disk.sectors())).unwrap();
    records.forget(PLAN_BITMAP);
    let error = testing::journal(&records, &disk).err().expect("refused");
    assert!(error.to_string().contains("plan.bitmap: missing"), "{error}");
}

/// What was removed, and nothing saved since, may be there again.
#[test]
fn a_plan_that_has_ended_comes_back_with_a_power_cut() {
    for (verified, with_bitmap) in [(true, true), (true, false), (false, true), (false, false)] {
        let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
        let mut journal = testing::journal(&records, &disk).unwrap();
        let planned = SectorBitmap::from_extents([Extent::new(3, 4)]);
        journal.begin(plan(1), planned.clone()).unwrap();
        let kept = [PLAN, PLAN_BITMAP].map(|name| records.load(name).unwrap().unwrap());
        match verified {
            true => journal.verified(proof(1)).unwrap(),
            false => journal.failed(CycleNo(1)).unwrap(),
        }
        let mut records = records.clone();
        records.save(PLAN, &kept[0]).unwrap();
        if with_bitmap {
            records.save(PLAN_BITMAP, &kept[1]).unwrap();
        }
        let mut again = testing::journal(&records, &disk).unwrap();
        assert!(again.plan().is_none() && records.load(PLAN).unwrap().is_none());
        assert_eq!(*again.carry(), if verified { SectorBitmap::new() } else { planned });
        again.begin(plan(2), SectorBitmap::full(disk.sectors())).unwrap();
    }
}

/// A crash between the plan and the removal of what was carried leaves both.
#[test]
fn what_was_carried_goes_with_the_plan_that_stands_for_it() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    journal.add_carry(&SectorBitmap::full(disk.sectors())).unwrap();
    let kept = records.load(CARRY).unwrap().unwrap();
    let differing = SectorBitmap::from_extents([Extent::new(3, 4)]);
    journal.begin_compared(plan(1), differing.clone()).unwrap();
    records.clone().save(CARRY, &kept).unwrap();
    let mut again = testing::journal(&records, &disk).unwrap();
    assert!(again.carry().is_empty());
    again.failed(CycleNo(1)).unwrap();
    let again = testing::journal(&records, &disk).unwrap();
    assert_eq!(*again.carry(), differing, "the disk is not shipped as a whole");
}

#[test]
fn the_number_of_a_release_is_noted_with_its_plan() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    for (cycle, verified) in [(1, true), (2, false), (3, false)] {
        let released = cycle;
        journal.begin(Plan { released, ..plan(cycle) }, SectorBitmap::full(disk.sectors())).unwrap();
        journal = testing::journal(&records, &disk).unwrap();
        assert_eq!(journal.identity().released, released);
        match verified {
            true => journal.verified(proof(cycle)).unwrap(),
            false => journal.failed(CycleNo(cycle)).unwrap(),
        }
        journal = testing::journal(&records, &disk).unwrap();
        assert_eq!((journal.identity().released, journal.plan()), (released, None), "without the plan's record");
    }
}

/// As a backup that goes file by file may leave them: what the newer identity knew is gone, and only by its number is that seen.
#[test]
fn an_older_identity_beside_a_newer_plan_stays_behind_what_was_released() {
    let (disk, mut records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    let begin = |journal: &mut Journal, cycle| {
        journal.begin(Plan { released: cycle, ..plan(cycle) }, SectorBitmap::full(disk.sectors())).unwrap();
    };
    begin(&mut journal, 1);
    journal.verified(proof(1)).unwrap();
    let older = records.load(IDENTITY).unwrap().unwrap();
    begin(&mut journal, 2);
    journal.verified(proof(2)).unwrap();
    begin(&mut journal, 3);
    records.save(IDENTITY, &older).unwrap();
    let again = testing::journal(&records, &disk).unwrap();
    assert_eq!(again.plan().map(|(plan, _)| plan.cycle), Some(CycleNo(3)));
    assert_eq!(again.identity().released, 1, "the tracker's number tells that this was put back");
}

#[test]
fn a_disk_that_grew_begins_a_generation_and_is_in_doubt() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    let planned = SectorBitmap::from_extents([Extent::new(3, 4)]);
    journal.begin(plan(1), planned.clone()).unwrap();
    journal.note_stored(stored(1, 0, 1)).unwrap();
    let envelope = testing::envelope(Generation(2));
    journal.grow(ByteCount(SIZE + 512), &testing::key(), envelope.clone()).unwrap();
    let again = testing::journal(&records, &disk).unwrap();
    assert!(again.plan().is_none() && again.stored().is_empty());
    assert_eq!(again.carry(), &planned);
    let identity = again.identity();
    assert_eq!(
        (identity.size, identity.generation, &identity.envelope),
        (ByteCount(SIZE + 512), Generation(2), &envelope)
    );
    let doubt = identity.doubt.as_deref().unwrap();
    assert!(doubt.contains("grown") && doubt.contains(&SIZE.to_string()), "{doubt}");
}

#[test]
fn segments_of_another_cycle_are_not_believed() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    journal.begin(plan(2), SectorBitmap::full(disk.sectors())).unwrap();
    journal.note_stored(stored(1, 0, 1)).unwrap();
    journal.note_stored(stored(2, 1, 1)).unwrap();
    let again = testing::journal(&records, &disk).unwrap();
    assert_eq!(again.stored().iter().map(|s| s.first).collect::<Vec<_>>(), [1]);
}

#[test]
fn of_segments_that_overlap_one_is_kept() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    journal.begin(plan(1), SectorBitmap::full(disk.sectors())).unwrap();
    // The second was lost by the appliance once, and sent again in two others; now all four are there.
    for (first, blocks) in [(0, 2), (2, 4), (0, 4), (4, 2)] {
        journal.note_stored(stored(1, first, blocks)).unwrap();
    }
    journal.keep_stored(|_| true);
    let kept: Vec<_> = journal.stored().iter().map(|s| (s.first, s.blocks)).collect();
    assert_eq!(kept, [(0, 4), (4, 2)]);
    journal.keep_stored(|s| s.first > 0);
    assert_eq!(journal.stored().len(), 1);
}

#[test]
fn the_digest_is_of_what_is_kept_in_whatever_order_it_was_stored() {
    let (disk, records) = (MemDisk::new(SIZE), MemRecords::default());
    let mut journal = testing::journal(&records, &disk).unwrap();
    journal.begin(plan(1), SectorBitmap::full(disk.sectors())).unwrap();
    // Attempt by attempt: what was lost of the first was sent again in other segments with other bytes.
    let noted = |attempt: u8, first: u64, blocks: u64| Noted {
        cycle: CycleNo(1),
        first,
        len: 4096,
        hash: Digest([attempt * 16 + first as u8; 32]),
        salt: Digest([attempt; 32]),
        cvs: (first..first + blocks).map(|block| BlockCv([attempt * 16 + block as u8; 32])).collect(),
    };
    for segment in [noted(1, 5, 2), noted(1, 0, 3), noted(1, 3, 2), noted(2, 0, 1), noted(2, 1, 4), noted(2, 7, 1)] {
        journal.note_stored(segment).unwrap();
    }
    let lost = Digest([16 + 3; 32]);
    for mut journal in [testing::journal(&records, &disk).unwrap(), journal] {
        journal.keep_stored(|s| s.hash != lost);
        assert_eq!(journal.stored().stretches(), [(0, 8)]);
        let mut expected = StreamDigest::default();
        for (attempt, block) in [(2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (1, 5), (1, 6), (2, 7)] {
            expected.push(BlockCv([attempt * 16 + block; 32]));
        }
        assert_eq!(journal.digest().unwrap().finish(), expected.finish());
        journal.keep_stored(|s| s.first != 5);
        assert_eq!((journal.digest().unwrap().blocks(), journal.stored().blocks()), (5, 6), "up to the gap");
    }
}

#[test]
fn records_of_a_newer_agent_and_damaged_ones_say_what_to_do() {
    let (disk, mut records) = (MemDisk::new(SIZE), MemRecords::default());
    drop(testing::journal(&records, &disk).unwrap());
    let good = records.load(IDENTITY).unwrap().unwrap();
    let newer = String::from_utf8(good).unwrap().replace("\"version\": 1", "\"version\": 2");
    records.save(IDENTITY, newer.as_bytes()).unwrap();
    let error = testing::journal(&records, &disk).err().expect("refused").to_string();
    assert!(error.contains("newer agent") && error.contains("update"), "{error}");
    records.save(IDENTITY, b"{\"ver").unwrap();
    let error = testing::journal(&records, &disk).err().expect("refused").to_string();
    assert!(error.contains("disk.json: damaged"), "{error}");
}

#[test]
fn a_segment_behind_the_last_number_is_damage() {
    let (hash, salt, cvs) = (Digest([6; 32]), Digest([7; 32]), vec![BlockCv([8; 32])]);
    let at = |first| Noted { cycle: CycleNo(7), first, len: 900, hash, salt, cvs: cvs.clone() };
    assert_eq!(Noted::decode(&at(u64::MAX - 1).encode()).unwrap(), at(u64::MAX - 1));
    assert!(Noted::decode(&at(u64::MAX).encode()).unwrap_err().to_string().contains("damaged entry"));
}

#[test]
fn the_key_is_not_shown() {
    let identity = testing::identity(&MemDisk::new(SIZE));
    assert!(!format!("{identity:?}").contains("4b4b4b"));
    assert!(String::from_utf8(identity.encode()).unwrap().contains("4b4b4b"), "but kept");
}

fn entries(records: &mut FolderRecords) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut each = |entry: &[u8]| {
        found.push(entry.to_vec());
        Ok(())
    };
    records.read_log("log", &mut each).unwrap();
    found
}

#[test]
fn a_folder_keeps_records_and_logs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut records = FolderRecords::open(&path).unwrap();
    assert_eq!(records.load("a").unwrap(), None);
    records.save("a", b"one").unwrap();
    records.append("log", b"first").unwrap();
    records.append("log", b"second").unwrap();
    drop(records);
    // A process that was killed in the middle of an append.
    let log = path.join("log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(&[40, 0, 0, 0, 1, 2, 3]);
    std::fs::write(&log, bytes).unwrap();
    let mut records = FolderRecords::open(&path).unwrap();
    assert_eq!(records.load("a").unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(entries(&mut records), [b"first".to_vec(), b"second".to_vec()]);
    records.append("log", b"third").unwrap();
    assert_eq!(entries(&mut records).len(), 3);
    records.remove("log").unwrap();
    records.remove("log").unwrap();
    records.append("log", b"new").unwrap();
    assert_eq!(entries(&mut records), [b"new".to_vec()]);
}
