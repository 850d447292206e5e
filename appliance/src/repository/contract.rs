//! What every repository must do; each implementation runs it in its own tests, on an empty repository.

use super::{CycleRecord, DiskRecord, LogEntry, MemoryRepository, Repository, RepositoryErrorKind};
use sluice_proto::cycle::{Consistency, CycleKind, FailReason, State as CycleState, TrackerKind};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::keys::KeyEnvelope;
use sluice_proto::wire::{CycleRef, Lease, PolicyView, StoredSegment, WindowView};
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, DiskId, Generation, SectorCount};

pub(crate) const DISK: DiskId = DiskId([1; 16]);
const OTHER: DiskId = DiskId([2; 16]);

/// A disk with every field set.
pub(crate) fn disk_record(disk: DiskId, generation: Generation) -> DiskRecord {
    DiskRecord {
        disk,
        name: "web-1 /dev/sda \u{fc}".into(),
        agent: "web-1".into(),
        hydrator: Some("main".into()),
        size: ByteCount(64 << 40),
        logical_sector: 4096,
        generation,
        envelope: KeyEnvelope {
            disk,
            generation,
            hydrator: Digest([3; 32]),
            encapsulated: vec![4; 32],
            sealed: vec![5; 48],
            signer: vec![6; 32],
            signature: vec![7; 64],
        },
        phase: DiskPhase::InStep,
        verified: Some(CycleRef { cycle: CycleNo(6), manifest: Digest([8; 32]) }),
        verified_start_ms: Some(1_700_000_000_000),
        newest: CycleNo(7),
        settled: CycleNo(5),
        lease: Lease(9),
        final_wanted: true,
        compared_ms: Some(1_700_000_000_001),
        failures: 2,
    }
}

/// A cycle that was just ordered.
pub(crate) fn cycle_record(disk: DiskId, cycle: u64) -> CycleRecord {
    CycleRecord::planned(disk, CycleNo(cycle), Generation(2), CycleKind::Delta, 1000 + cycle)
}

fn full_cycle(disk: DiskId, cycle: u64) -> CycleRecord {
    CycleRecord {
        kind: CycleKind::Final,
        state: CycleState::Failed,
        previous: Some(CycleRef { cycle: CycleNo(cycle - 1), manifest: Digest([1; 32]) }),
        read_rate: Some(1 << 20),
        tracker: Some(TrackerKind::Ebpf),
        consistency: Some(Consistency::Crash),
        sectors: SectorCount(10),
        sectors_stored: SectorCount(9),
        bytes_sent: ByteCount(4096),
        manifest: Some(Digest([2; 32])),
        digests_wanted: true,
        end_ms: Some(5000),
        source_digest: Some(Digest([3; 32])),
        target_digest: Some(Digest([4; 32])),
        whole_disk: Some(Digest([5; 32])),
        proof: Some(Digest([6; 32])),
        bitmaps_equal: Some(false),
        reason: Some(FailReason::DigestMismatch),
        detail: Some("other bytes".into()),
        ..cycle_record(disk, cycle)
    }
}

fn segment(name: &str, first: u64) -> StoredSegment {
    StoredSegment {
        name: name.into(),
        first: BlockNo(first),
        blocks: 2,
        len: ByteCount(100),
        hash: Digest([first as u8; 32]),
    }
}

/// Runs the whole contract on an empty repository.
pub(crate) async fn run(repository: &dyn Repository) {
    disks_and_cycles(repository).await;
    generations(repository).await;
    segments(repository).await;
    pruning(repository).await;
    policy_and_log(repository).await;
}

async fn disks_and_cycles(r: &dyn Repository) {
    assert_eq!(r.disks().await.unwrap(), []);
    assert_eq!(r.cycle(DISK, CycleNo(1)).await.unwrap(), None);
    let mut disk = disk_record(DISK, Generation(2));
    r.save(&disk, None).await.unwrap();
    assert_eq!(r.disks().await.unwrap(), [disk.clone()]);
    disk.hydrator = None;
    disk.verified = None;
    disk.name = "renamed".into();
    let (first, second, third) = (full_cycle(DISK, 1), cycle_record(DISK, 2), full_cycle(DISK, 3));
    for cycle in [&first, &second, &third] {
        r.save(&disk, Some(cycle)).await.unwrap();
    }
    assert_eq!(r.disks().await.unwrap(), [disk.clone()]);
    assert_eq!(r.cycle(DISK, CycleNo(1)).await.unwrap(), Some(first.clone()));
    assert_eq!(r.cycles(DISK, 2).await.unwrap(), [third.clone(), second]);
    assert_eq!(r.cycles(OTHER, 2).await.unwrap(), []);
    assert_eq!(r.first_ended(DISK, CycleNo(0)).await.unwrap(), Some(first));
    assert_eq!(r.first_ended(DISK, CycleNo(1)).await.unwrap(), Some(third));
    assert_eq!(r.first_ended(DISK, CycleNo(3)).await.unwrap(), None);
    let foreign = r.save(&disk, Some(&cycle_record(OTHER, 9))).await;
    assert!(foreign.is_err(), "a cycle of another disk was saved");
    assert_eq!(r.cycle(OTHER, CycleNo(9)).await.unwrap(), None);
}

