use super::{Identity, mismatch, pins};
use crate::tracker::{Doubt, TrackingEpoch};
use std::path::Path;
use std::process::Command;

use super::device::Facts;

/// `cargo xtask test` installs the compiler; who has not got it builds nothing, and CI does it for them.
#[test]
fn bpf_object_is_what_the_source_builds() {
    if Command::new("clang-14").arg("--version").output().is_err() {
        eprintln!("skipped: clang-14 is not installed (apt-get install clang-14 llvm-14)");
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let folder = tempfile::tempdir().expect("a folder");
    let built = folder.path().join("track.bpf.o");
    let status = Command::new(source.join("build.sh")).arg(&built).status().expect("the build script runs");
    assert!(status.success(), "building track.bpf.c: {status}");
    let bytes = std::fs::read(&built).expect("the object");
    assert!(bytes == pins::OBJECT, "track.bpf.o is not what track.bpf.c builds: run agent/bpf/build.sh and commit it");
}

fn identity() -> Identity {
    let facts = Facts { device: 7 << 8, disk_seq: 5, first: 0, sectors: 1000, zone_sectors: 0, requests: true };
    Identity { epoch: TrackingEpoch { run: [1; 16], boot: [2; 16] }, facts, leaf_bits: 20 }
}

#[test]
fn only_the_same_run_of_the_same_disk_goes_on() {
    let found = identity();
    let epoch = found.epoch;
    assert_eq!(mismatch(&found, &found.facts, epoch.boot, Some(epoch)), None);
    assert_eq!(mismatch(&found, &found.facts, [3; 16], Some(epoch)), Some(Doubt::OtherEpoch));
    let other = TrackingEpoch { run: [9; 16], ..epoch };
    assert_eq!(mismatch(&found, &found.facts, epoch.boot, Some(other)), Some(Doubt::OtherEpoch));
    for change in [
        Facts { device: 1, ..found.facts.clone() },
        Facts { disk_seq: 6, ..found.facts.clone() },
        Facts { sectors: 1001, ..found.facts.clone() },
        Facts { first: 8, ..found.facts.clone() },
        Facts { requests: false, ..found.facts.clone() },
    ] {
        let doubt = mismatch(&found, &change, epoch.boot, Some(epoch));
        assert!(matches!(doubt, Some(Doubt::DiskChanged(_))), "{change:?}: {doubt:?}");
    }
}
