//! One sample for each message and stored object in each version, in `proto/samples/`: what was once written must stay
//! readable. `SLUICE_SAMPLES=write` writes the samples that are not there yet; it never replaces one.

use crate::cycle::{Consistency, CycleKind, FailReason, State as CycleState, TrackerKind};
use crate::digests::{ZERO_GRAIN, open_part, seal_part};
use crate::disk::State as DiskPhase;
use crate::header::{Header, ObjectKind, Suite};
use crate::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use crate::manifest::{Manifest, Previous, SegmentEntry};
use crate::segment::{BlockDecoder, BlockEncoder, FrameData, Segment, SegmentWriter};
use crate::stream::Digest;
use crate::units::{BlockNo, ByteCount, CycleNo, DiskId, Extent, Generation, SectorCount};
use crate::wire::*;
use crate::{FormatError, FormatErrorKind, SectorBitmap};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::path::PathBuf;

const DISK: DiskId = DiskId([0x11; 16]);
const SECTORS: SectorCount = SectorCount(4096);

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// The sample, written first where it is not there and that was asked for.
fn sample(name: &str, fresh: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var("SLUICE_SAMPLES").is_ok_and(|v| v == "write") {
        std::fs::write(&path, fresh()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run once with SLUICE_SAMPLES=write", path.display()))
}

fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: T) {
    let json = |value: &T| serde_json::to_string_pretty(value).unwrap() + "\n";
    let kept = String::from_utf8(sample(&format!("v1-{name}.json"), || json(&value).into_bytes())).unwrap();
    assert_eq!(serde_json::from_str::<T>(&kept).unwrap(), value, "{name}");
    assert_eq!(kept, json(&value), "{name}");
}

fn envelope() -> KeyEnvelope {
    let fresh = || {
        let hydrator = HydratorKey::generate().unwrap();
        std::fs::write(path("v1-hydrator.key"), hydrator.expose()).unwrap();
        let signer = SigningKey::from_seed(&[3; 32]);
        let made = KeyEnvelope::wrap(&key(), DISK, Generation(2), hydrator.public(), &signer).unwrap();
        serde_json::to_vec_pretty(&made).unwrap()
    };
    serde_json::from_slice(&sample("v1-key-envelope.json", fresh)).unwrap()
}

fn key() -> DataKey {
    DataKey::new([0x22; 32])
}

fn header(kind: ObjectKind) -> Header {
    Header {
        kind,
        suite: Suite::Aes256Gcm,
        disk: DISK,
        generation: Generation(2),
        cycle: CycleNo(7),
        salt: [0x33; 32],
        fields: [0; 3],
    }
}

#[test]
fn the_key_envelope_opens() {
    let envelope = envelope();
    let hydrator = HydratorKey::from_bytes(&std::fs::read(path("v1-hydrator.key")).unwrap()).unwrap();
    assert_eq!(envelope.open(&hydrator, None).unwrap().expose(), key().expose());
}

#[test]
fn agents_messages() {
    let size = ByteCount(SECTORS.bytes().0);
    let cycle_ref = CycleRef { cycle: CycleNo(6), manifest: Digest([4; 32]) };
    let register = RegisterRequest {
        name: "db1:/dev/vda".into(),
        size,
        logical_sector: 512,
        generation: Generation(2),
        envelope: envelope(),
    };
    message("register-request", register);
    let open = Some((CycleNo(7), CycleState::Shipping));
    message("disk-status", DiskStatus { generation: Generation(2), verified: Some(cycle_ref), open });
    let next =
        NextRequest { generation: Generation(2), settled: CycleNo(6), running: Some(CycleNo(7)), wait_ms: 20_000 };
    message("next-request", next);
    let verified = |proof| {
        let (cycle, manifest, target_digest) = (CycleNo(6), Digest([4; 32]), Digest([5; 32]));
        let verdict = Some(Verdict::Verified { cycle, manifest, target_digest, proof });
        NextReply { verdict, start: None, due_ms: None }
    };
    message("next-reply-verified", verified(None));
    message("next-reply-proven", verified(Some(key().proof(Digest([4; 32])))));
    let detail = "target: 8 sectors differ".into();
    let failed = Verdict::Failed { cycle: CycleNo(6), reason: FailReason::BitmapMismatch, detail };
    message("next-reply-failed", NextReply { verdict: Some(failed), start: None, due_ms: Some(1000) });
    let start = Start { cycle: CycleNo(7), kind: CycleKind::Delta, previous: Some(cycle_ref), read_rate: None };
    message("next-reply-start", NextReply { verdict: None, start: Some(start), due_ms: None });
    let stored = StoredSegment {
        name: "s0000000000-3333333333333333.seg".into(),
        first: BlockNo(0),
        blocks: 2,
        len: ByteCount(1234),
        hash: Digest([6; 32]),
    };
    message("open-reply", OpenReply { stored: vec![stored.clone()], more: false });
    message("open-reply-more", OpenReply { stored: vec![stored], more: true });
    let reason = FailReason::SourceRead;
    message("give-up", GiveUp { generation: Generation(2), reason, detail: "/dev/vda: sectors 8..16".into() });
}

#[test]
fn hydrators_messages() {
    message("work-request", WorkRequest { seen: 41, wait_ms: 20_000 });
    message("claim-reply", ClaimReply { lease: Lease(3) });
    let names = vec!["s0000000000-0102030405060708.seg".to_owned()];
    let applied = AppliedRequest { generation: Generation(2), lease: Lease(3), end: BlockNo(40), names };
    message("applied-request", applied);
    let verdict = |outcome| VerdictRequest {
        generation: Generation(2),
        lease: Lease(3),
        manifest: Some(Digest([4; 32])),
        source_digest: Some(Digest([5; 32])),
        outcome,
    };
    let verified = |proof| Outcome::Verified { target_digest: Digest([5; 32]), whole_disk: None, proof };
    message("verdict-verified", verdict(verified(None)));
    message("verdict-proven", verdict(verified(Some(key().proof(Digest([4; 32]))))));
    let outcome = Outcome::Failed {
        reason: FailReason::DigestMismatch,
        detail: "sectors 0..8 differ".into(),
        bitmaps_equal: Some(false),
        target_digest: Some(Digest([9; 32])),
    };
    message("verdict-failed", verdict(outcome));
    message(
        "error",
        WireError::new(ErrorCode::OldGeneration, "disk db1: generation 1 is over; generation 2 is in force"),
    );
}

#[test]
fn operators_messages() {
    let windows = vec![WindowView { when: "Mon-Fri 08:00-18:00".into(), limit: "20Mbit/s".into() }];
    let policy = PolicyView {
        min_interval_ms: 3_600_000,
        max_interval_ms: 43_200_000,
        limit: Some("200Mbit/s".into()),
        windows,
        scrub_interval_ms: Some(604_800_000),
        scrub_rate: Some(50_000_000),
    };
    message("policy", policy);
    message("final-order", FinalOrder { wanted: true });
    assert_eq!(serde_json::to_string(&DiskPhase::InStep).unwrap(), "\"in_step\"");
}

#[test]
fn segments() {
    // Version 1 has a frame for each extent, version 2 one for the block.
    a_segment("v1-segment.seg", 2);
    a_segment("v2-segment.seg", 1);
}

fn a_segment(name: &str, frames: u64) {
    let data: Vec<u8> = (0..4096u32).map(|i| (i / 3) as u8).collect();
    let extents = [Extent::new(120, 8), Extent::new(4000, 4)];
    let bytes = [&data[..], &[0; 2048]].concat();
    let fresh = || {
        let header = header(ObjectKind::Segment);
        let block =
            BlockEncoder::new(&key(), &header, SectorCount(12), 1).encode(BlockNo(0), &extents, &bytes, Vec::new());
        let mut writer = SegmentWriter::new(&key(), &header, BlockNo(0));
        writer.push(&block);
        writer.finish()
    };
    let kept = sample(name, fresh);
    let segment = Segment::parse(&kept).unwrap();
    assert_eq!(segment.frames(), frames);
    let object_key = segment.key(&key());
    assert_eq!(segment.block_cvs(&object_key).unwrap()[0].0, *blake3::hash(&bytes).as_bytes());
    let mut seen = Vec::new();
    let note = |extent, data: FrameData<'_>| {
        seen.push((extent, data == FrameData::Zeros));
        Ok::<_, FormatError>(())
    };
    BlockDecoder::new(SectorCount(12)).decode(&segment, &object_key, 0, SECTORS, note).unwrap();
    assert_eq!(seen, [(Extent::new(120, 8), false), (Extent::new(4000, 4), true)]);
}

