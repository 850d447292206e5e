//! Leases and verdicts.

use super::fixture::*;
use sluice_client::{AgentApi, HydratorApi, OperatorApi};
use sluice_proto::cycle::{CycleKind, FailReason, State as CycleState};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::wire::{ErrorCode, Lease, Outcome, Verdict};
use sluice_proto::{CycleNo, Digest, Generation};

#[tokio::test(start_paused = true)]
async fn only_the_last_lease_counts() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = world.ship(&start, &whole(), 1).await;
    let claim = || async { world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease };
    let verdict = |request| {
        let hydrator = world.hydrator();
        async move { hydrator.verdict(DISK, start.cycle, request).await }
    };
    assert_eq!(code(verdict(shipment.verified(Lease(0))).await), ErrorCode::BadRequest, "never claimed");
    let check = |lease| {
        let hydrator = world.hydrator();
        async move { hydrator.check_lease(DISK, start.cycle, Generation(1), lease).await }
    };
    assert_eq!(code(check(Lease(0)).await), ErrorCode::BadRequest, "never claimed");
    let first = claim().await;
    check(first).await.unwrap();
    let second = claim().await;
    assert!(second > first);
    check(second).await.unwrap();
    assert_eq!(code(check(first).await), ErrorCode::LeaseLost);
    assert_eq!(code(check(Lease(second.0 + 1)).await), ErrorCode::BadRequest);
    assert_eq!(code(verdict(shipment.verified(first)).await), ErrorCode::LeaseLost);
    assert_eq!(code(verdict(shipment.failed(first, FailReason::Other)).await), ErrorCode::LeaseLost);
    assert_eq!(code(verdict(shipment.verified(Lease(second.0 + 1))).await), ErrorCode::BadRequest);
    verdict(shipment.verified(second)).await.unwrap();
    verdict(shipment.verified(second)).await.unwrap();
    assert_eq!(code(verdict(shipment.failed(second, FailReason::Other)).await), ErrorCode::WrongState);
    assert_eq!(code(check(second).await), ErrorCode::WrongState, "nothing of a cycle is written once it is over");
}

#[tokio::test(start_paused = true)]
async fn a_cycle_is_not_verified_by_words_alone() {
    let world = World::new().await;
    world.register().await;
    let start = world.start(0).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let verdict = |request| {
        let hydrator = world.hydrator();
        async move { code(hydrator.verdict(DISK, start.cycle, request).await) }
    };
    assert_eq!(verdict(shipment.verified(lease)).await, ErrorCode::WrongState, "not committed");
    world.ship(&start, &whole(), 1).await;
    let with = |change: &dyn Fn(&mut sluice_proto::wire::VerdictRequest)| {
        let mut request = shipment.verified(lease);
        change(&mut request);
        request
    };
    assert_eq!(verdict(with(&|r| r.manifest = Some(Digest([0; 32])))).await, ErrorCode::BadRequest);
    assert_eq!(verdict(with(&|r| r.manifest = None)).await, ErrorCode::BadRequest);
    assert_eq!(verdict(with(&|r| r.source_digest = Some(Digest([0; 32])))).await, ErrorCode::BadRequest);
    assert_eq!(verdict(with(&|r| r.generation = Generation(2))).await, ErrorCode::WrongState);
    // The lease from before the commit is enough where it is still the last.
    world.hydrator().verdict(DISK, start.cycle, shipment.verified(lease)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_cycle_is_deleted_and_tried_again() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    let shipment = world.ship(&start, &planned(0, 100), 2).await;
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let full = shipment.failed(lease, FailReason::TargetFull);
    world.hydrator().verdict(DISK, start.cycle, full.clone()).await.unwrap();
    world.hydrator().verdict(DISK, start.cycle, full).await.unwrap();
    assert_eq!(world.objects().await, Vec::<String>::new());
    let verdict = world.next(1, Some(2)).await.verdict.unwrap();
    assert!(matches!(verdict, Verdict::Failed { reason: FailReason::TargetFull, .. }), "{verdict:?}");
    assert_eq!(world.phase().await, DiskPhase::InStep);
    let again = world.start(2).await;
    assert_eq!((again.cycle, again.kind), (CycleNo(3), CycleKind::Delta));
    assert_eq!(again.previous.unwrap().cycle, CycleNo(1), "it stands on what is verified");
    let view = &world.operator().cycles(DISK, 9).await.unwrap()[1];
    assert_eq!((view.state, view.reason), (CycleState::Failed, Some(FailReason::TargetFull)));
}

#[tokio::test(start_paused = true)]
async fn a_mismatch_is_a_doubt_and_leads_to_a_comparison() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    let shipment = world.ship(&start, &planned(0, 100), 2).await;
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let mismatch = shipment.failed(lease, FailReason::DigestMismatch);
    world.hydrator().verdict(DISK, start.cycle, mismatch).await.unwrap();
    assert_eq!(world.phase().await, DiskPhase::Resync);
    let again = world.start(2).await;
    assert_eq!(again.kind, CycleKind::Resync);
    let shipment = world.ship(&again, &planned(0, 100), 3).await;
    world.verify(&shipment).await;
    assert_eq!(world.phase().await, DiskPhase::InStep);
}

