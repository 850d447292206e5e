//! A disk that grows: with a new generation, by its own agent, and never back.

use super::fixture::*;
use crate::repository::Repository;
use crate::service::LocalAgent;
use sluice_client::{AgentApi, HydratorApi};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::wire::{ErrorCode, NextRequest, RegisterRequest, Start, Verdict, WorkRequest};
use sluice_proto::{ByteCount, Generation};

const GROWN: ByteCount = ByteCount(SIZE.0 + (5 << 20));

fn registration_of(size: ByteCount, generation: u64) -> RegisterRequest {
    RegisterRequest { size, ..registration(DISK, Generation(generation)) }
}

/// The order that an agent of the second generation gets.
async fn start_of_second(world: &World, settled: u64) -> Start {
    loop {
        let request = NextRequest { generation: Generation(2), ..asks(settled, None, 30_000) };
        if let Some(start) = world.agent().next(DISK, request).await.unwrap().start {
            return start;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_grew_is_compared_in_its_new_size() {
    let mut world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    world.ship(&start, &planned(0, 100), 2).await;
    let same = world.agent().register(DISK, registration_of(GROWN, 1)).await;
    assert_eq!(code(same), ErrorCode::WrongState, "a generation has one size");
    let stranger = LocalAgent::new(world.service.clone(), name("web-2"));
    assert_eq!(code(stranger.register(DISK, registration_of(GROWN, 2)).await), ErrorCode::NoSuchDisk);
    let before = world.hydrator().work(WorkRequest::default()).await.unwrap().work;
    assert_eq!((before[0].size, before[0].cycle), (SIZE, start.cycle));

    let status = world.agent().register(DISK, registration_of(GROWN, 2)).await.unwrap();
    assert_eq!(status.open, None, "the cycle in the old size is over, though it was committed");
    assert_eq!(world.hydrator().work(WorkRequest::default()).await.unwrap().work, []);
    world.restart().await;
    assert_eq!(world.phase().await, DiskPhase::Resync);
    let request = NextRequest { generation: Generation(2), ..asks(1, Some(2), 0) };
    let verdict = world.agent().next(DISK, request).await.unwrap().verdict.unwrap();
    assert!(matches!(verdict, Verdict::Failed { reason: FailReason::Abandoned, .. }), "{verdict:?}");
    let start = start_of_second(&world, 2).await;
    assert_eq!(start.kind, CycleKind::Resync);
    world.restart().await;
    let work = world.hydrator().work(WorkRequest::default()).await.unwrap().work.remove(0);
    assert_eq!((work.size, work.generation, work.cycle), (GROWN, Generation(2), start.cycle));

    let log = world.repository.log_entries(Some(DISK), 100).await.unwrap();
    let grown: Vec<_> = log.iter().filter(|entry| entry.what == "grown").collect();
    let (was, is) = (SIZE.to_string(), GROWN.to_string());
    assert_eq!(grown.len(), 1, "{log:?}");
    assert!(grown[0].detail.contains(&was) && grown[0].detail.contains(&is), "{}", grown[0].detail);
    assert!(grown[0].who.contains("web-1"), "{}", grown[0].who);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_grew_is_never_as_small_again() {
    let mut world = World::new().await;
    world.register().await;
    world.agent().register(DISK, registration_of(GROWN, 2)).await.unwrap();
    assert_eq!(world.phase().await, DiskPhase::Registered, "there is nothing yet to compare");
    world.restart().await;
    for (size, generation) in [(SIZE, 3), (ByteCount(GROWN.0 - 1), 2)] {
        let refusal = world.agent().register(DISK, registration_of(size, generation)).await.unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("never shrink") && text.contains(&GROWN.to_string()), "{text}");
    }
    assert_eq!(code(world.agent().register(DISK, registration_of(GROWN, 1)).await), ErrorCode::OldGeneration);
    world.agent().register(DISK, registration_of(GROWN, 2)).await.unwrap();
    assert_eq!(world.repository.disks().await.unwrap()[0].size, GROWN);
}
