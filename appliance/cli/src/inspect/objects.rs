//! Segments, manifests and digests as they lie in a cache store.

use super::Findings;
use crate::units;
use sluice_proto::digests::{PART_GRAINS, grain_count, part_count};
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::manifest::{ClaimedManifest, MANIFEST_NAME, Manifest, cycle_folder};
use sluice_proto::segment::{Segment, segment_name};
use sluice_proto::{Digest, FormatError, SECTOR_BYTES, SectorCount};
use std::fs;
use std::path::Path;

/// Explains an object.
pub fn look(kind: ObjectKind, bytes: &[u8], path: &Path) -> Findings {
    let mut found = Findings::of(match kind {
        ObjectKind::Segment => "a segment",
        ObjectKind::Manifest => "a manifest",
        ObjectKind::Digests => "digests of a target's grains",
    });
    found.fact("length", units::bytes(bytes.len() as u64));
    found.fact("BLAKE3", Digest::of(bytes));
    let header = match Header::decode(kind, bytes) {
        Ok(header) => header,
        Err(error) => {
            found.wrong(error);
            return found;
        }
    };
    head(&mut found, &header);
    let checked = match kind {
        ObjectKind::Segment => segment(&mut found, bytes, path),
        ObjectKind::Manifest => manifest(&mut found, bytes, path),
        ObjectKind::Digests => digests(&mut found, &header),
    };
    if let Err(error) = checked {
        found.wrong(error);
    }
    found
}

fn head(found: &mut Findings, header: &Header) {
    found.good("header: magic, version, checksum");
    found.fact("disk", header.disk);
    found.fact("generation", header.generation);
    found.fact("cycle", header.cycle);
    found.fact(
        "suite",
        match header.suite {
            Suite::Plain => "plain: neither compressed nor encrypted",
            Suite::Aes256Gcm => "zstd, AES-256-GCM",
        },
    );
    found.fact("salt", Digest(header.salt));
}

fn segment(found: &mut Findings, bytes: &[u8], path: &Path) -> Result<(), FormatError> {
    let segment = Segment::parse(bytes)?;
    found.good("index: its blocks fill the segment without a gap");
    let (first, blocks) = (segment.first().0, segment.blocks());
    found.fact("blocks", format!("{first}..{} of the cycle's stream, 1 MiB each", first + blocks));
    found.fact("frames", segment.frames());
    let extents = segment.claimed_extents()?;
    found.good("frames: each header can be read, and each frame ends where the next begins");
    let sectors: u64 = extents.iter().map(|e| e.len.0).sum();
    let plain = units::bytes(sectors * SECTOR_BYTES);
    found.fact("claims", format!("{sectors} sectors ({plain}) of the disk, in {} frames", extents.len()));
    if let Some(first) = extents.iter().map(|extent| extent.start.0).min() {
        found.fact("from sector", first);
    }
    match extents.windows(2).all(|pair| pair[0].end() <= pair[1].start) {
        true => found.good("extents ascend and do not overlap"),
        false => found.wrong("extents overlap or are out of order: no writer makes such a segment"),
    }
    check_name(found, path, &segment_name(segment.first(), &segment.header().salt));
    found.note("what is in the frames can be proven with the disk's key alone");
    Ok(())
}

/// An object that bears another's name was swapped for it.
fn check_name(found: &mut Findings, path: &Path, name: &str) {
    let has = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match has == name {
        true => found.good("its name is that of its contents"),
        false => found.note(format_args!("in a cache store it would be named {name}")),
    }
}

fn manifest(found: &mut Findings, bytes: &[u8], path: &Path) -> Result<(), FormatError> {
    let Manifest { kind, consistency, tracker, disk_bytes, previous, plan, segments, disk, generation, cycle, .. } =
        ClaimedManifest::parse(bytes)?.manifest;
    found.good("structure: the segments cover the plan's stream exactly once");
    found.fact("kind", kind);
    found.fact("consistency", consistency);
    found.fact("tracker", tracker);
    found.fact("disk's size", format!("{disk_bytes} bytes ({})", units::bytes(disk_bytes.0)));
    let sectors = plan.count();
    let runs = plan.runs().count();
    found.fact("plan", format!("{sectors} sectors ({}) in {runs} runs", units::bytes(sectors.bytes().0)));
    found.fact("BLAKE3 of the plan", Digest(plan.digest()));
    match previous {
        Some(previous) => found.fact("follows", format!("cycle {}, manifest {}", previous.cycle, previous.manifest)),
        None => found.fact("follows", "nothing: the first of its disk"),
    }
    let sent: u64 = segments.iter().map(|s| s.len.0).sum();
    found.fact("segments", format!("{}, together {}", segments.len(), units::bytes(sent)));
    found.fact("folder", cycle_folder(disk, generation, cycle));
    neighbours(found, path, &segments);
    found.note("digests, and who wrote it, can be proven with the disk's key alone");
    Ok(())
}

/// The segments that lie beside a manifest are what it says they are, as far as they are there.
fn neighbours(found: &mut Findings, path: &Path, segments: &[sluice_proto::manifest::SegmentEntry]) {
    let Some(folder) = path.parent().filter(|_| path.file_name().is_some_and(|name| name == MANIFEST_NAME)) else {
        return;
    };
    let (mut right, mut missing) = (0, 0);
    for segment in segments {
        let name = segment.name();
        match fs::read(folder.join(&name)) {
            Ok(bytes) if Digest::of(&bytes) == segment.hash => right += 1,
            Ok(bytes) => found.wrong(format_args!(
                "{name}: {} bytes with BLAKE3 {} where {} bytes with {} are expected",
                bytes.len(),
                Digest::of(&bytes),
                segment.len,
                segment.hash
            )),
            Err(_) => missing += 1,
        }
    }
    match (right, missing) {
        (0, 0) => {}
        (0, _) => found.note("its segments are not beside it"),
        (_, 0) => found.good(format_args!("all {right} segments beside it have the right BLAKE3")),
        (_, _) => found.wrong(format_args!("{missing} of {} segments are missing beside it", segments.len())),
    }
}

fn digests(found: &mut Findings, header: &Header) -> Result<(), FormatError> {
    let [part, grains, sectors] = header.fields;
    let disk = SectorCount(sectors);
    found.fact("part", format!("{part} of {}", part_count(disk)));
    found.fact("grains", format!("{grains} of 64 KiB"));
    found.fact("disk's size", format!("{sectors} sectors ({})", units::bytes(sectors.saturating_mul(SECTOR_BYTES))));
    let expected = grain_count(disk).saturating_sub(part.saturating_mul(PART_GRAINS)).min(PART_GRAINS);
    match grains == expected && grains > 0 {
        true => found.good("it holds as many grains as that part of such a disk has"),
        false => found.wrong(format_args!("{expected} grains are what that part of such a disk has")),
    }
    found.note("the digests can be read with the disk's key alone");
    Ok(())
}
