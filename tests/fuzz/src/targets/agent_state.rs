//! What the agent finds of a disk when it starts: its journal, a good one in which one record is the input's; and the area
//! that its programs mark in.

use crate::fields::{Fields, flag};
use crate::sealed::{DISK, key, mend_bitmap};
use sluice_agent::compare::{Base, LocalTable};
use sluice_agent::journal::{EachEntry, Identity, Journal, JournalError, Noted, Plan, Records, Stored};
use sluice_agent::tracker::{TrackingEpoch, ebpf as tracker};
use sluice_proto::cycle::{CycleKind, TrackerKind};
use sluice_proto::keys::KeyEnvelope;
use sluice_proto::stream::BlockCv;
use sluice_proto::wire::CycleRef;
use sluice_proto::{ByteCount, CycleNo, DISK_SECTORS_MAX, Digest, Extent, SectorBitmap, SectorCount};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

const SIZE: ByteCount = ByteCount(2 << 20);
const NAMES: [&str; 4] = ["disk.json", "plan.json", "plan.bitmap", "carry.bitmap"];
const LOG: &str = "segments.log";

/// Records in memory, behind whoever has them open.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    records: BTreeMap<String, Vec<u8>>,
    logs: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().expect("no thread panics while it holds this"))
    }

    fn len_of(&self, name: &str) -> usize {
        self.with(|state| state.records.get(name).map_or(0, Vec::len))
    }
}

impl Records for Memory {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.with(|state| state.records.get(name).cloned()))
    }
    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.with(|state| drop(state.records.insert(name.to_owned(), bytes.to_vec())));
        Ok(())
    }
    fn remove(&mut self, name: &str) -> Result<(), JournalError> {
        self.with(|state| (state.records.remove(name), state.logs.remove(name)));
        Ok(())
    }
    fn read_log(&mut self, name: &str, each: &mut EachEntry<'_>) -> Result<(), JournalError> {
        self.with(|state| state.logs.get(name).into_iter().flatten().try_for_each(|entry| each(entry)))
    }
    fn append(&mut self, name: &str, entry: &[u8]) -> Result<(), JournalError> {
        self.with(|state| state.logs.entry(name.to_owned()).or_default().push(entry.to_vec()));
        Ok(())
    }
}

/// The first byte chooses the record; its highest bit makes a bitmap's header right.
pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    // Added later: other numbers mean what they did when the corpus was begun.
    if *choice == AREA {
        return area(bytes);
    }
    let mut bytes = bytes.to_vec();
    if flag(*choice, 7) {
        mend_bitmap(&mut bytes);
    }
    let records = Memory(Arc::new(Mutex::new(good().clone())));
    match (choice & 0x7f) % 6 {
        4 => {
            let mut fields = Fields::of(&bytes);
            let mut entries = Vec::new();
            while !fields.is_empty() {
                entries.push(fields.counted().to_vec());
            }
            records.with(|state| state.logs.insert(LOG.to_owned(), entries));
        }
        5 => return table(&records, &bytes),
        record => {
            let name = NAMES[usize::from(record)].to_owned();
            records.with(|state| state.records.insert(name, bytes));
        }
    }
    journal(&records);
}

