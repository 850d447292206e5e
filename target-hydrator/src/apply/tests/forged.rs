//! Frames that no writer makes, by a source that has all the keys.

use super::{initial, reason};
use crate::apply::Claim;
use crate::testkit::{Bench, Frame, Shipped};
use sluice_cache_store::CacheStore;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::stream::{BlockHasher, StreamDigest};
use sluice_proto::wire::CycleRef;
use sluice_proto::{BlockNo, Digest, Extent, SectorBitmap};

/// A frame of a segment that is not sealed.
fn plain(number: u32, frame: &Frame) -> Vec<u8> {
    [&frame.head(number, frame.payload.len())[..], &frame.payload].concat()
}

fn stored(number: u32, extent: Extent) -> Vec<u8> {
    plain(number, &Frame::stored(extent))
}

/// Ships a cycle of one segment with these frames, in which everything else is as it should be.
async fn ship(bench: &mut Bench, last: CycleRef, plan: &[Extent], frames: &[Vec<u8>]) -> Shipped {
    let plan = SectorBitmap::from_extents(plan.iter().copied());
    bench.source.suite = Suite::Plain;
    let folder =
        sluice_proto::manifest::cycle_folder(bench.source.disk, bench.source.generation, sluice_proto::CycleNo(2));
    let (mut entries, _) = bench.source.ship_segments(sluice_proto::CycleNo(2), &plan, &folder).await;
    let mut hasher = BlockHasher::new(BlockNo(0), plan.count());
    hasher.update(&vec![7; plan.count().bytes().0 as usize]);
    let cv = hasher.finish();
    let body = frames.concat();
    let index_at = 128 + body.len();
    let header = Header {
        kind: ObjectKind::Segment,
        suite: Suite::Plain,
        disk: bench.source.disk,
        generation: bench.source.generation,
        cycle: sluice_proto::CycleNo(2),
        salt: entries[0].salt.0,
        fields: [0, 1, index_at as u64],
    };
    let mut segment = [&header.encode()[..], &body].concat();
    segment.extend_from_slice(&128u64.to_le_bytes());
    segment.extend_from_slice(&(body.len() as u32).to_le_bytes());
    segment.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    segment.extend_from_slice(&cv.0);
    entries[0].len.0 = segment.len() as u64;
    entries[0].hash = Digest::of(&segment);
    let mut digest = StreamDigest::default();
    digest.push(cv);
    let name = entries[0].name();
    let change = |m: &mut sluice_proto::manifest::Manifest| (m.segments, m.digest) = (entries, digest.finish());
    let shipped = bench.source.ship_with(CycleKind::Delta, 2, plan, Some(last), change).await;
    bench.store.put(&format!("{folder}/{name}"), segment.into()).await.expect("stored");
    shipped
}

async fn outcome(plan: &[Extent], frames: &[Vec<u8>]) -> Option<String> {
    let mut bench = Bench::new(9000, 66);
    let last = initial(&mut bench).await;
    let before = bench.target.contents();
    let shipped = ship(&mut bench, last, plan, frames).await;
    let mut environment = bench.environment();
    environment.allow_plain = true;
    let mut session = super::super::Session::open(environment, &shipped.work).await.expect("the state opens");
    let report = session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect("an outcome");
    if matches!(report.outcome, sluice_proto::wire::Outcome::Verified { .. }) {
        return None;
    }
    let (why, detail) = reason(&report);
    assert_eq!(why, FailReason::SegmentCorrupt, "{detail}");
    assert_eq!(bench.target.contents(), before);
    Some(detail)
}

#[tokio::test(start_paused = true)]
async fn frames_as_they_should_be_are_taken() {
    let extents = [Extent::new(8, 8), Extent::new(100, 28)];
    assert_eq!(outcome(&extents, &[stored(0, extents[0]), stored(1, extents[1])]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_decompression_bomb() {
    let extent = Extent::new(128, 128);
    let detail = outcome(&[extent], &[plain(0, &Frame::bomb(extent))]).await.expect("refused");
    assert!(detail.contains("zstd can't read it"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn overlapping_repeated_and_missing_extents() {
    let (one, two) = (Extent::new(8, 8), Extent::new(12, 12));
    let overlapping = outcome(&[Extent::new(8, 16)], &[stored(0, one), stored(1, two)]).await.expect("refused");
    assert!(overlapping.contains("do not ascend"), "{overlapping}");
    let again = outcome(&[Extent::new(8, 16)], &[stored(0, one), stored(1, one)]).await.expect("refused");
    assert!(again.contains("do not ascend"), "{again}");
    let missing = outcome(&[Extent::new(8, 16)], &[stored(0, one)]).await.expect("refused");
    assert!(missing.contains("are missing"), "{missing}");
    let many = outcome(&[one], &[stored(0, one), stored(1, Extent::new(16, 1))]).await.expect("refused");
    assert!(many.contains("are not the plan's next sectors"), "{many}");
    let beyond = Extent::new(8995, 16);
    let beyond = outcome(&[Extent::new(8984, 16)], &[stored(0, beyond)]).await.expect("refused");
    assert!(beyond.contains("of a disk of"), "{beyond}");
    let wide = Extent::new(120, 16);
    let wide = outcome(&[wide], &[stored(0, wide)]).await.expect("refused");
    assert!(wide.contains("more than one grain"), "{wide}");
}
