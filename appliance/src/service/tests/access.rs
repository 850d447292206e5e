//! Who may do what.

use super::fixture::*;
use crate::service::{LocalAgent, LocalHydrator, Settings};
use sluice_client::{AgentApi, HydratorApi};
use sluice_proto::cycle::{FailReason, State as CycleState};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::keys::{DataKey, HydratorKey, KeyEnvelope, SigningKey};
use sluice_proto::wire::{ErrorCode, GiveUp, Lease, Verdict, VerdictRequest, WorkRequest};
use sluice_proto::{ByteCount, CycleNo, DiskId, Generation};

#[tokio::test(start_paused = true)]
async fn another_agent_sees_nothing_of_a_disk() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let other = LocalAgent::new(world.service.clone(), name("web-2"));
    let (stored, bytes) = shipment.segments[0].clone();
    let give_up = GiveUp { generation: Generation(1), reason: FailReason::Other, detail: String::new() };
    let cycle = start.cycle;
    let refusals = [
        code(other.register(DISK, registration(DISK, Generation(2))).await),
        code(other.next(DISK, asks(0, None, 0)).await),
        code(other.open(DISK, cycle, shipment.open.clone()).await),
        code(other.put_segment(DISK, cycle, Generation(1), &stored.name, bytes).await),
        code(other.commit(DISK, cycle, Generation(1), shipment.manifest.clone()).await),
        code(other.give_up(DISK, cycle, give_up).await),
        code(other.digests(DISK, cycle, Generation(1), 0, 0).await),
    ];
    assert_eq!(refusals, [ErrorCode::NoSuchDisk; 7]);
    // The very words are those for a disk that does not exist.
    let unknown = DiskId([8; 16]);
    let words = |disk: DiskId| {
        let other = &other;
        async move { other.next(disk, asks(0, None, 0)).await.unwrap_err().to_string() }
    };
    assert_eq!(
        words(DISK).await.replace(&DISK.to_string(), "X"),
        words(unknown).await.replace(&unknown.to_string(), "X")
    );
}