/// What opens says the same when it is opened again, and lets go of nothing when its cycle fails.
fn journal(records: &Memory) {
    let open = || match Journal::open(Box::new(records.clone())) {
        Ok(Ok(journal)) => Some(journal),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(journal) = open() else { return };
    let seen = facts(&journal);
    drop(journal);
    let mut journal = open().expect("it was opened before");
    assert_eq!(facts(&journal), seen);
    let mut planned = journal.carry().clone();
    if let Some((_, bitmap)) = journal.plan() {
        planned.union_with(bitmap);
    }
    journal.keep_stored(|_| true);
    let mut behind = 0;
    for segment in journal.stored().iter() {
        assert!(segment.first >= behind, "two segments overlap");
        behind = segment.first.checked_add(segment.blocks).expect("a stream ends");
    }
    let from_the_first_on =
        journal.stored().stretches().first().filter(|(first, _)| *first == 0).map_or(0, |(_, end)| *end);
    assert_eq!(journal.digest().expect("it was read before").blocks(), from_the_first_on);
    let disk = journal.identity().size.sectors_ceil();
    assert!(planned.last().is_none_or(|last| last.0 < disk.0), "a sector beyond the disk");
    journal.failed(journal.identity().settled.next()).expect("records in memory");
    assert!(journal.plan().is_none() && *journal.carry() == planned, "a failed cycle's sectors were let go");
    drop(journal);
    let again = open().expect("our own records");
    assert!(*again.carry() == planned);
}

type Facts = (Identity, Option<(Plan, SectorBitmap)>, SectorBitmap, Vec<Stored>);

fn facts(journal: &Journal) -> Facts {
    let plan = journal.plan().map(|(plan, bitmap)| (plan.clone(), bitmap.clone()));
    (journal.identity().clone(), plan, journal.carry().clone(), journal.stored().iter().collect())
}

/// The scan tracker's own table: the tag, then a part.
fn table(records: &Memory, bytes: &[u8]) {
    let mut fields = Fields::of(bytes);
    let tag = fields.counted().to_vec();
    let part = fields.rest().to_vec();
    let whole = part.len() == 32 * 32;
    records.with(|state| {
        state.records.insert("digests.json".to_owned(), tag);
        state.records.insert("digests-000000".to_owned(), part);
    });
    let mut table = LocalTable::new(Box::new(records.clone()), SIZE.sectors_ceil());
    let next = CycleRef { cycle: CycleNo(7), ..verified() };
    let (_, claimed) = (table.is_of(verified()), table.is_of(next));
    table.begin(Base::Kept);
    table.note(&[(3, Digest([9; 32])), (1 << 20, Digest([9; 32]))]);
    // The next cycle: a part of another length must never be believed to be what it left. Who reads it finds out.
    table.verified(next);
    let believed = table.is_of(next) && !claimed;
    assert!(!believed || whole, "a part of {} bytes is believed", records.len_of("digests-000000"));
    if believed {
        assert_eq!(records.len_of("digests-000000"), 32 * 32);
    }
}

fn verified() -> CycleRef {
    CycleRef { cycle: CycleNo(6), manifest: Digest([4; 32]) }
}

/// The input that is an area.
const AREA: u8 = 6;
/// Words of an area's header, and the first of its identity.
const HEADER_WORDS: u64 = 512;
const IDENTITY_AT: u64 = 64;

/// An area by its header. The first byte says whether it is as large as the identity claims; its 14 words follow. What is
/// read of it is written the same.
fn area(bytes: &[u8]) {
    let mut fields = Fields::of(bytes);
    let (flags, other_size) = (fields.u8(), fields.number());
    let found: [u64; 14] = std::array::from_fn(|_| fields.u64());
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let area = |words: u64| {
        // Whatever its size, only its first page is looked at.
        let file = tempfile::tempfile_in(FOLDER.get_or_init(crate::folder)).expect("a file of our own");
        file.set_len(8 * HEADER_WORDS).expect("a page");
        tracker::Area::new(file.into(), words)
    };
    let words = if flag(flags, 0) { found[13] } else { other_size };
    let Ok(claimed) = area(words) else { return };
    if words >= HEADER_WORDS {
        (IDENTITY_AT..).zip(found).for_each(|(at, word)| claimed.store(at, word));
    }
    let Ok(identity) = tracker::Identity::read(&claimed) else { return };
    let again = area(words).expect("as before");
    identity.write(&again);
    (IDENTITY_AT..).zip(found).for_each(|(at, word)| assert_eq!(again.load(at), word, "word {at}"));
    assert_eq!(tracker::Identity::read(&again).expect("our own identity"), identity);
}

/// What the agent writes for a disk of so many sectors, as an input.
fn identity(sectors: u64, leaf_bits: u32) -> Vec<u8> {
    let facts =
        tracker::Facts { device: 7 << 8, disk_seq: 5, first: 2048, sectors, zone_sectors: 0, requests: sectors > 8 };
    let epoch = TrackingEpoch { run: [1; 16], boot: [2; 16] };
    let file = tempfile::tempfile().expect("a file of our own");
    file.set_len(8 * HEADER_WORDS).expect("a page");
    let written = tracker::Area::new(file.into(), HEADER_WORDS).expect("a page");
    tracker::Identity { epoch, facts, leaf_bits }.write(&written);
    let words = (IDENTITY_AT..IDENTITY_AT + 14).flat_map(|at| written.load(at).to_le_bytes());
    [AREA, 1, 0].into_iter().chain(words).collect()
}

/// A journal in the middle of a cycle.
fn good() -> &'static State {
    static GOOD: OnceLock<State> = OnceLock::new();
    GOOD.get_or_init(|| {
        let memory = Memory::default();
        let sample = include_bytes!("../../../../proto/samples/v1-key-envelope.json");
        let envelope: KeyEnvelope = serde_json::from_slice(sample).expect("the sample");
        let identity = Identity::new(DISK, SIZE, &key(), envelope);
        let mut journal = Journal::create(Box::new(memory.clone()), identity).expect("records in memory");
        journal.verified(verified()).expect("records in memory");
        let plan = Plan::new(CycleNo(7), CycleKind::Delta, TrackerKind::Ebpf, Some(verified()));
        let dirty = SectorBitmap::from_extents([Extent::new(5, 3000), Extent::new(4000, 9)]);
        journal.begin(plan, dirty).expect("records in memory");
        journal.note_stored(stored(0)).expect("records in memory");
        journal.add_carry(&SectorBitmap::from_extents([Extent::new(77, 1)])).expect("records in memory");
        memory.with(|state| state.clone())
    })
}

fn stored(first: u64) -> Noted {
    let (hash, salt) = (Digest([6; 32]), Digest([7; 32]));
    Noted { cycle: CycleNo(7), first, len: 900, hash, salt, cvs: vec![BlockCv([8; 32])] }
}

/// The good records, one by one.
pub fn seeds() -> Vec<Vec<u8>> {
    let good = good();
    let mut seeds: Vec<Vec<u8>> =
        (0_u8..).zip(NAMES).map(|(number, name)| [&[number][..], &good.records[name]].concat()).collect();
    let full = SectorBitmap::full(SectorCount(4096)).encode();
    seeds.push([&[0x83][..], &full].concat());
    let entry = &good.logs[LOG][0];
    let counted = [&(entry.len() as u16).to_le_bytes()[..], entry].concat();
    seeds.push([&[4][..], &counted, &counted].concat());
    let tag = format!(r#"{{"sectors":4096,"verified":{{"cycle":6,"manifest":"{}"}}}}"#, Digest([4; 32]));
    seeds.push([&[5][..], &(tag.len() as u16).to_le_bytes(), tag.as_bytes(), &[1; 32 * 32]].concat());
    seeds.extend([identity(1000, 20), identity(DISK_SECTORS_MAX, 20), identity(8, 1)]);
    seeds
}
