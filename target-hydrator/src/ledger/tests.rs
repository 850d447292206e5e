use super::*;
use crate::state::MemoryState;
use proptest::prelude::*;
use sluice_proto::Extent;

fn ledger() -> Ledger {
    let cycle = CycleRef { cycle: CycleNo(7), manifest: Digest([3; 32]) };
    Ledger {
        target: Some(TargetRecord { path: "/srv/disk.vhd".into(), format: "vhd".into(), made: true, device: None }),
        generation: Generation(2),
        signer: Some(HexBytes(vec![1, 2, 255])),
        fingerprint: Some(Fingerprint { size: 9, inode: 8, modified_ns: -7, changed_ns: 6, activity: None }),
        verified: Some(VerifiedCycle { cycle, generation: Generation(2), digest: Digest([4; 32]), whole_disk: None }),
        state: State::Applying { cycle },
        doubt: Some("a word".into()),
        compared: Some(CycleNo(8)),
        ..Ledger::new(DiskId([5; 16]), ByteCount(1000))
    }
}

#[test]
fn a_ledger_comes_back() {
    let groups = vec![AppliedGroup { first: BlockNo(0), blocks: 3, segments: 2, fold: Digest([1; 32]) }];
    let initial = State::Initial { cycle: CycleNo(1), generation: Generation(1), applied: groups };
    for state in [State::Idle, initial, State::Torn { cycle: CycleNo(3) }] {
        let ledger = Ledger { state, ..ledger() };
        assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
    }
}

#[test]
fn a_ledger_that_knows_of_no_device_is_read_as_ever() {
    let old = ledger();
    assert!(!String::from_utf8_lossy(&old.encode()).contains("device"));
    for names in ["{}", r#"{"wwid":"naa.1"}"#] {
        let medium = serde_json::from_str(names).expect("a medium's names");
        let device = Some(DeviceRecord { medium, size: ByteCount(5) });
        let target = old.target.clone().map(|target| TargetRecord { device, ..target });
        let ledger = Ledger { target, ..old.clone() };
        assert_eq!(Ledger::decode(&ledger.encode()), Ok(ledger));
    }
}

#[test]
fn groups_out_of_order_or_beyond_all_numbers_are_refused() {
    let group = |first, blocks| AppliedGroup { first: BlockNo(first), blocks, segments: 1, fold: Digest([1; 32]) };
    let decoded = |applied| {
        let state = State::Initial { cycle: CycleNo(1), generation: Generation(1), applied };
        Ledger::decode(&Ledger { state, ..ledger() }.encode())
    };
    assert!(decoded(vec![group(0, 3), group(7, 1)]).is_ok());
    let hollow = |segments| AppliedGroup { segments, ..group(0, 65) };
    for wrong in [
        vec![group(3, 2), group(4, 1)],
        vec![group(u64::MAX, 2)],
        vec![group(0, 1), group(1, u64::MAX)],
        // More segments than a group is made of, none, and more than it has blocks.
        vec![hollow(65)],
        vec![hollow(0)],
        vec![AppliedGroup { segments: 2, ..group(0, 1) }],
    ] {
        assert!(decoded(wrong).expect_err("refused").contains("contradicts itself"));
    }
}

#[test]
fn sizes_that_no_disk_has_are_refused() {
    let decoded = |source_size, growing, growing_from: Option<u64>| {
        let growing_from = growing_from.map(SectorCount);
        let sizes = Ledger { source_size: ByteCount(source_size), growing, growing_from, ..ledger() };
        Ledger::decode(&sizes.encode())
    };
    assert!(decoded(1000, Some(ByteCount(1025)), Some(3)).is_ok());
    let beyond = Some(ByteCount((DISK_SECTORS_MAX + 1) * 512));
    for (size, growing, from) in [
        (0, None, None),
        (0, Some(ByteCount(1000)), None),
        (1000, beyond, None),
        (1000, Some(ByteCount(1025)), Some(4)),
        (1000, Some(ByteCount(1025)), Some(u64::MAX)),
    ] {
        let wrong = decoded(size, growing, from);
        assert!(wrong.expect_err("refused").contains("contradicts itself"), "{size} {growing:?} {from:?}");
    }
}

