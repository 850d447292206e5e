//! The hydrator's ledger, and its key file.

use crate::sealed::DISK;
use sluice_hydrator::keys;
use sluice_hydrator::ledger::{
    AppliedGroup, Comparison, HexBytes, Ledger, State, TargetRecord, VerifiedCycle, Writing,
};
use sluice_hydrator::target::{Fingerprint, WriterMark};
use sluice_proto::wire::CycleRef;
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, Generation, SectorCount};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The first byte chooses: a ledger as it comes, a ledger's body, or a key file.
pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 3 {
        0 => ledger(bytes),
        1 => ledger(&sealed(bytes)),
        _ => key_file(bytes),
    }
}

/// A ledger with this body: head and checksum are right.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut out = [&b"SLUICLED\x01\0\0\0"[..], &(body.len() as u32).to_le_bytes(), body].concat();
    let sum = blake3::hash(&out);
    out.extend_from_slice(&sum.as_bytes()[..8]);
    out
}

fn ledger(bytes: &[u8]) {
    let Ok(ledger) = Ledger::decode(bytes) else { return };
    assert_eq!(Ledger::decode(&ledger.encode()).expect("our own ledger"), ledger);
    if let State::Initial { applied, .. } = &ledger.state {
        // What the hydrator and `sluice inspect` do with it.
        let blocks = applied.iter().try_fold(0_u64, |sum, group| sum.checked_add(group.blocks));
        blocks.expect("more blocks than there are numbers");
        let end = AppliedGroup::end(applied);
        let segments: Vec<_> = (0..8).map(|i| (BlockNo(i), 1, Digest([6; 32]))).collect();
        assert_eq!(AppliedGroup::present(applied, &segments).len(), segments.len());
        let mut more = applied.clone();
        AppliedGroup::push(&mut more, end, 1, Digest([6; 32]));
        assert_eq!(AppliedGroup::end(&more).0, end.0.saturating_add(1));
    }
}

/// The file is in memory, where there is a file system for that.
fn key_file(bytes: &[u8]) {
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PATH.get_or_init(|| {
        let folder = crate::folder();
        let path = folder.path().join("hydrator.key");
        (folder, path)
    });
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    std::io::Write::write_all(&mut file.expect("a file of our own"), bytes).expect("room");
    if let Ok(key) = keys::load(path) {
        assert_eq!(key.expose().len(), 64);
    }
}

/// Ledgers in each state, and a key.
pub fn seeds() -> Vec<Vec<u8>> {
    let cycle = CycleRef { cycle: CycleNo(6), manifest: Digest([4; 32]) };
    let group = AppliedGroup { first: BlockNo(0), blocks: 5, segments: 2, fold: Digest([3; 32]) };
    let states = [
        State::Idle,
        State::Initial { cycle: CycleNo(1), generation: Generation(1), applied: vec![group] },
        State::Applying { cycle },
        State::Torn { cycle: CycleNo(7) },
    ];
    let mut seeds: Vec<Vec<u8>> = vec![];
    for state in states {
        let mut ledger = Ledger { state, ..Ledger::new(DISK, ByteCount(4096)) };
        ledger.target = Some(TargetRecord { path: "/a.vhd".into(), format: "vhd".into(), made: true, device: None });
        ledger.signer = Some(HexBytes(vec![1, 2, 3]));
        let generation = Generation(2);
        ledger.verified =
            Some(VerifiedCycle { cycle, generation, digest: Digest([5; 32]), whole_disk: Some(Digest([5; 32])) });
        if let State::Applying { .. } = ledger.state {
            let before = Fingerprint { size: 4096, inode: 3, modified_ns: 1, changed_ns: -1, activity: None };
            ledger.writing = Some(Writing { mark: WriterMark(8), before });
            ledger.comparison = Some(Comparison { cycle: CycleNo(6), number: Digest([9; 32]), fingerprint: before });
            ledger.growing = Some(ByteCount(8192));
            ledger.growing_from = Some(SectorCount(8));
            ledger.growing_zeros = Some(SectorCount(12));
        }
        let bytes = ledger.encode();
        seeds.push([&[1][..], &bytes[16..bytes.len() - 8]].concat());
        seeds.push([&[0][..], &bytes].concat());
    }
    let secret = sluice_proto::keys::public_key_to_text(&[7; 64]);
    seeds.push(format!("\x02sluice-hydrator-key-1 {secret}\n").into_bytes());
    seeds
}
