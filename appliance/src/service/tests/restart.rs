//! The appliance is stopped anywhere, or comes back from an older copy of its state.

use super::fixture::*;
use crate::repository::{CycleRecord, Repository};
use bytes::Bytes;
use sluice_cache_store::CacheStore;
use sluice_client::{AgentApi, HydratorApi, OperatorApi};
use sluice_proto::cycle::{CycleKind, FailReason, State as CycleState};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::segment::segment_name;
use sluice_proto::wire::{
    AppliedRequest, ErrorCode, GiveUp, JSON_BYTES_MAX, Lease, SEGMENTS_TOLD_MAX, StoredSegment, Verdict, WorkRequest,
};
use sluice_proto::{BlockNo, ByteCount, CycleNo, Digest, Generation};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_restart_at_each_step_changes_nothing() {
    let mut world = World::new().await;
    world.register().await;
    world.restart().await;
    let start = world.start(0).await;
    world.restart().await;
    assert_eq!(world.start(0).await, start);
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    world.restart().await;
    for (at, (stored, bytes)) in shipment.segments.iter().enumerate() {
        world.put(start.cycle, stored, bytes).await.unwrap();
        world.restart().await;
        let reply = world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
        assert_eq!(reply.stored.len(), at + 1, "a stored segment was forgotten");
    }
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    world.restart().await;
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    world.restart().await;
    assert_eq!(world.operator().cycles(DISK, 1).await.unwrap()[0].state, CycleState::Applying);
    let newer = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    assert!(newer > lease, "a lease was given out twice");
    let late = world.hydrator().verdict(DISK, start.cycle, shipment.verified(lease)).await;
    assert_eq!(code(late), ErrorCode::LeaseLost);
    world.hydrator().verdict(DISK, start.cycle, shipment.verified(newer)).await.unwrap();
    world.restart().await;
    world.hydrator().verdict(DISK, start.cycle, shipment.verified(newer)).await.unwrap();
    assert_eq!(world.next(0, Some(1)).await.verdict, Some(shipment.verdict()));
    world.restart().await;
    let delta = world.start(1).await;
    assert_eq!((delta.cycle, delta.kind), (CycleNo(2), CycleKind::Delta));
    assert_eq!(delta.previous, Some(shipment.reference()));
}

