//! The decision as a table: which cycle is taken by which target.

use super::*;
use crate::ledger::{Comparison, State, VerifiedCycle};
use sluice_proto::cycle::{Consistency, State as CycleState, TrackerKind};
use sluice_proto::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use sluice_proto::{ByteCount, CycleNo, DiskId, Extent, Generation, SectorCount};

const SECTORS: u64 = 1000;

fn reference(cycle: u64) -> CycleRef {
    CycleRef { cycle: CycleNo(cycle), manifest: Digest([cycle as u8; 32]) }
}

struct Case {
    ledger: Ledger,
    torn: SectorBitmap,
    fingerprint: Fingerprint,
    writer: Option<WriterMark>,
    work: Work,
    manifest: Manifest,
}

impl Case {
    /// A target that holds cycle 4, and a cycle 5 of this kind that follows from it.
    fn new(kind: CycleKind) -> Self {
        let (disk, generation) = (DiskId([1; 16]), Generation(1));
        let hydrator = HydratorKey::generate().expect("a pair");
        let signer = SigningKey::from_seed(&[1; 32]);
        let key = DataKey::new([1; 32]);
        let envelope = KeyEnvelope::wrap(&key, disk, generation, hydrator.public(), &signer).expect("a key");
        let size = ByteCount(SECTORS * 512);
        let verified = VerifiedCycle { cycle: reference(4), generation, digest: Digest([0; 32]), whole_disk: None };
        let fingerprint = Fingerprint { changed_ns: 7, ..Fingerprint::default() };
        let ledger =
            Ledger { verified: Some(verified), fingerprint: Some(fingerprint), generation, ..Ledger::new(disk, size) };
        let plan = SectorBitmap::from_extents([Extent::new(10, 10)]);
        let manifest = Manifest {
            disk,
            generation,
            cycle: CycleNo(5),
            suite: Suite::Aes256Gcm,
            salt: [0; 32],
            kind,
            consistency: Consistency::Fuzzy,
            tracker: TrackerKind::Scan,
            disk_bytes: size,
            previous: Some(Previous { cycle: CycleNo(4), manifest: reference(4).manifest }),
            plan: if kind == CycleKind::Initial { SectorBitmap::full(SectorCount(SECTORS)) } else { plan },
            segments: Vec::new(),
            digest: Digest([0; 32]),
            whole_disk: (kind == CycleKind::Final).then_some(Digest([0; 32])),
            comparison: (kind == CycleKind::Resync).then_some(Digest([5; 32])),
        };
        let work = Work {
            disk,
            name: String::new(),
            size,
            generation,
            envelope,
            cycle: CycleNo(5),
            kind,
            state: CycleState::Applying,
            sectors: manifest.plan.count(),
            stored: Vec::new(),
            manifest: Some(reference(5).manifest),
            verified: Some(reference(4)),
            applied: sluice_proto::BlockNo(0),
            digests_wanted: false,
            read_rate: None,
        };
        let writer = Some(WriterMark::NOBODY);
        Self { ledger, torn: SectorBitmap::new(), fingerprint, writer, work, manifest }
    }

    fn judge(&self) -> Option<FailReason> {
        let Self { ledger, torn, fingerprint, writer, work, manifest } = self;
        let hash = reference(5).manifest;
        let writer = *writer;
        let facts = Facts { ledger, torn, fingerprint, writer, work, manifest, hash, allow_plain: false };
        facts.judge().err().map(|failure| failure.reason)
    }
}

const ALL: [CycleKind; 4] = [CycleKind::Initial, CycleKind::Delta, CycleKind::Resync, CycleKind::Final];
const BASED: [CycleKind; 3] = [CycleKind::Delta, CycleKind::Resync, CycleKind::Final];

#[test]
fn a_cycle_that_follows_is_taken() {
    for kind in ALL {
        assert_eq!(Case::new(kind).judge(), None, "{kind}");
    }
}

