//! Digests of the target: ordered by the agent, delivered by the hydrator, read by the agent.

use super::fixture::*;
use bytes::Bytes;
use sluice_client::{AgentApi, HydratorApi};
use sluice_proto::digests::{grain_count, seal_part};
use sluice_proto::header::{Header, ObjectKind, Suite};
use sluice_proto::keys::DataKey;
use sluice_proto::wire::{ErrorCode, WorkRequest};
use sluice_proto::{CycleNo, Digest, Generation};
use std::time::Duration;
use tokio::time::{Instant, advance};

pub(crate) fn part(cycle: CycleNo, number: u64) -> Bytes {
    let header = Header {
        kind: ObjectKind::Digests,
        suite: Suite::Aes256Gcm,
        disk: DISK,
        generation: Generation(1),
        cycle,
        salt: [4; 32],
        fields: [0; 3],
    };
    let sectors = SIZE.sectors_ceil();
    let digests = vec![Digest([5; 32]); grain_count(sectors) as usize];
    seal_part(&header, &DataKey::new(KEY), number, sectors, &digests).into()
}

#[tokio::test(start_paused = true)]
async fn a_comparison_is_opened_before_it_is_known_what_differs() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    let resync = sluice_proto::wire::Start { kind: sluice_proto::cycle::CycleKind::Resync, ..start };
    let nothing_yet = Shipment::new(&resync, &planned(0, 0), 2).open;
    world.agent().open(DISK, resync.cycle, nothing_yet).await.unwrap();
    world.agent().digests(DISK, resync.cycle, Generation(1), 0, 0).await.unwrap();
    let sent = part(resync.cycle, 0);
    world.hydrator().put_digests(DISK, resync.cycle, Generation(1), 0, sent.clone()).await.unwrap();
    let shipment = Shipment::new(&resync, &planned(0, 5000), 2);
    world.agent().open(DISK, resync.cycle, shipment.open.clone()).await.unwrap();
    let kept = world.agent().digests(DISK, resync.cycle, Generation(1), 0, 0).await.unwrap();
    assert_eq!(kept, Some(sent), "digests are lost when the plan is told");
    let shipment = world.ship(&resync, &planned(0, 5000), 2).await;
    world.verify(&shipment).await;
}

#[tokio::test(start_paused = true)]
async fn digests_are_ordered_waited_for_and_delivered() {
    let mut world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let cycle = world.start(1).await.cycle;
    let work = || async { world.hydrator().work(WorkRequest::default()).await.unwrap().work.remove(0) };
    assert!(!work().await.digests_wanted);
    let begun = Instant::now();
    let none = world.agent().digests(DISK, cycle, Generation(1), 0, 2000).await.unwrap();
    assert_eq!((none, begun.elapsed()), (None, Duration::from_secs(2)));
    assert!(work().await.digests_wanted);
    let agent = world.agent();
    let held = tokio::spawn(async move { agent.digests(DISK, cycle, Generation(1), 0, 30_000).await.unwrap() });
    advance(Duration::from_secs(1)).await;
    let sent = part(cycle, 0);
    let wrong = world.hydrator().put_digests(DISK, cycle, Generation(1), 0, part(CycleNo(1), 0)).await;
    assert_eq!(code(wrong), ErrorCode::Corrupt);
    let beyond = world.hydrator().put_digests(DISK, cycle, Generation(1), 1, part(cycle, 1)).await;
    assert_eq!(code(beyond), ErrorCode::BadRequest);
    let large = vec![0; 5 << 20].into();
    assert_eq!(code(world.hydrator().put_digests(DISK, cycle, Generation(1), 0, large).await), ErrorCode::TooLarge);
    for _ in 0..2 {
        world.hydrator().put_digests(DISK, cycle, Generation(1), 0, sent.clone()).await.unwrap();
    }
    assert_eq!(held.await.unwrap(), Some(sent.clone()));
    assert!(!work().await.digests_wanted, "a hydrator that is started again reads its target again for nobody");
    world.restart().await;
    let again = world.agent().digests(DISK, cycle, Generation(1), 0, 0).await.unwrap();
    assert_eq!(again, Some(sent), "delivered digests are lost with a restart");
    assert_eq!(code(world.agent().digests(DISK, cycle, Generation(1), 1, 0).await), ErrorCode::BadRequest);
    let start = world.start(1).await;
    let shipment = world.ship(&start, &planned(0, 10), 2).await;
    world.verify(&shipment).await;
    assert_eq!(world.objects().await, Vec::<String>::new());
}
