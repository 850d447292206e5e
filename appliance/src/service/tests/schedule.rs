//! When cycles begin, and how long requests are held.

use super::fixture::*;
use crate::service::{LocalAgent, Settings};
use sluice_client::{AgentApi, HydratorApi, OperatorApi};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::wire::{ErrorCode, PolicyView, WindowView, WorkRequest};
use sluice_proto::{DiskId, Generation};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::{Instant, advance};

const MINUTE_MS: u64 = 60_000;

#[tokio::test(start_paused = true)]
async fn the_first_delta_follows_at_once_and_the_second_after_the_pause() {
    let world = World::new().await;
    world.register().await;
    let begun = Instant::now();
    world.cycle(0, &whole()).await;
    world.cycle(1, &planned(0, 10)).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let reply = world.next(2, None).await;
    assert_eq!((reply.start, reply.due_ms), (None, Some(60 * MINUTE_MS)));
    let view = &world.operator().disks().await.unwrap()[0];
    assert_eq!(view.due_ms, Some(1_800_000_000_000 + 60 * MINUTE_MS));
    world.start(2).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(60 * MINUTE_MS));
}

#[tokio::test(start_paused = true)]
async fn a_held_request_ends_when_it_should() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    world.cycle(1, &planned(0, 10)).await;
    let begun = Instant::now();
    world.agent().next(DISK, asks(2, None, 5000)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    world.agent().next(DISK, asks(2, None, u64::MAX)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(35), "no request is held longer than the most");
    let agent = world.agent();
    let held = tokio::spawn(async move { agent.next(DISK, asks(2, None, 30_000)).await.unwrap() });
    advance(Duration::from_secs(7)).await;
    let begun = Instant::now();
    world.operator().sync_now(DISK).await.unwrap();
    assert!(held.await.unwrap().start.is_some());
    assert_eq!(begun.elapsed(), Duration::ZERO, "a held request was not woken");
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_in_force_at_once() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    world.cycle(1, &planned(0, 10)).await;
    let agent = world.agent();
    let held = tokio::spawn(async move { agent.next(DISK, asks(2, None, 30_000)).await.unwrap() });
    advance(Duration::from_secs(3)).await;
    let quick = PolicyView { min_interval_ms: 5000, max_interval_ms: 5000, ..policy() };
    world.operator().set_policy(quick.clone()).await.unwrap();
    let begun = Instant::now();
    assert!(held.await.unwrap().start.is_some());
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert_eq!(world.operator().policy().await.unwrap(), quick);
    let wrong = [
        PolicyView { min_interval_ms: 999, ..policy() },
        PolicyView { max_interval_ms: 1000, ..policy() },
        PolicyView { limit: Some("fast".into()), ..policy() },
        PolicyView { windows: vec![WindowView { when: "noon".into(), limit: "1Mbit/s".into() }], ..policy() },
        PolicyView { scrub_rate: Some(0), ..policy() },
        PolicyView { scrub_interval_ms: Some(10), ..policy() },
    ];
    for policy in wrong {
        assert_eq!(code(world.operator().set_policy(policy).await), ErrorCode::BadRequest);
    }
    assert_eq!(world.operator().policy().await.unwrap(), quick);
}

#[tokio::test(start_paused = true)]
async fn a_policy_outlives_a_restart() {
    let mut world = World::new().await;
    let quick = PolicyView { limit: Some("80Mbit/s".into()), ..policy() };
    world.operator().set_policy(quick.clone()).await.unwrap();
    world.restart().await;
    assert_eq!(world.operator().policy().await.unwrap(), quick);
    let rate = world.service.throttle().limits().usual;
    assert_eq!(rate, "80Mbit/s".parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_after_longer_and_longer_pauses() {
    let world = World::new().await;
    world.register().await;
    let mut pauses = Vec::new();
    for cycle in 1..=9 {
        let begun = Instant::now();
        let start = world.start(cycle - 1).await;
        pauses.push(begun.elapsed().as_secs());
        let give_up = sluice_proto::wire::GiveUp {
            generation: Generation(1),
            reason: FailReason::SourceRead,
            detail: "unreadable".into(),
        };
        world.agent().give_up(DISK, start.cycle, give_up).await.unwrap();
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn a_scrub_comes_when_the_last_comparison_is_old() {
    let world = World::new().await;
    world.register().await;
    let policy = PolicyView { scrub_interval_ms: Some(90 * MINUTE_MS), scrub_rate: Some(1 << 20), ..policy() };
    world.operator().set_policy(policy).await.unwrap();
    world.cycle(0, &whole()).await;
    let kinds = async |from: u64, to: u64| {
        let mut kinds = Vec::new();
        for settled in from..to {
            let start = world.start(settled).await;
            kinds.push((start.kind, start.read_rate));
            let shipment = world.ship(&start, &planned(0, 10), start.cycle.0 as u8).await;
            world.verify(&shipment).await;
        }
        kinds
    };
    let (delta, scrub) = ((CycleKind::Delta, None), (CycleKind::Resync, Some(1 << 20)));
    assert_eq!(kinds(1, 6).await, [delta, delta, scrub, delta, scrub]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_waited_for_and_given_on() {
    let world = World::with(Settings { slots: NonZeroUsize::MIN, ..Settings::default() }).await;
    let other = DiskId([8; 16]);
    world.register().await;
    world.agent().register(other, registration(other, Generation(1))).await.unwrap();
    let start = world.start(0).await;
    let agent = world.agent();
    let held = tokio::spawn(async move { agent.next(other, asks(0, None, 30_000)).await.unwrap() });
    advance(Duration::from_secs(1)).await;
    assert!(!held.is_finished(), "two cycles run in one slot");
    let shipment = world.ship(&start, &whole(), 1).await;
    world.verify(&shipment).await;
    assert!(held.await.unwrap().start.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_holds_no_slot() {
    let world = World::with(Settings { slots: NonZeroUsize::MIN, ..Settings::default() }).await;
    let other = DiskId([8; 16]);
    world.register().await;
    let second = LocalAgent::new(world.service.clone(), name("web-2"));
    second.register(other, registration(other, Generation(1))).await.unwrap();
    let start = world.start(0).await;
    let begun = Instant::now();
    while second.next(other, asks(0, None, 30_000)).await.unwrap().start.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(200), "a dead agent stops another");
    }
    assert!(begun.elapsed() > Duration::from_secs(80));
    // The first is back, and goes on with its cycle.
    assert_eq!(world.start(0).await, start);
    let shipment = world.ship(&start, &whole(), 1).await;
    world.verify(&shipment).await;
    assert_eq!(world.next(0, Some(1)).await.verdict, Some(shipment.verdict()));
}

#[tokio::test(start_paused = true)]
async fn work_is_held_until_something_changes() {
    let world = World::new().await;
    world.register().await;
    let seen = world.revision().await;
    let begun = Instant::now();
    let reply = world.hydrator().work(WorkRequest { seen, wait_ms: 4000 }).await.unwrap();
    assert_eq!((reply.revision, begun.elapsed()), (seen, Duration::from_secs(4)));
    let hydrator = world.hydrator();
    let held = tokio::spawn(async move { hydrator.work(WorkRequest { seen, wait_ms: 30_000 }).await.unwrap() });
    advance(Duration::from_secs(1)).await;
    let begun = Instant::now();
    world.start(0).await;
    let reply = held.await.unwrap();
    assert_eq!(reply.work.len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(100));
}
