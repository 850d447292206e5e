use super::Happened;
use sluice_proto::cycle::FailReason::{self, *};
use sluice_proto::manifest::{MANIFEST_NAME, cycle_folder};
use sluice_proto::{CycleNo, DiskId, Generation};

const DISK: DiskId = DiskId([7; 16]);
const OTHER_DISK: DiskId = DiskId([8; 16]);
const CYCLE: CycleNo = CycleNo(5);
const SEGMENT: &str = "s0000000016-dbee7fe1b1cf4f45.seg";

fn key(disk: DiskId, cycle: u64, name: &str) -> String {
    format!("{}/{name}", cycle_folder(disk, Generation(1), CycleNo(cycle)))
}

/// A round in which no cycle may fail.
fn nothing() -> Happened {
    let name = "disk-1".to_owned();
    Happened { disk: DISK, name, sizes: vec![4096], flipped: Vec::new(), target_was_full: false }
}

fn flipped(key: String) -> Happened {
    Happened { flipped: vec![key], ..nothing() }
}

fn grown(sizes: &[u64]) -> Happened {
    Happened { sizes: sizes.to_vec(), ..nothing() }
}

fn full() -> Happened {
    Happened { target_was_full: true, ..nothing() }
}

/// A round in which everything was done to the cycle.
fn everything() -> Happened {
    let flipped = [SEGMENT, MANIFEST_NAME, "digests-000000"].map(|name| key(DISK, CYCLE.0, name)).to_vec();
    Happened { sizes: vec![4096, 4608, 8192], flipped, target_was_full: true, ..nothing() }
}

/// How each reason that can be explained is told, and what explains it.
fn told() -> [(FailReason, String, Happened); 6] {
    let manifest = key(DISK, CYCLE.0, MANIFEST_NAME);
    [
        (
            SegmentCorrupt,
            format!("segment {SEGMENT}: changed since it was written"),
            flipped(key(DISK, CYCLE.0, SEGMENT)),
        ),
        (ManifestCorrupt, format!("manifest {manifest}: its BLAKE3 is another"), flipped(manifest)),
        (Other, "the target's digests: forged".into(), flipped(key(DISK, CYCLE.0, "digests-000000"))),
        (
            SourceChangedSize,
            "disk-1: the source had 4096 bytes and has 4608 now; and so on".into(),
            grown(&[4096, 4608]),
        ),
        (Abandoned, "generation 2 began in the middle of it".into(), grown(&[4096, 4608])),
        (TargetFull, "cannot write disk-1.vhdx: No space left on device (os error 28)".into(), full()),
    ]
}

#[test]
fn a_reason_is_explained_by_its_fault_and_by_no_other() {
    for (reason, text, _) in told() {
        assert!(!nothing().explains(CYCLE, Some(reason), &text), "{reason:?} where nothing was done");
        for (of, _, fault) in told() {
            // Growing is told in two ways.
            let same = reason == of || [reason, of].iter().all(|r| matches!(r, SourceChangedSize | Abandoned));
            assert_eq!(fault.explains(CYCLE, Some(reason), &text), same, "{reason:?} by what leads to {of:?}");
        }
    }
}

#[test]
fn a_text_that_tells_of_something_else_is_not_explained() {
    for reason in FailReason::ALL {
        for (of, text, _) in told().into_iter().filter(|(of, ..)| of != reason) {
            assert!(!everything().explains(CYCLE, Some(*reason), &text), "{reason:?} in the words of {of:?}");
        }
        assert!(!everything().explains(CYCLE, Some(*reason), ""), "{reason:?} without a word");
    }
}

#[test]
fn no_fault_explains_what_nobody_does() {
    let never = [BitmapMismatch, DigestMismatch, WrongKey, SourceRead, TargetWrite, TargetChanged, SourceNotAtRest];
    let known: Vec<FailReason> = told().iter().map(|(reason, ..)| *reason).chain(never).collect();
    assert!(FailReason::ALL.iter().all(|reason| known.contains(reason)), "a reason is in neither list");
    for text in told().iter().map(|(_, text, _)| text) {
        for reason in never {
            assert!(!everything().explains(CYCLE, Some(reason), text), "{reason:?}: {text}");
        }
        assert!(!everything().explains(CYCLE, None, text), "no reason: {text}");
    }
}

#[test]
fn a_flipped_bit_explains_only_the_cycle_and_the_object_that_it_is_in() {
    let text = format!("segment {SEGMENT}: changed since it was written");
    let explains = |key: String| flipped(key).explains(CYCLE, Some(SegmentCorrupt), &text);
    assert!(explains(key(DISK, CYCLE.0, SEGMENT)));
    assert!(!explains(key(OTHER_DISK, CYCLE.0, SEGMENT)), "another disk's");
    assert!(!explains(key(DISK, CYCLE.0 - 1, SEGMENT)), "another cycle's");
    assert!(!explains(key(DISK, CYCLE.0, "s0000000016-0000000000000000.seg")), "another segment");
    assert!(!explains(key(DISK, CYCLE.0, MANIFEST_NAME)), "the manifest");
    assert!(!explains(SEGMENT.to_owned()), "in no cycle's folder");
}

#[test]
fn a_disk_that_grew_explains_its_own_sizes_in_their_order() {
    let disk = grown(&[4096, 4608, 8192]);
    let explains = |text: &str| disk.explains(CYCLE, Some(SourceChangedSize), text);
    // Twice, and the agent was away in between.
    assert!(explains("disk-1: the source had 4096 bytes and has 8192 now"));
    assert!(!explains("disk-1: the source had 8192 bytes and has 4608 now"), "it never shrank");
    assert!(!explains("disk-1: the source had 4096 bytes and has 4096 now"), "it had that size");
    assert!(!explains("disk-1: the source had 4096 bytes and has 5120 now"), "it never had that size");
    assert!(!explains("disk-0: the source had 4096 bytes and has 4608 now"), "another disk");
}

#[test]
fn a_disk_has_no_more_generations_than_sizes() {
    let explains = |n: u64| {
        let text = format!("generation {n} began in the middle of it");
        grown(&[4096, 4608, 8192]).explains(CYCLE, Some(Abandoned), &text)
    };
    assert_eq!([1, 2, 3, 4].map(explains), [false, true, true, false]);
}