#[test]
fn a_manifest() {
    let segment = SegmentEntry {
        first: BlockNo(0),
        blocks: 1,
        len: ByteCount(900),
        hash: Digest([6; 32]),
        salt: Digest([0x33; 32]),
    };
    let manifest = Manifest {
        disk: DISK,
        generation: Generation(2),
        cycle: CycleNo(7),
        suite: Suite::Aes256Gcm,
        salt: [0x33; 32],
        kind: CycleKind::Delta,
        consistency: Consistency::Crash,
        tracker: TrackerKind::Ebpf,
        disk_bytes: ByteCount(SECTORS.bytes().0),
        previous: Some(Previous { cycle: CycleNo(6), manifest: Digest([4; 32]) }),
        plan: SectorBitmap::from_extents([Extent::new(120, 8), Extent::new(4000, 4)]),
        segments: vec![segment],
        digest: Digest([7; 32]),
        whole_disk: None,
        comparison: None,
    };
    let kept = sample("v1-manifest", || manifest.encode(&key()));
    assert_eq!(Manifest::decode(&kept, &key()).unwrap(), manifest);
}

#[test]
fn a_table_of_digests() {
    let digests: Vec<Digest> = (0..32).map(|i| if i % 5 == 0 { Digest([i; 32]) } else { ZERO_GRAIN }).collect();
    let kept = sample("v1-digests", || seal_part(&header(ObjectKind::Digests), &key(), 0, SECTORS, &digests));
    assert_eq!(open_part(&kept, &key(), 0, SECTORS).unwrap().1, digests);
    assert!(open_part(&kept, &key(), 1, SECTORS).is_err());
    assert!(open_part(&kept[..kept.len() - 1], &key(), 0, SECTORS).is_err());
}

#[test]
fn digests_that_are_not_sealed_are_refused() {
    let digests = vec![ZERO_GRAIN; 32];
    let header = Header { suite: Suite::Plain, ..header(ObjectKind::Digests) };
    let part = seal_part(&header, &key(), 0, SECTORS, &digests);
    assert_eq!(open_part(&part, &key(), 0, SECTORS).unwrap_err().kind, FormatErrorKind::Suite);
}
