//! Honest clients.

use super::world::*;
use crate::identity::Role;
use crate::repository::Repository;
use crate::service::tests::fixture::*;
use bytes::Bytes;
use futures_util::future::join_all;
use sluice_client::{AgentApi, ApiError, HydratorApi, OperatorApi};
use sluice_proto::cycle::{FailReason, State as CycleState};
use sluice_proto::wire::{ErrorCode, GiveUp, PolicyView, WorkRequest};
use sluice_proto::{CycleNo, Generation};
use std::time::{Duration, Instant};

#[tokio::test]
async fn whole_cycles_over_the_wire() {
    let world = Site::new().await;
    let (agent, hydrator, operator) = (world.agent(), world.hydrator(), world.operator());
    agent.health().await.unwrap();
    let status = agent.register(DISK, registration(DISK, Generation(1))).await.unwrap();
    assert_eq!((status.verified, status.open), (None, None));
    for settled in 0..2 {
        let start = agent.next(DISK, asks(settled, None, 0)).await.unwrap().start.unwrap();
        let plan = if settled == 0 { whole() } else { planned(100, 9000) };
        let shipment = Shipment::new(&start, &plan, start.cycle.0 as u8);
        assert_eq!(agent.open(DISK, start.cycle, shipment.open.clone()).await.unwrap().stored, []);
        assert_eq!(agent.digests(DISK, start.cycle, Generation(1), 0, 0).await.unwrap(), None);
        let puts = shipment
            .segments
            .iter()
            .map(|(stored, bytes)| agent.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes.clone()));
        for (put, (stored, _)) in join_all(puts).await.into_iter().zip(&shipment.segments) {
            assert_eq!(put.unwrap(), *stored);
        }
        agent.commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await.unwrap();
        let work = hydrator.work(WorkRequest::default()).await.unwrap().work.remove(0);
        assert_eq!((work.state, work.manifest), (CycleState::Committed, Some(shipment.hash)));
        let lease = hydrator.claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
        hydrator.check_lease(DISK, start.cycle, Generation(1), lease).await.unwrap();
        hydrator.verdict(DISK, start.cycle, shipment.verified(lease)).await.unwrap();
        let verdict = agent.next(DISK, asks(settled, Some(start.cycle.0), 5000)).await.unwrap().verdict;
        assert_eq!(verdict, Some(shipment.verdict()));
    }
    assert_eq!(operator.disks().await.unwrap()[0].cycle.as_ref().unwrap().cycle, CycleNo(2));
    let cycles = operator.cycles(DISK, 9).await.unwrap();
    assert_eq!(cycles.iter().map(|c| c.cycle.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(world.service.objects().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_rest_of_the_requests() {
    let world = Site::new().await;
    let (agent, hydrator, operator) = (world.agent(), world.hydrator(), world.operator());
    let start = begun(&agent).await;
    let part = crate::service::tests::digests_part(start.cycle, 0);
    hydrator.put_digests(DISK, start.cycle, Generation(1), 0, part.clone()).await.unwrap();
    assert_eq!(agent.digests(DISK, start.cycle, Generation(1), 0, 1000).await.unwrap(), Some(part));
    let give_up = GiveUp { generation: Generation(1), reason: FailReason::SourceRead, detail: "gone".into() };
    agent.give_up(DISK, start.cycle, give_up).await.unwrap();
    let quick = PolicyView { limit: Some("80Mbit/s".into()), ..policy() };
    operator.set_policy(quick.clone()).await.unwrap();
    assert_eq!(operator.policy().await.unwrap(), quick);
    operator.order_final(DISK, true).await.unwrap();
    operator.order_final(DISK, false).await.unwrap();
    operator.sync_now(DISK).await.unwrap();
    let refusal = agent.disks().await.unwrap_err();
    assert_eq!(refusal.code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn another_agents_disk_does_not_exist() {
    let world = Site::new().await;
    let (agent, other) = (world.agent(), world.client(Role::Agent, "web-2"));
    let (start, shipment) = opened(&agent).await;
    let (stored, bytes) = shipment.segments[0].clone();
    let refusals = [
        code(other.next(DISK, asks(0, None, 0)).await),
        code(other.put_segment(DISK, start.cycle, Generation(1), &stored.name, bytes).await),
        code(other.commit(DISK, start.cycle, Generation(1), shipment.manifest.clone()).await),
        code(other.digests(DISK, start.cycle, Generation(1), 0, 0).await),
    ];
    assert_eq!(refusals, [ErrorCode::NoSuchDisk; 4]);
    assert_eq!(world.service.objects().await, Vec::<String>::new());
    // The connection on which bodies were refused is as good as before.
    other.health().await.unwrap();
}

#[tokio::test]
async fn a_held_request_wakes_over_the_wire() {
    let world = Site::new().await;
    let (agent, operator) = (world.agent(), world.operator());
    agent.register(DISK, registration(DISK, Generation(1))).await.unwrap();
    world.service.cycle(0, &whole()).await;
    world.service.cycle(1, &planned(0, 10)).await;
    let held = tokio::spawn(async move { agent.next(DISK, asks(2, None, 30_000)).await.unwrap() });
    let begun = Instant::now();
    while !held.is_finished() {
        operator.sync_now(DISK).await.unwrap();
        tokio::task::yield_now().await;
        assert!(begun.elapsed() < Duration::from_secs(10), "a held request was not woken");
    }
    assert!(held.await.unwrap().start.is_some());
}

#[tokio::test]
async fn a_connection_that_the_port_closed_is_replaced() {
    let world = Site::with(quick()).await;
    let agent = world.agent();
    agent.health().await.unwrap();
    // Longer than the port keeps an idle connection.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    agent.health().await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_held_requests_and_then_the_server() {
    let mut world = Site::with(quick()).await;
    let agent = world.agent();
    agent.register(DISK, registration(DISK, Generation(1))).await.unwrap();
    world.service.cycle(0, &whole()).await;
    world.service.cycle(1, &planned(0, 10)).await;
    let held = tokio::spawn(async move { agent.next(DISK, asks(2, None, 30_000)).await });
    // What the agent has settled is noted before its request is held.
    while world.service.repository.disks().await.unwrap()[0].settled != CycleNo(2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.stop();
    let answer = held.await.unwrap().unwrap_err();
    assert_eq!(answer.code(), Some(ErrorCode::Unavailable), "{answer}");
    let served = world.served.take().unwrap();
    tokio::time::timeout(Duration::from_secs(5), served).await.expect("the server does not end").unwrap();
    let gone = world.operator().disks().await.unwrap_err();
    assert!(matches!(gone, ApiError::Unreachable { .. }), "{gone}");
}

#[tokio::test]
async fn the_throttle_slows_a_body_and_does_not_break_it() {
    let world = Site::with(quick()).await;
    let (agent, operator) = (world.agent(), world.operator());
    let (start, _) = opened(&agent).await;
    // About 150 kB of manifest and segments in all; at this rate a 64 KiB piece takes longer than a body may stand still.
    operator.set_policy(PolicyView { limit: Some("400kbit/s".into()), ..policy() }).await.unwrap();
    let begun = Instant::now();
    let bytes = Bytes::from(vec![0; 150_000]);
    let refused = agent.put_segment(DISK, start.cycle, Generation(1), "s0000000000-0000000000000000.seg", bytes).await;
    assert_eq!(code(refused), ErrorCode::Corrupt, "the body was not read to its end");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1200), "150 kB at 50 kB/s came in {took:?}");
}