#[tokio::test(start_paused = true)]
async fn an_agent_in_doubt_makes_a_comparison_of_a_delta() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    assert_eq!(start.kind, CycleKind::Delta);
    let resync = sluice_proto::wire::Start { kind: CycleKind::Resync, ..start.clone() };
    let mut shipment = Shipment::new(&resync, &planned(0, 100), 2);
    shipment.open.doubt = Some("the kernel was booted since".into());
    world.agent().open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    assert_eq!(world.phase().await, DiskPhase::Resyncing);
    let shipment = world.ship(&resync, &planned(0, 100), 2).await;
    world.verify(&shipment).await;
    assert_eq!(world.phase().await, DiskPhase::InStep);
    let initial = sluice_proto::wire::Start { kind: CycleKind::Initial, ..world.start(2).await };
    let wrong = Shipment::new(&initial, &whole(), 3);
    assert_eq!(code(world.agent().open(DISK, initial.cycle, wrong.open).await), ErrorCode::WrongState);
}

#[tokio::test(start_paused = true)]
async fn verdicts_are_told_in_order_until_they_are_settled() {
    let world = World::new().await;
    world.register().await;
    let first = world.cycle(0, &whole()).await;
    let start = world.start(1).await;
    let second = world.ship(&start, &planned(0, 10), 2).await;
    world.verify(&second).await;
    for _ in 0..2 {
        // An agent that was restored from a copy of the time before the first verdict.
        assert_eq!(world.next(0, Some(1)).await.verdict, Some(first.verdict()));
    }
    assert_eq!(world.next(1, Some(2)).await.verdict, Some(second.verdict()));
    assert_eq!(world.next(2, None).await.verdict, None);
}

#[tokio::test(start_paused = true)]
async fn a_final_cycle_cuts_over_and_can_be_taken_back() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    world.operator().order_final(DISK, true).await.unwrap();
    let start = world.start(1).await;
    assert_eq!(start.kind, CycleKind::Final, "a final cycle waits for no interval");
    let shipment = world.ship(&start, &planned(0, 10), 2).await;
    let lease = world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
    let mut without = shipment.verified(lease);
    without.outcome = Outcome::Verified { target_digest: shipment.digest, whole_disk: None, proof: None };
    assert_eq!(code(world.hydrator().verdict(DISK, start.cycle, without).await), ErrorCode::BadRequest);
    assert_eq!(code(world.operator().order_final(DISK, false).await), ErrorCode::WrongState, "it is committed");
    world.hydrator().verdict(DISK, start.cycle, shipment.verified(lease)).await.unwrap();
    assert_eq!(world.phase().await, DiskPhase::CutOver);
    assert_eq!(code(world.operator().sync_now(DISK).await), ErrorCode::WrongState);
    let reply = world.agent().next(DISK, asks(2, None, 30_000)).await.unwrap();
    assert_eq!((reply.start, reply.due_ms), (None, None), "nothing is shipped after the cut-over");
    world.operator().order_final(DISK, false).await.unwrap();
    assert_eq!(world.start(2).await.kind, CycleKind::Resync);
}

#[tokio::test(start_paused = true)]
async fn a_final_cycle_that_is_withdrawn_or_fails_leaves_the_disk_in_step() {
    let world = World::new().await;
    world.register().await;
    world.cycle(0, &whole()).await;
    world.operator().order_final(DISK, true).await.unwrap();
    let start = world.start(1).await;
    let shipment = Shipment::new(&start, &planned(0, 10), 2);
    world.agent().open(DISK, start.cycle, shipment.open).await.unwrap();
    world.operator().order_final(DISK, false).await.unwrap();
    assert_eq!(world.phase().await, DiskPhase::InStep);
    let verdict = world.next(1, Some(2)).await.verdict.unwrap();
    assert!(matches!(verdict, Verdict::Failed { reason: FailReason::Abandoned, .. }), "{verdict:?}");
    world.operator().order_final(DISK, true).await.unwrap();
    let start = world.start(2).await;
    assert_eq!(start.kind, CycleKind::Final);
    let give_up = sluice_proto::wire::GiveUp {
        generation: Generation(1),
        reason: FailReason::SourceNotAtRest,
        detail: "it was written to".into(),
    };
    world.agent().give_up(DISK, start.cycle, give_up).await.unwrap();
    assert_eq!(world.start(3).await.kind, CycleKind::Delta, "the operator decides, not the schedule");
}
