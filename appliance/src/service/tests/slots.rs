//! Who holds a slot, and who must not.

use super::fixture::*;
use crate::service::{LocalAgent, Settings};
use sluice_client::{AgentApi, OperatorApi};
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::wire::{GiveUp, OpenRequest, PolicyView, Start};
use sluice_proto::{CycleNo, DiskId, Generation};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::advance;

const MINUTE: Duration = Duration::from_secs(60);

async fn world(slots: usize) -> World {
    World::with(Settings { slots: NonZeroUsize::new(slots).unwrap(), ..Settings::default() }).await
}

fn agent(world: &World, of: &str) -> LocalAgent {
    LocalAgent::new(world.service.clone(), name(of))
}

async fn register(agent: &LocalAgent, no: u8) -> DiskId {
    let disk = DiskId([no; 16]);
    agent.register(disk, registration(disk, Generation(1))).await.unwrap();
    disk
}

/// What the disk is told to begin right now.
async fn start(agent: &LocalAgent, disk: DiskId, settled: u64) -> Option<Start> {
    agent.next(disk, asks(settled, None, 0)).await.unwrap().start
}

/// One slot, which the first cycle of another agent's disk has; the world's own disk is in step after two cycles.
async fn taken() -> (World, LocalAgent, DiskId, Start) {
    let world = world(1).await;
    world.register().await;
    let other = agent(&world, "web-2");
    world.cycle(0, &whole()).await;
    world.cycle(1, &planned(0, 10)).await;
    let disk = register(&other, 8).await;
    let first = start(&other, disk, 0).await.unwrap();
    (world, other, disk, first)
}

fn give_up() -> GiveUp {
    GiveUp { generation: Generation(1), reason: FailReason::SourceRead, detail: "unreadable".into() }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_not_due_any_more_holds_no_slot() {
    let (world, other, disk, first) = taken().await;
    // The delta is due and waits for the slot; then the operator wants deltas less often.
    let often = PolicyView { min_interval_ms: 60_000, max_interval_ms: 60_000, ..policy() };
    world.operator().set_policy(often).await.unwrap();
    advance(MINUTE).await;
    let waits = world.next(2, None).await;
    assert_eq!((waits.start, waits.due_ms), (None, Some(0)));
    let day = PolicyView { min_interval_ms: 86_400_000, max_interval_ms: 86_400_000, ..policy() };
    world.operator().set_policy(day).await.unwrap();
    assert_eq!(world.next(2, None).await.start, None);
    other.give_up(disk, first.cycle, give_up()).await.unwrap();
    advance(MINUTE).await;
    assert!(start(&other, disk, 1).await.is_some(), "an idle disk holds the only slot");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_came_too_late_is_given_on() {
    let (world, other, disk, first) = taken().await;
    // A final cycle waits, and gets the slot before it is heard that it was withdrawn.
    world.operator().order_final(DISK, true).await.unwrap();
    assert_eq!(world.next(2, None).await.start, None);
    other.give_up(disk, first.cycle, give_up()).await.unwrap();
    world.operator().order_final(DISK, false).await.unwrap();
    advance(MINUTE).await;
    assert_eq!(world.next(2, None).await.start, None);
    assert!(start(&other, disk, 1).await.is_some(), "a withdrawn order holds the only slot");
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_stands_still_holds_no_slot_until_it_goes_on() {
    let world = world(1).await;
    world.register().await;
    let other = agent(&world, "web-2");
    let disk = register(&other, 8).await;
    let stuck = world.start(0).await;
    let shipment = world.ship(&stuck, &whole(), 1).await;
    // The agent is there and asks; it is the hydrator that never comes.
    let mut waited = Duration::ZERO;
    let begun = loop {
        assert_eq!(world.next(0, Some(1)).await.verdict, None);
        if let Some(start) = start(&other, disk, 0).await {
            break start;
        }
        advance(MINUTE).await;
        waited += MINUTE;
        assert!(waited < 40 * MINUTE, "a cycle that nobody applies stops all others");
    };
    assert!(waited >= 30 * MINUTE, "{waited:?}");
    // It goes on beside the other, whose slot it does not take.
    world.verify(&shipment).await;
    assert_eq!(world.next(0, Some(1)).await.verdict, Some(shipment.verdict()));
    assert_eq!(world.next(1, None).await.start, None, "two cycles run in one slot");
    other.give_up(disk, begun.cycle, give_up()).await.unwrap();
    assert!(world.next(1, None).await.start.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_throttle_lets_nobody_else_in() {
    let world = world(1).await;
    world.register().await;
    let other = agent(&world, "web-2");
    let disk = register(&other, 8).await;
    world.start(0).await;
    let pause = PolicyView { limit: Some("0".into()), ..policy() };
    world.operator().set_policy(pause).await.unwrap();
    for _ in 0..60 {
        advance(MINUTE).await;
        world.next(0, Some(1)).await;
        assert_eq!(start(&other, disk, 0).await, None);
    }
    world.operator().set_policy(policy()).await.unwrap();
    // Those that run get going again first.
    assert_eq!(start(&other, disk, 0).await, None);
    advance(31 * MINUTE).await;
    assert!(start(&other, disk, 0).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_delta_that_turns_out_to_be_a_comparison_counts_as_one() {
    let world = world(2).await;
    world.register().await;
    let other = agent(&world, "web-2");
    world.cycle(0, &whole()).await;
    let delta = world.start(1).await;
    assert_eq!(delta.kind, CycleKind::Delta);
    let doubt = OpenRequest {
        kind: CycleKind::Resync,
        sectors: sectors_of(0),
        ..Shipment::new(&delta, &planned(0, 10), 2).open
    };
    world.agent().open(DISK, delta.cycle, doubt).await.unwrap();
    // The one slot for long cycles is taken; the last is kept for short ones.
    let disk = register(&other, 8).await;
    assert_eq!(start(&other, disk, 0).await, None);
}

#[tokio::test(start_paused = true)]
async fn one_agent_leaves_two_slots_to_others_whatever_it_asks_for() {
    let world = world(8).await;
    let greedy = agent(&world, "web-1");
    let mut began = 0;
    for no in 1..=40 {
        let disk = register(&greedy, no).await;
        began += usize::from(start(&greedy, disk, 0).await.is_some());
    }
    assert_eq!(began, 5, "first copies of one agent");
    let honest = agent(&world, "web-2");
    for no in 101..=102 {
        let disk = register(&honest, no).await;
        let begun = start(&honest, disk, 0).await.unwrap();
        assert_eq!((begun.cycle, begun.kind), (CycleNo(1), CycleKind::Initial));
    }
}