#[test]
fn doubt_and_change_leave_only_what_compares_or_replaces_all() {
    type Change = fn(&mut Case);
    let changes: [Change; 5] = [
        |case| case.fingerprint.changed_ns += 1,
        |case| case.ledger.doubt = Some("a reason".into()),
        |case| case.ledger.verified = None,
        |case| case.torn.set(Extent::new(9, 1)),
        |case| {
            case.ledger.verified.as_mut().expect("set").cycle = reference(3);
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for kind in BASED {
            let mut case = Case::new(kind);
            change(&mut case);
            assert_eq!(case.judge(), Some(FailReason::TargetChanged), "change {number} and {kind}");
        }
        let mut initial = Case::new(CycleKind::Initial);
        change(&mut initial);
        assert_eq!(initial.judge(), None, "change {number}");
        // A resync for which this very target was compared; but not where it was changed after that.
        let mut resync = Case::new(CycleKind::Resync);
        resync.ledger.compared = Some(CycleNo(5));
        let fingerprint = resync.fingerprint;
        resync.ledger.comparison = Some(Comparison { cycle: CycleNo(5), number: Digest([5; 32]), fingerprint });
        change(&mut resync);
        assert_eq!(resync.judge(), (number == 0).then_some(FailReason::TargetChanged), "change {number}");
        resync.manifest.comparison = Some(Digest([6; 32]));
        assert_eq!(resync.judge(), Some(FailReason::TargetChanged), "change {number}: compared by another hydrator");
        resync.manifest.comparison = Some(Digest([5; 32]));
        resync.ledger.compared = Some(CycleNo(4));
        assert_eq!(resync.judge(), Some(FailReason::TargetChanged), "change {number}: compared for another cycle");
    }
}

#[test]
fn torn_sectors_must_come_again() {
    let mut case = Case::new(CycleKind::Delta);
    case.torn.set(Extent::new(12, 4));
    assert_eq!(case.judge(), None);
    case.torn.set(Extent::new(19, 2));
    assert_eq!(case.judge(), Some(FailReason::TargetChanged));
}

#[test]
fn a_cycle_that_was_being_applied_is_taken_up_again() {
    for kind in ALL {
        let mut case = Case::new(kind);
        case.ledger.state = State::Applying { cycle: reference(5) };
        case.torn.set(Extent::new(500, 1));
        let noted = case.ledger.fingerprint.take();
        assert_eq!(case.judge(), None, "{kind}");
        // It was looked at since, and is not what the cycle was begun on.
        case.ledger.fingerprint = noted;
        case.ledger.doubt = Some("a reason".into());
        assert_eq!(case.judge(), (kind != CycleKind::Initial).then_some(FailReason::TargetChanged), "{kind}");
    }
}

/// As where agent and appliance were put back, and the agent made a plan of the same number anew.
#[test]
fn another_plan_than_the_one_begun_is_refused_where_nothing_is_proven_yet() {
    let mut case = Case::new(CycleKind::Resync);
    (case.ledger.verified, case.ledger.fingerprint) = (None, None);
    case.ledger.state = State::Applying { cycle: reference(5) };
    assert_eq!(case.judge(), None);
    case.ledger.state = State::Applying { cycle: CycleRef { cycle: CycleNo(5), manifest: Digest([6; 32]) } };
    assert_eq!(case.judge(), Some(FailReason::TargetChanged));
}

#[test]
fn a_cycle_that_was_begun_is_not_gone_on_with_where_another_has_written_since() {
    let (own, other) = (WriterMark(1), WriterMark(2));
    for kind in BASED {
        for same_cycle in [true, false] {
            let mut case = Case::new(kind);
            case.ledger.state = State::Applying { cycle: reference(if same_cycle { 5 } else { 4 }) };
            case.ledger.fingerprint = None;
            let before = case.fingerprint;
            case.ledger.writing = Some(Writing { mark: own, before });
            case.writer = Some(other);
            assert_eq!(case.judge(), None, "{kind}: the crash came before the mark was put");
            case.fingerprint.changed_ns += 1;
            assert_eq!(case.judge(), Some(FailReason::TargetChanged), "{kind}");
            case.writer = Some(WriterMark::NOBODY);
            assert_eq!(case.judge(), Some(FailReason::TargetChanged), "{kind}: a copy of the target");
            for taken in [Some(own), None] {
                case.writer = taken;
                assert_eq!(case.judge(), None, "{kind} {taken:?}");
            }
        }
    }
}

#[test]
fn what_is_not_of_this_cycle_is_refused() {
    for kind in ALL {
        let refused = |change: fn(&mut Case)| {
            let mut case = Case::new(kind);
            change(&mut case);
            case.judge()
        };
        let corrupt = Some(FailReason::ManifestCorrupt);
        assert_eq!(refused(|c| c.manifest.disk = DiskId([2; 16])), corrupt);
        assert_eq!(refused(|c| c.manifest.generation = Generation(2)), corrupt);
        assert_eq!(refused(|c| c.manifest.cycle = CycleNo(6)), corrupt);
        assert_eq!(refused(|c| c.manifest.suite = Suite::Plain), corrupt);
        assert_eq!(refused(|c| c.ledger.verified.as_mut().expect("set").cycle.cycle = CycleNo(5)), corrupt);
        assert_eq!(refused(|c| c.manifest.disk_bytes.0 += 1), Some(FailReason::SourceChangedSize));
        assert_eq!(refused(|c| c.work.size.0 += 512), Some(FailReason::SourceChangedSize));
    }
    let mut out_of_turn = Case::new(CycleKind::Delta);
    out_of_turn.manifest.previous = None;
    assert_eq!(out_of_turn.judge(), Some(FailReason::ManifestCorrupt));
    let mut part = Case::new(CycleKind::Initial);
    part.manifest.plan.clear(Extent::new(0, 1));
    assert_eq!(part.judge(), Some(FailReason::ManifestCorrupt));
    let mut unproven = Case::new(CycleKind::Final);
    unproven.manifest.whole_disk = None;
    assert_eq!(unproven.judge(), Some(FailReason::ManifestCorrupt));
}