#[tokio::test(start_paused = true)]
async fn the_schedule_goes_on_after_a_restart() {
    let mut world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    world.cycle(1, &planned(0, 10)).await;
    let begun = Instant::now();
    tokio::time::advance(Duration::from_secs(1800)).await;
    world.restart().await;
    assert_eq!(world.next(2, None).await.due_ms, Some(1_800_000));
    world.start(2).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn a_hydrator_hears_of_a_restart() {
    let mut world = World::new().await;
    world.register().await;
    world.start(0).await;
    let seen = world.revision().await;
    tokio::time::advance(Duration::from_millis(1)).await;
    world.restart().await;
    let begun = Instant::now();
    let reply = world.hydrator().work(WorkRequest { seen, wait_ms: 30_000 }).await.unwrap();
    assert_ne!(reply.revision, seen);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn store_and_records_are_made_to_agree() {
    let mut world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    let shipment = Shipment::new(&start, &planned(0, 8000), 2);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    for (stored, bytes) in &shipment.segments {
        world.put(start.cycle, stored, bytes).await.unwrap();
    }
    let folder = format!("{DISK}/g00000001/c00000002");
    let lost = format!("{folder}/{}", shipment.segments[0].0.name);
    let junk = Bytes::from_static(b"junk");
    let foreign = "00000000-0000-0000-0000-00000000000f/g00000001/c00000001/s0000000000-00.seg";
    world.store.delete(&lost).await.unwrap();
    for key in [format!("{folder}/s0000000009-00.seg"), format!("{DISK}/g00000001/c00000001/manifest")] {
        world.store.put(&key, junk.clone()).await.unwrap();
    }
    world.store.put(foreign, junk.clone()).await.unwrap();
    world.store.put("notes.txt", junk.clone()).await.unwrap();
    world.restart().await;
    let reply = world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let kept: Vec<_> = shipment.segments[1..].iter().map(|(stored, _)| stored.clone()).collect();
    assert_eq!(reply.stored, kept);
    let mut expected: Vec<String> = kept.iter().map(|s| format!("{folder}/{}", s.name)).collect();
    expected.extend([foreign.to_owned(), "notes.txt".to_owned()]);
    expected.sort();
    assert_eq!(world.objects().await, expected);
    let (stored, bytes) = &shipment.segments[0];
    world.put(start.cycle, stored, bytes).await.unwrap();
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
}

/// The manifest is in the store, the commit is not recorded.
async fn half_committed(other: bool) -> (World, Shipment) {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    for (stored, bytes) in &shipment.segments {
        world.put(start.cycle, stored, bytes).await.unwrap();
    }
    let manifest = if other { Bytes::from_static(b"junk") } else { shipment.manifest.clone() };
    world.store.put_new(&format!("{DISK}/g00000001/c00000001/manifest"), manifest).await.unwrap();
    (world, shipment)
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_not_recorded_is_recorded() {
    let (mut world, shipment) = half_committed(false).await;
    world.restart().await;
    assert_eq!(world.operator().cycles(DISK, 1).await.unwrap()[0].state, CycleState::Committed);
    world.agent().commit(DISK, shipment.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    world.verify(&shipment).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_not_recorded_is_found_by_its_repetition() {
    let (world, shipment) = half_committed(false).await;
    world.agent().commit(DISK, shipment.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    world.verify(&shipment).await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_does_not_fit_is_deleted() {
    let (mut world, shipment) = half_committed(true).await;
    world.restart().await;
    assert_eq!(world.operator().cycles(DISK, 1).await.unwrap()[0].state, CycleState::Shipping);
    world.agent().commit(DISK, shipment.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_committed_cycle_stays_committed_though_pieces_are_gone() {
    let mut world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = world.ship(&start, &whole(), 1).await;
    let key = format!("{DISK}/g00000001/c00000001/{}", shipment.segments[0].0.name);
    world.store.delete(&key).await.unwrap();
    world.restart().await;
    let work = world.hydrator().work(WorkRequest::default()).await.unwrap().work.remove(0);
    assert_eq!((work.state, work.manifest), (CycleState::Committed, Some(shipment.hash)));
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let corrupt = shipment.failed(lease, FailReason::SegmentCorrupt);
    world.hydrator().verdict(DISK, start.cycle, corrupt).await.unwrap();
    // What the target holds by now is not shipped again: it is compared.
    assert_eq!(world.start(1).await.kind, CycleKind::Resync);
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_leaves_the_store_and_is_not_missed() {
    let mut world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    for (stored, bytes) in &shipment.segments[..2] {
        world.put(start.cycle, stored, bytes).await.unwrap();
    }
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let first = &shipment.segments[0].0;
    let request = AppliedRequest {
        generation: Generation(1),
        lease,
        end: BlockNo(first.blocks),
        // One that is not within what is applied stays, whatever the hydrator says.
        names: vec![first.name.clone(), shipment.segments[1].0.name.clone(), "unknown".into()],
    };
    let late = AppliedRequest { lease: Lease(lease.0 - 1), ..request.clone() };
    assert_eq!(code(world.hydrator().applied(DISK, start.cycle, late).await), ErrorCode::LeaseLost);
    let beyond = AppliedRequest { end: BlockNo(1 << 40), ..request.clone() };
    assert_eq!(code(world.hydrator().applied(DISK, start.cycle, beyond).await), ErrorCode::BadRequest);
    for _ in 0..2 {
        world.hydrator().applied(DISK, start.cycle, request.clone()).await.unwrap();
        assert_eq!(world.objects().await, [format!("{DISK}/g00000001/c00000001/{}", shipment.segments[1].0.name)]);
    }
    world.restart().await;
    let work = world.hydrator().work(WorkRequest::default()).await.unwrap().work.remove(0);
    assert_eq!((work.applied, work.stored), (request.end, vec![shipment.segments[1].0.clone()]));
    let reply = world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    assert_eq!(reply.stored.len(), 2, "none of them is sent again");
    for (stored, bytes) in &shipment.segments[2..] {
        world.put(start.cycle, stored, bytes).await.unwrap();
    }
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    world.verify(&shipment).await;
}

/// The first copy of a disk of many TiB, cut short: 70,000 segments, of which the last 10,000 are not applied yet.
#[tokio::test(start_paused = true)]
async fn a_long_list_of_segments_is_told_in_parts() {
    let mut world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let mut record = world.repository.cycle(DISK, start.cycle).await.unwrap().unwrap();
    (record.state, record.applied) = (CycleState::Shipping, BlockNo(60_000));
    let segment = |block: u64| StoredSegment {
        name: segment_name(BlockNo(block), &[3; 32]),
        first: BlockNo(block),
        blocks: 1,
        len: ByteCount(1),
        hash: Digest::of(&block.to_le_bytes()),
    };
    let all: Vec<StoredSegment> = (0..70_000).map(segment).collect();
    for stored in &all {
        world.repository.add_segment(&record, stored).await.unwrap();
    }
    for stored in &all[60_000..] {
        let key = format!("{DISK}/g00000001/c00000001/{}", stored.name);
        world.store.put(&key, Bytes::from_static(b"?")).await.unwrap();
    }
    world.restart().await;
    let mut request = shipment.open.clone();
    let first = world.agent().open(DISK, start.cycle, request.clone()).await.unwrap();
    assert!(serde_json::to_vec(&first).unwrap().len() < JSON_BYTES_MAX / 4);
    assert_eq!((first.stored.len(), first.more), (SEGMENTS_TOLD_MAX.get(), true));
    request.after = first.stored.last().map(|segment| segment.name.clone());
    let second = world.agent().open(DISK, start.cycle, request).await.unwrap();
    assert!(!second.more && [first.stored, second.stored].concat() == all);
    let work = world.hydrator().work(WorkRequest::default()).await.unwrap().work.remove(0);
    assert_eq!(work.stored, all[60_000..68_192]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_knows_more_than_the_appliance_is_believed() {
    let mut world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    // A backup is taken here, and put back after the agent has gone on to cycle 5.
    world.restart().await;
    let verdict = world.next(1, Some(5)).await.verdict.unwrap();
    let Verdict::Failed { cycle, reason, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((cycle, reason), (start.cycle, FailReason::Abandoned), "the open cycle of the backup is given up");
    let verdict = world.next(2, Some(5)).await.verdict.unwrap();
    let Verdict::Failed { cycle, reason, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!((cycle, reason), (CycleNo(5), FailReason::Abandoned));
    assert_eq!(world.phase().await, DiskPhase::Resync);
    let again = world.start(5).await;
    assert_eq!((again.cycle, again.kind), (CycleNo(6), CycleKind::Resync), "a number was used twice");
    let mad = world.agent().next(DISK, asks(u64::MAX, None, 0)).await;
    assert_eq!(code(mad), ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_the_agent_is_done_with_is_not_ordered_again() {
    let mut world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    // A backup is taken here, and put back after this very cycle has ended.
    world.restart().await;
    assert_eq!(start.cycle, CycleNo(2));
    let again = world.start(2).await;
    assert_eq!((again.cycle, again.kind), (CycleNo(3), CycleKind::Resync));
}

#[tokio::test(start_paused = true)]
async fn a_settled_verdict_that_the_appliance_lost_is_a_doubt() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = loop {
        if let Some(start) = world.next(4, None).await.start {
            break start;
        }
    };
    assert_eq!((start.cycle, start.kind), (CycleNo(5), CycleKind::Resync));
}

#[tokio::test(start_paused = true)]
async fn a_running_cycle_that_no_record_knows_has_failed() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let mut disk = world.repository.disks().await.unwrap().remove(0);
    disk.newest = CycleNo(3);
    let third = CycleRecord {
        state: CycleState::Failed,
        reason: Some(FailReason::Other),
        ..CycleRecord::planned(DISK, CycleNo(3), Generation(1), CycleKind::Delta, 0)
    };
    world.repository.save(&disk, Some(&third)).await.unwrap();
    let mut world = world;
    world.restart().await;
    let verdict = world.next(1, Some(2)).await.verdict.unwrap();
    assert!(matches!(verdict, Verdict::Failed { cycle: CycleNo(2), reason: FailReason::Abandoned, .. }), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_appliance_that_is_put_back_gives_no_lease_out_twice() {
    let mut world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let claim = |world: &World| {
        let hydrator = world.hydrator();
        async move { hydrator.claim(DISK, start.cycle, Generation(1)).await.unwrap().lease }
    };
    let snapshot = world.repository.snapshot();
    let lost = claim(&world).await;
    world.repository.put_back(&snapshot);
    world.restart().await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let given = claim(&world).await;
    assert!(given > lost, "both would write: {given:?} after {lost:?}");
    let asked = world.hydrator().check_lease(DISK, start.cycle, Generation(1), lost).await;
    assert_eq!(code(asked), ErrorCode::LeaseLost);
}

/// An agent that was killed in the middle of a delta, whose last question came to an appliance that was put back meanwhile.
#[tokio::test(start_paused = true)]
async fn a_delta_is_given_up_where_a_comparison_was_ordered_in_its_place() {
    let mut world = World::new().await;
    world.register().await;
    let first = world.start(0).await;
    let shipment = world.ship(&first, &whole(), 1).await;
    world.verify(&shipment).await;
    assert!(world.next(0, Some(1)).await.verdict.is_some());
    let snapshot = world.repository.snapshot();
    let delta = world.start(1).await;
    let shipment = world.ship(&delta, &planned(0, 10), 2).await;
    world.verify(&shipment).await;
    assert!(world.next(1, Some(2)).await.verdict.is_some());
    let planned_as = world.start(2).await;
    assert_eq!((planned_as.cycle, planned_as.kind), (CycleNo(3), CycleKind::Delta));
    world.repository.put_back(&snapshot);
    world.restart().await;
    let ordered = world.start(2).await;
    assert_eq!((ordered.cycle, ordered.kind), (CycleNo(3), CycleKind::Resync));
    let plan = Shipment::new(&planned_as, &planned(0, 10), 3);
    assert_eq!(code(world.agent().open(DISK, CycleNo(3), plan.open).await), ErrorCode::WrongState);
    let give_up = GiveUp { generation: Generation(1), reason: FailReason::Other, detail: "can't go on".into() };
    world.agent().give_up(DISK, CycleNo(3), give_up).await.unwrap();
    assert!(matches!(world.next(2, Some(3)).await.verdict, Some(Verdict::Failed { .. })));
    assert_eq!(world.start(3).await.kind, CycleKind::Resync);
}