async fn generations(r: &dyn Repository) {
    let before = r.disks().await.unwrap();
    let old = r.save(&disk_record(DISK, Generation(1)), Some(&cycle_record(DISK, 4))).await;
    assert_eq!(old.unwrap_err().kind(), RepositoryErrorKind::OldGeneration);
    assert_eq!(r.disks().await.unwrap(), before);
    assert_eq!(r.cycle(DISK, CycleNo(4)).await.unwrap(), None, "half of a refused save was kept");
    let cycle = CycleRecord { generation: Generation(1), ..cycle_record(DISK, 4) };
    let old = r.add_segment(&cycle, &segment("a", 0)).await;
    assert_eq!(old.unwrap_err().kind(), RepositoryErrorKind::OldGeneration);
    let unknown = r.add_segment(&cycle_record(OTHER, 4), &segment("a", 0)).await;
    assert_eq!(unknown.unwrap_err().kind(), RepositoryErrorKind::NoSuchDisk);
}

async fn segments(r: &dyn Repository) {
    let mut cycle = cycle_record(DISK, 4);
    for (name, first) in [("b", 2), ("a", 0), ("c", 4)] {
        cycle.bytes_sent.0 += 100;
        r.add_segment(&cycle, &segment(name, first)).await.unwrap();
    }
    assert_eq!(r.cycle(DISK, CycleNo(4)).await.unwrap(), Some(cycle.clone()));
    r.add_segment(&cycle, &segment("a", 7)).await.unwrap();
    let all = [segment("a", 7), segment("b", 2), segment("c", 4)];
    assert_eq!(r.segments(DISK, CycleNo(4)).await.unwrap(), all);
    assert_eq!(r.segments(DISK, CycleNo(3)).await.unwrap(), []);
    let names = ["b".to_owned(), "none".to_owned()];
    r.forget_segments(DISK, CycleNo(4), Some(&names)).await.unwrap();
    assert_eq!(r.segments(DISK, CycleNo(4)).await.unwrap(), [segment("a", 7), segment("c", 4)]);
    r.forget_segments(DISK, CycleNo(4), None).await.unwrap();
    assert_eq!(r.segments(DISK, CycleNo(4)).await.unwrap(), []);
    r.add_segment(&cycle, &segment("a", 0)).await.unwrap();
}

/// Of the cycles 1 to 4, 2 and 4 are open.
async fn pruning(r: &dyn Repository) {
    r.prune_cycles(DISK, 2).await.unwrap();
    let left: Vec<u64> = r.cycles(DISK, 9).await.unwrap().iter().map(|c| c.cycle.0).collect();
    assert_eq!(left, [4, 3, 2]);
    assert_eq!(r.segments(DISK, CycleNo(4)).await.unwrap().len(), 1);
}

async fn policy_and_log(r: &dyn Repository) {
    assert_eq!(r.policy().await.unwrap(), None);
    let mut policy = PolicyView { min_interval_ms: 1, scrub_rate: Some(3), ..PolicyView::default() };
    policy.windows.push(WindowView { when: "08:00-18:00".into(), limit: "20Mbit/s".into() });
    r.set_policy(&PolicyView::default()).await.unwrap();
    r.set_policy(&policy).await.unwrap();
    assert_eq!(r.policy().await.unwrap(), Some(policy));
    let entry = |at_ms, disk| LogEntry {
        at_ms,
        who: "operator anna".into(),
        disk,
        what: "policy_set".into(),
        detail: "20Mbit/s".into(),
    };
    let entries = [entry(1, None), entry(2, Some(DISK)), entry(2, None)];
    for entry in &entries {
        r.log(entry).await.unwrap();
    }
    let [first, second, third] = entries;
    assert_eq!(r.log_entries(None, 2).await.unwrap(), [third.clone(), second.clone()]);
    assert_eq!(r.log_entries(None, 9).await.unwrap(), [third, second.clone(), first]);
    assert_eq!(r.log_entries(Some(DISK), 9).await.unwrap(), [second]);
}

#[tokio::test]
async fn memory_repository_keeps_the_contract() {
    run(&MemoryRepository::new()).await;
}