#[test]
fn a_signer_s_key_is_hexadecimal_digits_alone() {
    let good = ledger().encode();
    let text = String::from_utf8_lossy(&good[HEAD_BYTES..good.len() - SUM_BYTES]).into_owned();
    for (digits, is_good) in
        [("0102ff", true), ("0102FF", true), ("01+2ff", false), ("01 2ff", false), ("0102f", false)]
    {
        let body = text.replace("0102ff", digits);
        let head = [&good[..12], &(body.len() as u32).to_le_bytes()].concat();
        let mut bytes = [&head[..], body.as_bytes()].concat();
        bytes.extend_from_slice(&Digest::of(&bytes).0[..SUM_BYTES]);
        assert_eq!(Ledger::decode(&bytes).is_ok(), is_good, "{digits}");
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let good = ledger().encode();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(Ledger::decode(&bytes).is_err(), "byte {at}");
        assert!(Ledger::decode(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_newer_ledger_is_refused_with_what_to_do() {
    let mut bytes = ledger().encode();
    bytes[8] = 2;
    let error = Ledger::decode(&bytes).expect_err("newer");
    assert_eq!(
        error,
        "the ledger has version 2, this program knows version 1: it was written by a newer Sluice; update this one"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        if head {
            let good = ledger().encode();
            let len = bytes.len().min(20);
            bytes[..len].copy_from_slice(&good[..len]);
        }
        let _ = Ledger::decode(&bytes);
    }
}

#[tokio::test]
async fn the_ledger_of_another_disk_is_refused() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryState::default());
    let file = LedgerFile::open(store.clone(), DiskId([1; 16]), ByteCount(512)).await.expect("new");
    file.save().await.expect("saved");
    let error = LedgerFile::open(store, DiskId([2; 16]), ByteCount(512)).await.err().expect("refused").to_string();
    assert!(error.contains("give each disk a target of its own"), "{error}");
}

#[tokio::test]
async fn torn_sectors_gather_until_they_are_cleared() {
    let store = Arc::new(MemoryState::default());
    let mut file = LedgerFile::open(store, DiskId([1; 16]), ByteCount(512 * 100)).await.expect("new");
    let plan = |start| SectorBitmap::from_extents([Extent::new(start, 5)]);
    file.mark_torn(&plan(10), |_| ()).await.expect("saved");
    assert!(file.torn().await.expect("read").is_empty(), "the ledger does not count it yet");
    file.ledger.state = State::Torn { cycle: CycleNo(2) };
    file.mark_torn(&plan(50), |_| ()).await.expect("saved");
    assert_eq!(file.torn().await.expect("read").count().0, 10);
    file.ledger.state = State::Idle;
    assert!(file.torn().await.expect("read").is_empty());
    file.mark_torn(&plan(1), |_| ()).await.expect("saved");
    file.ledger.state = State::Torn { cycle: CycleNo(3) };
    assert_eq!(file.torn().await.expect("read"), plan(1), "what was healed is not counted again");
}

#[test]
fn groups_hold_what_was_applied_and_nothing_else() {
    let segments: Vec<_> = (0..200u64).map(|n| (BlockNo(n * 3), 3, Digest([n as u8; 32]))).collect();
    let mut groups = Vec::new();
    segments.iter().take(150).for_each(|s| AppliedGroup::push(&mut groups, s.0, s.1, s.2));
    assert_eq!(groups.len(), 3);
    assert_eq!(AppliedGroup::end(&groups), BlockNo(450));
    let present = AppliedGroup::present(&groups, &segments);
    assert!(present[..150].iter().all(|p| *p) && !present[150..].contains(&true));
    // Another segment in the second group: that group counts no longer.
    let mut other = segments.clone();
    other[100].2 = Digest([77; 32]);
    let present = AppliedGroup::present(&groups, &other);
    assert!(
        present[..64].iter().all(|p| *p) && !present[64..128].contains(&true) && present[128..150].iter().all(|p| *p)
    );
}