#[tokio::test(start_paused = true)]
async fn each_role_keeps_to_its_own() {
    use crate::identity::{Fingerprint, Identity, Role};
    let world = World::new().await;
    world.register().await;
    let who = |role| Identity { role, name: name("web-1"), fingerprint: Fingerprint::of(b"x") };
    let service = &world.service;
    for role in [Role::Hydrator, Role::Operator] {
        let refusal = service.next(&who(role), DISK, asks(0, None, 0)).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Forbidden);
    }
    for role in [Role::Agent, Role::Operator] {
        let refusal = service.work(&who(role), WorkRequest::default()).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        let refusal = service.claim(&who(role), DISK, CycleNo(1), Generation(1)).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        let refusal = service.check_lease(&who(role), DISK, CycleNo(1), Generation(1), Lease(1)).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Forbidden);
    }
    for role in [Role::Agent, Role::Hydrator] {
        assert_eq!(service.disks(&who(role)).await.unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(service.set_policy(&who(role), policy()).await.unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(service.order_final(&who(role), DISK, true).await.unwrap_err().code, ErrorCode::Forbidden);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_hydrator_keeps_the_disk() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let other = LocalHydrator::new(world.service.clone(), name("other"));
    assert_eq!(other.work(WorkRequest::default()).await.unwrap().work.len(), 1);
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    assert_eq!(other.work(WorkRequest::default()).await.unwrap().work.len(), 0);
    assert_eq!(code(other.claim(DISK, start.cycle, Generation(1)).await), ErrorCode::NoSuchDisk);
    assert_eq!(code(other.check_lease(DISK, start.cycle, Generation(1), lease).await), ErrorCode::NoSuchDisk);
}

#[tokio::test(start_paused = true)]
async fn a_hydrator_that_can_t_open_the_key_does_not_keep_the_disk() {
    let world = World::new().await;
    world.register().await;
    let other = LocalHydrator::new(world.service.clone(), name("other"));
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let lease = other.claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    assert_eq!(code(world.hydrator().claim(DISK, start.cycle, Generation(1)).await), ErrorCode::NoSuchDisk);
    let wrong_key = VerdictRequest { manifest: None, ..shipment.failed(lease, FailReason::WrongKey) };
    other.verdict(DISK, start.cycle, wrong_key).await.unwrap();
    // The one that it is for takes it, and keeps it from then on.
    let again = world.start(1).await;
    let shipment = world.ship(&again, &whole(), 2).await;
    world.verify(&shipment).await;
    assert!(world.next(1, Some(again.cycle.0)).await.verdict.is_some());
    let delta = world.start(again.cycle.0).await;
    assert_eq!(code(other.claim(DISK, delta.cycle, Generation(1)).await), ErrorCode::NoSuchDisk);
    let shipment = world.ship(&delta, &planned(0, 10), 3).await;
    let lease = world.hydrator().claim(DISK, delta.cycle, Generation(1)).await.unwrap().lease;
    world.hydrator().verdict(DISK, delta.cycle, shipment.failed(lease, FailReason::WrongKey)).await.unwrap();
    world.start(delta.cycle.0).await;
    assert_eq!(other.work(WorkRequest::default()).await.unwrap().work.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_for_another_hydrator_is_free_to_be_claimed() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let mut renewed = registration(DISK, Generation(2));
    world.agent().register(DISK, renewed.clone()).await.unwrap();
    let other = LocalHydrator::new(world.service.clone(), name("other"));
    let ask = |generation, settled| sluice_proto::wire::NextRequest { generation, ..asks(settled, None, 0) };
    assert!(world.agent().next(DISK, ask(Generation(2), 1)).await.unwrap().start.is_some());
    assert_eq!(other.work(WorkRequest::default()).await.unwrap().work.len(), 0, "it is for the same hydrator");
    renewed.generation = Generation(3);
    let (key, signer) = (DataKey::new(KEY), SigningKey::from_seed(&[2; 32]));
    let its_key = HydratorKey::generate().unwrap();
    renewed.envelope = KeyEnvelope::wrap(&key, DISK, Generation(3), its_key.public(), &signer).unwrap();
    world.agent().register(DISK, renewed).await.unwrap();
    // The cycle that had begun was given up.
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    let begun = world.agent().next(DISK, ask(Generation(3), 2)).await.unwrap().start.unwrap();
    other.claim(DISK, begun.cycle, Generation(3)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_old_generation_writes_nothing() {
    let world = World::new().await;
    world.agent().register(DISK, registration(DISK, Generation(2))).await.unwrap();
    let old = world.agent().register(DISK, registration(DISK, Generation(1))).await;
    assert_eq!(code(old), ErrorCode::OldGeneration);
    assert_eq!(code(world.agent().next(DISK, asks(0, None, 0)).await), ErrorCode::OldGeneration);
    let start = sluice_proto::wire::Start {
        cycle: CycleNo(1),
        kind: sluice_proto::cycle::CycleKind::Initial,
        previous: None,
        read_rate: None,
    };
    let shipment = Shipment::new(&start, &whole(), 1);
    let (stored, bytes) = &shipment.segments[0];
    assert_eq!(code(world.put(start.cycle, stored, bytes).await), ErrorCode::OldGeneration);
    assert_eq!(code(world.hydrator().claim(DISK, start.cycle, Generation(1)).await), ErrorCode::OldGeneration);
    let newer = sluice_proto::wire::NextRequest { generation: Generation(3), ..asks(0, None, 0) };
    assert_eq!(code(world.agent().next(DISK, newer).await), ErrorCode::WrongState);
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_abandons_the_open_cycle() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    world.ship(&start, &planned(0, 100), 2).await;
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let status = world.agent().register(DISK, registration(DISK, Generation(2))).await.unwrap();
    assert_eq!((status.generation, status.open), (Generation(2), None));
    assert_eq!(status.verified.unwrap().cycle, CycleNo(1), "what is verified stays so");
    let shipment = Shipment::new(&start, &planned(0, 100), 2);
    let late = world.hydrator().verdict(DISK, start.cycle, shipment.verified(lease)).await;
    assert_eq!(code(late), ErrorCode::OldGeneration);
    let asks = sluice_proto::wire::NextRequest { generation: Generation(2), ..asks(1, Some(2), 0) };
    let verdict = world.agent().next(DISK, asks).await.unwrap().verdict.unwrap();
    assert!(matches!(verdict, Verdict::Failed { reason: FailReason::Abandoned, .. }), "{verdict:?}");
    assert_eq!(world.objects().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_generation_keeps_its_key_and_size_and_a_disk_never_shrinks() {
    let world = World::new().await;
    world.register().await;
    let mut other_key = registration(DISK, Generation(1));
    other_key.envelope.sealed[0] ^= 1;
    assert_eq!(code(world.agent().register(DISK, other_key).await), ErrorCode::WrongState);
    let mut grown = registration(DISK, Generation(1));
    grown.size = ByteCount(SIZE.0 + 512);
    assert_eq!(code(world.agent().register(DISK, grown.clone()).await), ErrorCode::WrongState);
    world.cycle(0, &whole()).await;
    let mut shrunk = registration(DISK, Generation(2));
    shrunk.size = ByteCount(SIZE.0 - 512);
    let refusal = world.agent().register(DISK, shrunk).await.unwrap_err();
    assert!(refusal.to_string().contains("never shrink"), "{refusal}");
    let larger = sluice_proto::wire::RegisterRequest { size: grown.size, ..registration(DISK, Generation(2)) };
    world.agent().register(DISK, larger).await.unwrap();
    assert_eq!(world.phase().await, DiskPhase::Resync, "the added sectors were never compared");
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_not_registered() {
    let world = World::with(Settings { disks_per_agent_max: 2, ..Settings::default() }).await;
    let wrong: [&dyn Fn(&mut sluice_proto::wire::RegisterRequest); 7] = [
        &|r| r.name = String::new(),
        &|r| r.name = "a\nb".into(),
        &|r| r.logical_sector = 1024,
        &|r| r.size = ByteCount(0),
        &|r| r.size = ByteCount((64 << 40) + 1),
        &|r| r.generation = Generation(2),
        &|r| r.envelope.sealed = vec![0; 1 << 20],
    ];
    for change in wrong {
        let mut request = registration(DISK, Generation(1));
        change(&mut request);
        assert_eq!(code(world.agent().register(DISK, request).await), ErrorCode::BadRequest);
    }
    let of = |n: u8| (DiskId([n; 16]), registration(DiskId([n; 16]), Generation(1)));
    for n in [1, 2] {
        let (disk, request) = of(n);
        world.agent().register(disk, request).await.unwrap();
    }
    let (disk, request) = of(3);
    assert_eq!(code(world.agent().register(disk, request).await), ErrorCode::WrongState);
    let status = world.agent().register(of(1).0, of(1).1).await.unwrap();
    assert_eq!(status.open.map(|(_, state)| state), None::<CycleState>);
}

#[tokio::test(start_paused = true)]
async fn objects_in_the_clear_are_taken_only_where_that_is_allowed() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let header = sluice_proto::header::Header {
        kind: sluice_proto::header::ObjectKind::Segment,
        suite: sluice_proto::header::Suite::Plain,
        disk: DISK,
        generation: Generation(1),
        cycle: start.cycle,
        salt: [1; 32],
        fields: [0; 3],
    };
    let key = sluice_proto::keys::DataKey::new(KEY);
    let mut encoder = sluice_proto::segment::BlockEncoder::new(&key, &header, sectors_of(1), 1);
    let data = vec![1; 512];
    let block = sluice_proto::BlockNo(0);
    let encoded = encoder.encode(block, &[sluice_proto::Extent::new(0, 1)], &data, Vec::new());
    let mut writer = sluice_proto::segment::SegmentWriter::new(&key, &header, block);
    writer.push(&encoded);
    let (name, bytes) = (writer.name(), bytes::Bytes::from(writer.finish()));
    let put = world.agent().put_segment(DISK, start.cycle, Generation(1), &name, bytes.clone()).await;
    assert_eq!(code(put), ErrorCode::Corrupt);
    let open = World::with(Settings { allow_plain: true, ..Settings::default() }).await;
    open.register().await;
    let start = open.start(0).await;
    open.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    open.agent().put_segment(DISK, start.cycle, Generation(1), &name, bytes).await.unwrap();
}
