//! Opening, shipping and committing: repeats change nothing, and nothing else than what was promised is taken.

use super::fixture::*;
use bytes::Bytes;
use sluice_cache_store::CacheStore;
use sluice_client::{AgentApi, HydratorApi, OperatorApi};
use sluice_proto::cycle::{CycleKind, FailReason, State as CycleState};
use sluice_proto::wire::{ErrorCode, GiveUp, OpenRequest, WorkRequest};
use sluice_proto::{CycleNo, Digest, Generation, SectorCount};

#[tokio::test(start_paused = true)]
async fn a_cycle_from_its_order_to_its_verdict() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    assert_eq!((start.cycle, start.kind, start.previous), (CycleNo(1), CycleKind::Initial, None));
    let shipment = world.ship(&start, &whole(), 1).await;
    let view = &world.operator().cycles(DISK, 1).await.unwrap()[0];
    let sent: u64 = shipment.segments.iter().map(|(s, _)| s.len.0).sum::<u64>() + shipment.manifest.len() as u64;
    assert_eq!((view.state, view.bytes_sent.0), (CycleState::Committed, sent));
    assert_eq!((view.sectors, view.sectors_stored), (whole().count(), whole().count()));
    assert_eq!(world.objects().await.len(), shipment.segments.len() + 1);
    world.verify(&shipment).await;
    assert_eq!(world.next(0, Some(1)).await.verdict, Some(shipment.verdict()));
    assert_eq!(world.objects().await, Vec::<String>::new(), "what is applied stays in the store");
    let status = world.agent().register(DISK, registration(DISK, Generation(1))).await.unwrap();
    assert_eq!((status.verified, status.open), (Some(shipment.reference()), None));
}

#[tokio::test(start_paused = true)]
async fn repeats_change_nothing() {
    let world = World::new().await;
    world.register().await;
    world.register().await;
    let start = world.start(0).await;
    assert_eq!(world.start(0).await, start, "an order whose answer was lost is told again");
    let shipment = Shipment::new(&start, &whole(), 1);
    for _ in 0..2 {
        let reply = world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
        assert_eq!(reply.stored, []);
    }
    let (stored, bytes) = &shipment.segments[0];
    for _ in 0..3 {
        assert_eq!(world.put(start.cycle, stored, bytes).await.unwrap(), *stored);
    }
    let view = &world.operator().cycles(DISK, 1).await.unwrap()[0];
    assert_eq!(view.bytes_sent, stored.len, "a repeat is not counted as sent");
    let reply = world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    assert_eq!(reply.stored, std::slice::from_ref(stored));
    for (stored, bytes) in &shipment.segments {
        world.put(start.cycle, stored, bytes).await.unwrap();
    }
    for _ in 0..2 {
        world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
    }
    let (stored, bytes) = &shipment.segments[1];
    world.put(start.cycle, stored, bytes).await.unwrap();
    world.verify(&shipment).await;
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_segment_must_be_what_its_name_says() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    let (stored, bytes) = shipment.segments[0].clone();
    assert_eq!(code(world.put(start.cycle, &stored, &bytes).await), ErrorCode::WrongState, "not opened yet");
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let put = |name: String, bytes: Bytes| {
        let agent = world.agent();
        async move { code(agent.put_segment(DISK, start.cycle, Generation(1), &name, bytes).await) }
    };
    assert_eq!(put(shipment.segments[1].0.name.clone(), bytes.clone()).await, ErrorCode::Corrupt);
    assert_eq!(put("../../escape.seg".into(), bytes.clone()).await, ErrorCode::Corrupt);
    assert_eq!(put(stored.name.clone(), Bytes::new()).await, ErrorCode::Corrupt);
    assert_eq!(put(stored.name.clone(), bytes.slice(..bytes.len() - 1)).await, ErrorCode::Corrupt);
    let mut flipped = bytes.to_vec();
    flipped[20] ^= 1;
    assert_eq!(put(stored.name.clone(), flipped.into()).await, ErrorCode::Corrupt);
    assert_eq!(put(stored.name.clone(), vec![0; 17 << 20].into()).await, ErrorCode::TooLarge);
    let other = Shipment::new(&sluice_proto::wire::Start { cycle: CycleNo(2), ..start.clone() }, &whole(), 1);
    assert_eq!(put(stored.name.clone(), other.segments[0].1.clone()).await, ErrorCode::Corrupt, "another cycle's");
    assert_eq!(world.objects().await, Vec::<String>::new());
    // The same name with other bytes that are sound in themselves: the payload is the hydrator's to judge.
    world.put(start.cycle, &stored, &bytes).await.unwrap();
    let mut sealed = bytes.to_vec();
    sealed[400] ^= 1;
    assert_eq!(put(stored.name.clone(), sealed.into()).await, ErrorCode::WrongState);
}

