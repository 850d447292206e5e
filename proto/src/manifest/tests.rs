use super::*;
use crate::units::Extent;
use proptest::prelude::*;

fn key() -> DataKey {
    DataKey::new([1; 32])
}

fn manifest(suite: Suite) -> Manifest {
    let mut plan = SectorBitmap::new();
    plan.set(Extent::new(64, 5_000));
    plan.set(Extent::new(50_001, 1));
    let entry = |first, blocks| SegmentEntry {
        first: BlockNo(first),
        blocks,
        len: ByteCount(9_000),
        hash: Digest([first as u8; 32]),
        salt: Digest([7; 32]),
    };
    Manifest {
        disk: DiskId([2; 16]),
        generation: Generation(3),
        cycle: CycleNo(4),
        suite,
        salt: [5; 32],
        kind: CycleKind::Delta,
        consistency: Consistency::Crash,
        tracker: TrackerKind::Ebpf,
        disk_bytes: ByteCount(60_000 * 512 - 100),
        previous: Some(Previous { cycle: CycleNo(3), manifest: Digest([8; 32]) }),
        plan,
        segments: vec![entry(0, 1), entry(1, 2)],
        digest: Digest([6; 32]),
        whole_disk: None,
        comparison: None,
    }
}

#[test]
fn a_manifest_comes_back() {
    for suite in [Suite::Aes256Gcm, Suite::Plain] {
        let mut manifest = manifest(suite);
        assert_eq!(Manifest::decode(&manifest.encode(&key()), &key()).unwrap(), manifest);
        manifest.whole_disk = Some(Digest([9; 32]));
        manifest.previous = None;
        assert_eq!(Manifest::decode(&manifest.encode(&key()), &key()).unwrap(), manifest);
    }
}

#[test]
fn without_the_key_all_but_the_digests_can_be_read() {
    let manifest = manifest(Suite::Aes256Gcm);
    let claimed = ClaimedManifest::parse(&manifest.encode(&key())).unwrap().manifest;
    assert_eq!(claimed, Manifest { digest: Digest([0; 32]), ..manifest });
}

#[test]
fn segments_that_do_not_cover_the_stream_are_refused() {
    type Change = fn(&mut Manifest);
    let changes: [Change; 5] = [
        |m| m.segments[1].first = BlockNo(2),
        |m| m.segments[1].blocks = 1,
        |m| m.segments[0].blocks = 0,
        |m| _ = m.segments.pop(),
        |m| m.segments.swap(0, 1),
    ];
    for change in changes {
        let mut manifest = manifest(Suite::Aes256Gcm);
        change(&mut manifest);
        let error = Manifest::decode(&manifest.encode(&key()), &key()).unwrap_err();
        assert_eq!(error.kind, FormatErrorKind::Impossible, "{error}");
    }
}

#[test]
fn a_newer_version_is_named_as_such() {
    let mut bytes = manifest(Suite::Aes256Gcm).encode(&key());
    bytes[8] = 2;
    let error = Manifest::decode(&bytes, &key()).unwrap_err();
    assert_eq!(error.kind, FormatErrorKind::Newer);
    assert_eq!(
        error.to_string(),
        "written by a newer Sluice; update this one: manifest header: version 2, this one reads 1"
    );
}

proptest! {
    #[test]
    fn any_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8, sealed: bool) {
        let suite = if sealed { Suite::Aes256Gcm } else { Suite::Plain };
        let mut bytes = manifest(suite).encode(&key());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Manifest::decode(&bytes, &key()).is_err());
    }

    #[test]
    fn a_cut_manifest_is_refused(cut in any::<prop::sample::Index>()) {
        let bytes = manifest(Suite::Aes256Gcm).encode(&key());
        prop_assert!(Manifest::decode(&bytes[..cut.index(bytes.len())], &key()).is_err());
    }
}
