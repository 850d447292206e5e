//! A malicious or broken source, store or appliance: the target's bytes stay as they are, and the reason is named.

use super::{SECTORS, apply, initial, reason, scattered, verified};
use crate::testkit::{Bench, Shipped};
use sluice_cache_store::CacheStore;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::header::{HEADER_BYTES, Suite};
use sluice_proto::keys::{DataKey, HydratorKey, SigningKey};
use sluice_proto::manifest::Manifest;
use sluice_proto::wire::CycleRef;
use sluice_proto::{ByteCount, CycleNo, Digest, DiskId, Extent, Generation, SectorBitmap};
use std::sync::Arc;

struct Scene {
    bench: Bench,
    last: CycleRef,
    delta: Shipped,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let mut bench = Bench::new(SECTORS, seed);
        let last = initial(&mut bench).await;
        let plan = bench.source.scribble(&scattered());
        let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
        Self { bench, last, delta }
    }

    async fn get(&self, key: &str) -> Vec<u8> {
        self.bench.store.get(key, 1 << 30).await.expect("stored").to_vec()
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) {
        self.bench.store.put(key, bytes.into()).await.expect("stored");
    }

    /// Applies it; the target must be left alone and the words must say why.
    async fn refused(&self, shipped: &Shipped, why: FailReason, words: &str) {
        let before = self.bench.target.contents();
        let (reason, detail) = reason(&apply(&self.bench, shipped).await);
        assert_eq!(reason, why, "{detail}");
        assert!(detail.contains(words), "{detail:?} does not say {words:?}");
        assert_eq!(self.bench.target.contents(), before);
        assert!(self.bench.session(&shipped.work).await.ledger().verified.is_some_and(|v| v.cycle == self.last));
    }

    /// The store lies about a segment, and the manifest, made by one who has the key, agrees with it.
    async fn with_segment(&mut self, number: usize, bytes: Vec<u8>) -> Shipped {
        let (len, hash) = (ByteCount(bytes.len() as u64), Digest::of(&bytes));
        let segment = self.delta.segments[number].clone();
        let mut manifest = self.delta.manifest.clone();
        manifest.segments[number].len = len;
        manifest.segments[number].hash = hash;
        self.put(&segment, bytes).await;
        self.with_manifest(manifest).await
    }

    async fn with_manifest(&mut self, manifest: Manifest) -> Shipped {
        let bytes = manifest.encode(&self.bench.source.key);
        let mut shipped = self.delta.clone();
        shipped.work.manifest = Some(Digest::of(&bytes));
        shipped.manifest = manifest;
        self.put(&shipped.manifest_key(), bytes).await;
        shipped
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_segment() {
    let scene = Scene::new(50).await;
    let key = scene.delta.segments[1].clone();
    let whole = scene.get(&key).await;
    for at in [0, 9, HEADER_BYTES, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        scene.put(&key, bytes).await;
        scene.refused(&scene.delta, FailReason::SegmentCorrupt, "BLAKE3 is another").await;
    }
    scene.put(&key, whole[..whole.len() - 1].to_vec()).await;
    scene.refused(&scene.delta, FailReason::SegmentCorrupt, "bytes where there should be").await;
    scene.put(&key, [&whole[..], &[0]].concat()).await;
    scene.refused(&scene.delta, FailReason::SegmentCorrupt, "is the most").await;
    scene.bench.store.delete(&key).await.expect("deleted");
    scene.refused(&scene.delta, FailReason::SegmentCorrupt, "not found").await;
    scene.put(&key, whole).await;
    verified(&scene.bench, &scene.delta).await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_whose_hash_was_forged_too() {
    let mut scene = Scene::new(51).await;
    let whole = scene.get(&scene.delta.segments[0]).await;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let forged = scene.with_segment(0, bytes).await;
        scene.refused(&forged, FailReason::SegmentCorrupt, "segment s0000000000").await;
    }
    let short = scene.with_segment(0, whole[..whole.len() / 2].to_vec()).await;
    scene.refused(&short, FailReason::SegmentCorrupt, "cut short").await;
}

#[tokio::test(start_paused = true)]
async fn segments_of_elsewhere() {
    let mut scene = Scene::new(52).await;
    // Swapped within the cycle.
    let other = scene.get(&scene.delta.segments[1]).await;
    let swapped = scene.with_segment(0, other).await;
    scene.refused(&swapped, FailReason::SegmentCorrupt, "belongs elsewhere").await;
    // Replayed from the cycle before.
    let folder = scene.delta.folder.replace("c00000002", "c00000001");
    let old = scene.bench.store.list(&folder).await.expect("listed").remove(1).key;
    let old = scene.get(&old).await;
    let replayed = scene.with_segment(0, old).await;
    scene.refused(&replayed, FailReason::SegmentCorrupt, "belongs elsewhere").await;
    // Of another disk under the same key.
    let mut thief = Bench::new(SECTORS, 53).source;
    thief.key = scene.bench.source.key.clone();
    let plan = thief.scribble(&scattered());
    let foreign = thief.ship(CycleKind::Delta, 2, plan, None).await;
    let bytes = thief.store.get(&foreign.segments[0], 1 << 30).await.expect("stored").to_vec();
    let foreign = scene.with_segment(0, bytes).await;
    scene.refused(&foreign, FailReason::SegmentCorrupt, "belongs elsewhere").await;
    // Another attempt at the same cycle: right in itself, but not what the manifest names.
    let plan = scene.delta.manifest.plan.clone();
    let attempt = scene.bench.source.ship_segments(CycleNo(2), &plan, "attempt").await.0;
    let bytes = scene.get(&format!("attempt/{}", attempt[0].name())).await;
    let attempt = scene.with_segment(0, bytes).await;
    scene.refused(&attempt, FailReason::SegmentCorrupt, "another attempt").await;
}

#[tokio::test(start_paused = true)]
async fn extents_that_the_plan_does_not_have() {
    let mut scene = Scene::new(54).await;
    let folder = scene.delta.folder.clone();
    // As many sectors, other ones: what overlaps, what is missing, what lies elsewhere.
    let shifted = SectorBitmap::from_extents(scattered().map(|e| Extent::new(e.start.0.saturating_sub(1), e.len.0)));
    let (entries, digest) = scene.bench.source.ship_segments(CycleNo(2), &shifted, &folder).await;
    let mut manifest = scene.delta.manifest.clone();
    (manifest.segments, manifest.digest) = (entries, digest);
    let shipped = scene.with_manifest(manifest).await;
    scene.refused(&shipped, FailReason::SegmentCorrupt, "are not the plan's next sectors").await;
}

#[tokio::test(start_paused = true)]
async fn extents_beyond_the_disk() {
    let mut scene = Scene::new(55).await;
    let folder = scene.delta.folder.clone();
    scene.bench.source.bytes.resize((SECTORS as usize + 64) * 512, 3);
    let beyond = SectorBitmap::from_extents([Extent::new(SECTORS - 8, 72)]);
    let (entries, digest) = scene.bench.source.ship_segments(CycleNo(2), &beyond, &folder).await;
    let mut manifest = scene.delta.manifest.clone();
    manifest.plan = SectorBitmap::from_extents([Extent::new(SECTORS - 72, 72)]);
    (manifest.segments, manifest.digest) = (entries, digest);
    let shipped = scene.with_manifest(manifest.clone()).await;
    scene.refused(&shipped, FailReason::SegmentCorrupt, "of a disk of").await;
    // The plan itself.
    manifest.plan = beyond;
    let shipped = scene.with_manifest(manifest).await;
    scene.refused(&shipped, FailReason::ManifestCorrupt, "bitmap").await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_does_not_add_up() {
    let mut scene = Scene::new(56).await;
    let mut manifest = scene.delta.manifest.clone();
    manifest.digest = Digest([9; 32]);
    let shipped = scene.with_manifest(manifest).await;
    scene.refused(&shipped, FailReason::ManifestCorrupt, "don't add up").await;
    let mut manifest = scene.delta.manifest.clone();
    manifest.segments.pop();
    let shipped = scene.with_manifest(manifest).await;
    scene.refused(&shipped, FailReason::ManifestCorrupt, "blocks for").await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_swapped_or_newer_manifest() {
    let mut scene = Scene::new(57).await;
    let key = scene.delta.manifest_key();
    let whole = scene.get(&key).await;
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 16;
        scene.put(&key, bytes.clone()).await;
        scene.refused(&scene.delta, FailReason::ManifestCorrupt, "not that which the appliance committed").await;
        // An appliance that lies as well.
        let mut agreed = scene.delta.clone();
        agreed.work.manifest = Some(Digest::of(&bytes));
        scene.refused(&agreed, FailReason::ManifestCorrupt, "manifest").await;
    }
    let mut newer = whole.clone();
    newer[8] = 2;
    let mut shipped = scene.delta.clone();
    shipped.work.manifest = Some(Digest::of(&newer));
    scene.put(&key, newer).await;
    scene.refused(&shipped, FailReason::ManifestCorrupt, "update this one").await;
    // That of another cycle in its place.
    let plan = scene.bench.source.scribble(&[Extent::new(3, 3)]);
    let third = scene.bench.source.ship(CycleKind::Delta, 3, plan, Some(scene.last)).await;
    let bytes = scene.get(&third.manifest_key()).await;
    scene.put(&key, bytes).await;
    shipped.work.manifest = third.work.manifest;
    scene.refused(&shipped, FailReason::ManifestCorrupt, "was due").await;
    scene.bench.store.delete(&key).await.expect("deleted");
    scene.refused(&scene.delta, FailReason::ManifestCorrupt, "not found").await;
}

#[tokio::test(start_paused = true)]
async fn cycles_out_of_turn() {
    let mut scene = Scene::new(58).await;
    let second = verified(&scene.bench, &scene.delta).await;
    scene.last = second;
    let third_plan = scene.bench.source.scribble(&[Extent::new(7, 70)]);
    let third = scene.bench.source.ship(CycleKind::Delta, 3, third_plan, Some(second)).await;
    let fourth_plan = scene.bench.source.scribble(&[Extent::new(8, 1)]);
    let mut fourth = scene.bench.source.ship(CycleKind::Delta, 4, fourth_plan, Some(third.reference())).await;
    fourth.work.verified = Some(second);
    scene.refused(&fourth, FailReason::ManifestCorrupt, "out of turn").await;
    // The appliance believes that the third was applied: it is the target that is not where it should be.
    fourth.work.verified = Some(third.reference());
    scene.refused(&fourth, FailReason::TargetChanged, "not where the appliance believes").await;
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_was_verified_long_ago() {
    let mut scene = Scene::new(59).await;
    let second = verified(&scene.bench, &scene.delta).await;
    let plan = scene.bench.source.scribble(&[Extent::new(7, 70)]);
    let third = scene.bench.source.ship(CycleKind::Delta, 3, plan, Some(second)).await;
    let old = scene.delta.clone();
    scene.last = verified(&scene.bench, &third).await;
    scene.refused(&old, FailReason::ManifestCorrupt, "an old manifest in the place of a new one").await;
}

#[tokio::test(start_paused = true)]
async fn wrong_keys() {
    let mut scene = Scene::new(60).await;
    let good = scene.bench.source.envelope();
    // Another agent's signature.
    let signer = std::mem::replace(&mut scene.bench.source.signer, SigningKey::from_seed(&[99; 32]));
    let mut shipped = scene.delta.clone();
    shipped.work.envelope = scene.bench.source.envelope();
    scene.refused(&shipped, FailReason::WrongKey, "another agent").await;
    scene.bench.source.signer = signer;
    // Wrapped for another hydrator.
    let own = std::mem::replace(&mut scene.bench.source.hydrator, Arc::new(HydratorKey::generate().expect("a pair")));
    shipped.work.envelope = scene.bench.source.envelope();
    scene.bench.source.hydrator = own;
    scene.refused(&shipped, FailReason::WrongKey, "another hydrator").await;
    // Changed on the way.
    shipped.work.envelope = good.clone();
    shipped.work.envelope.sealed[3] ^= 1;
    scene.refused(&shipped, FailReason::WrongKey, "signature").await;
    // That of another disk.
    let own = std::mem::replace(&mut scene.bench.source.disk, DiskId([1; 16]));
    shipped.work.envelope = scene.bench.source.envelope();
    scene.bench.source.disk = own;
    scene.refused(&shipped, FailReason::WrongKey, "another disk or generation").await;
    // A data key that is not the one which sealed the cycle.
    scene.bench.source.key = DataKey::new([8; 32]);
    shipped.work.envelope = scene.bench.source.envelope();
    scene.refused(&shipped, FailReason::ManifestCorrupt, "another key").await;
}

#[tokio::test(start_paused = true)]
async fn an_old_generation_and_a_new_one() {
    let mut scene = Scene::new(61).await;
    let second = verified(&scene.bench, &scene.delta).await;
    scene.last = second;
    scene.bench.source.generation = Generation(2);
    scene.bench.source.key = DataKey::new([11; 32]);
    let plan = scene.bench.source.scribble(&[Extent::new(7, 70)]);
    let rotated = scene.bench.source.ship(CycleKind::Delta, 3, plan, Some(second)).await;
    scene.last = verified(&scene.bench, &rotated).await;
    assert_eq!(scene.bench.target.contents(), scene.bench.source.padded());
    scene.bench.source.generation = Generation(1);
    scene.bench.source.key = DataKey::new([7; 32]);
    let plan = scene.bench.source.scribble(&[Extent::new(7, 70)]);
    let stale = scene.bench.source.ship(CycleKind::Delta, 4, plan, Some(scene.last)).await;
    scene.refused(&stale, FailReason::Abandoned, "replaced by").await;
}

#[tokio::test(start_paused = true)]
async fn a_source_of_another_size() {
    let mut scene = Scene::new(62).await;
    let mut shrunk = scene.delta.clone();
    shrunk.work.size.0 -= 512;
    scene.refused(&shrunk, FailReason::SourceChangedSize, "begin with a new target").await;
    let mut manifest = scene.delta.manifest.clone();
    manifest.disk_bytes.0 += 512;
    let grown = scene.with_manifest(manifest).await;
    scene.refused(&grown, FailReason::SourceChangedSize, "begin with a new target").await;
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_is_not_sealed() {
    let mut scene = Scene::new(63).await;
    scene.bench.source.suite = Suite::Plain;
    let plan = scene.bench.source.scribble(&[Extent::new(7, 70)]);
    let plain = scene.bench.source.ship(CycleKind::Delta, 2, plan, Some(scene.last)).await;
    scene.refused(&plain, FailReason::ManifestCorrupt, "not sealed").await;
}

#[tokio::test(start_paused = true)]
async fn a_final_without_the_whole_digest_or_with_a_wrong_one() {
    let mut scene = Scene::new(64).await;
    let plan = scene.bench.source.full();
    let last = Some(scene.last);
    let none = scene.bench.source.ship_with(CycleKind::Final, 2, plan.clone(), last, |m| m.whole_disk = None).await;
    scene.refused(&none, FailReason::ManifestCorrupt, "whole source").await;
    let wrong = |m: &mut Manifest| m.whole_disk = Some(Digest([1; 32]));
    let wrong = scene.bench.source.ship_with(CycleKind::Final, 3, plan, last, wrong).await;
    let (why, detail) = reason(&apply(&scene.bench, &wrong).await);
    assert_eq!(why, FailReason::DigestMismatch);
    assert!(detail.contains("the whole target differs"), "{detail}");
}