#[tokio::test(start_paused = true)]
async fn a_segment_beyond_the_plan_is_refused() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let small = Shipment::new(&start, &planned(0, 10), 1);
    world.agent().open(DISK, start.cycle, small.open.clone()).await.unwrap();
    let large = Shipment::new(&start, &whole(), 1);
    let (stored, bytes) = &large.segments[1];
    assert_eq!(code(world.put(start.cycle, stored, bytes).await), ErrorCode::NotStored);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_must_fit_the_cycle() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    let commit = |manifest: Bytes| {
        let agent = world.agent();
        async move { agent.commit(DISK, start.cycle, Generation(1), manifest).await }
    };
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    for (stored, bytes) in &shipment.segments[1..] {
        world.put(start.cycle, stored, bytes).await.unwrap();
    }
    assert_eq!(code(commit(shipment.manifest.clone()).await), ErrorCode::NotStored);
    let (stored, bytes) = &shipment.segments[0];
    world.put(start.cycle, stored, bytes).await.unwrap();
    assert_eq!(code(commit(shipment.manifest.slice(..100)).await), ErrorCode::Corrupt);
    let with = |change: &dyn Fn(&mut sluice_proto::wire::Start)| {
        let mut other = start.clone();
        change(&mut other);
        Shipment::new(&other, &whole(), 1).manifest
    };
    let previous = sluice_proto::wire::CycleRef { cycle: CycleNo(9), manifest: Digest([1; 32]) };
    assert_eq!(code(commit(with(&|s| s.cycle = CycleNo(2))).await), ErrorCode::Corrupt);
    assert_eq!(code(commit(with(&|s| s.kind = CycleKind::Delta)).await), ErrorCode::WrongState);
    assert_eq!(code(commit(with(&|s| s.previous = Some(previous))).await), ErrorCode::WrongState);
    let fewer = Shipment::new(&start, &planned(0, 10), 1).manifest;
    assert_eq!(code(commit(fewer).await), ErrorCode::WrongState);
    let key = format!("{DISK}/g00000001/c00000001/manifest");
    assert_eq!(world.store.head(&key).await.unwrap(), None, "a refused manifest was stored");
    commit(shipment.manifest.clone()).await.unwrap();
    let other = Shipment::new(&start, &whole(), 2).manifest;
    assert_eq!(code(commit(other).await), ErrorCode::WrongState, "a second manifest for the same cycle");
}

#[tokio::test(start_paused = true)]
async fn another_plan_takes_the_place_of_the_one_before() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let lost = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, lost.open.clone()).await.unwrap();
    world.put(start.cycle, &lost.segments[0].0, &lost.segments[0].1).await.unwrap();
    // The agent lost its journal, so that it does not know of the cycle any more, and plans anew.
    assert_eq!(world.start(0).await, start);
    let shipment = Shipment::new(&start, &planned(0, 5000), 2);
    let reply = world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    assert_eq!(reply.stored, []);
    assert_eq!(world.objects().await, Vec::<String>::new(), "pieces of the lost plan stay");
    world.ship(&start, &planned(0, 5000), 2).await;
    let reopened = world.agent().open(DISK, start.cycle, lost.open.clone()).await;
    assert_eq!(code(reopened), ErrorCode::WrongState, "a committed cycle was opened with another plan");
}

#[tokio::test(start_paused = true)]
async fn a_plan_of_nothing_that_comes_late_takes_nothing_away() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &planned(0, 5000), 1);
    // What an agent says that compares, before it knows what differs.
    let comparing = OpenRequest { sectors: SectorCount(0), ..shipment.open.clone() };
    world.agent().open(DISK, start.cycle, comparing.clone()).await.unwrap();
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let (name, bytes) = &shipment.segments[0];
    world.put(start.cycle, name, bytes).await.unwrap();
    let told = world.agent().open(DISK, start.cycle, comparing).await.unwrap();
    assert_eq!(told.stored.len(), 1, "a piece of the plan is gone");
    for (name, bytes) in &shipment.segments[1..] {
        world.put(start.cycle, name, bytes).await.unwrap();
    }
    world.agent().commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_is_given_up_fails_and_comes_again() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    world.put(start.cycle, &shipment.segments[0].0, &shipment.segments[0].1).await.unwrap();
    let give_up = GiveUp {
        generation: Generation(1),
        reason: FailReason::SourceRead,
        detail: "/dev/sda: sectors 8..16 can't be read".into(),
    };
    for _ in 0..2 {
        world.agent().give_up(DISK, start.cycle, give_up.clone()).await.unwrap();
    }
    assert_eq!(world.objects().await, Vec::<String>::new());
    let verdict = world.next(0, Some(1)).await.verdict.unwrap();
    let failed =
        sluice_proto::wire::Verdict::Failed { cycle: start.cycle, reason: give_up.reason, detail: give_up.detail };
    assert_eq!(verdict, failed);
    let (stored, bytes) = &shipment.segments[0];
    assert_eq!(code(world.put(start.cycle, stored, bytes).await), ErrorCode::WrongState);
    let again = world.start(1).await;
    assert_eq!((again.cycle, again.kind), (CycleNo(2), CycleKind::Resync));
}

#[tokio::test(start_paused = true)]
async fn segments_are_shown_before_the_commit() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let seen = world.revision().await;
    world.put(start.cycle, &shipment.segments[2].0, &shipment.segments[2].1).await.unwrap();
    let reply = world.hydrator().work(WorkRequest { seen, wait_ms: 30_000 }).await.unwrap();
    assert!(reply.revision > seen);
    assert_eq!(reply.work[0].stored, [shipment.segments[2].0.clone()]);
    let shipment = world.ship(&start, &whole(), 1).await;
    world.verify(&shipment).await;
    let start = world.start(1).await;
    assert_eq!(start.kind, CycleKind::Delta);
    let delta = Shipment::new(&start, &planned(0, 5000), 2);
    world.agent().open(DISK, start.cycle, delta.open.clone()).await.unwrap();
    world.put(start.cycle, &delta.segments[0].0, &delta.segments[0].1).await.unwrap();
    let reply = world.hydrator().work(WorkRequest { seen: 0, wait_ms: 0 }).await.unwrap();
    assert_eq!(reply.work[0].stored, [delta.segments[0].0.clone()]);
    assert_eq!(reply.work[0].state, CycleState::Shipping);
}
