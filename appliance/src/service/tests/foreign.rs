//! A hydrator that claims a disk which is not meant for it: what it brings about, and what the appliance believes.

use super::fixture::*;
use crate::service::LocalHydrator;
use sluice_client::{HydratorApi, OperatorApi};
use sluice_proto::cycle::{FailReason, State as CycleState};
use sluice_proto::disk::State as DiskPhase;
use sluice_proto::wire::{ErrorCode, Outcome, Verdict, VerdictRequest, WorkRequest};
use sluice_proto::{CycleNo, Digest, Generation};

fn foreign(world: &World) -> LocalHydrator {
    LocalHydrator::new(world.service.clone(), name("other"))
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_key_that_can_t_be_opened_gives_a_disk_back() {
    let world = World::new().await;
    world.register().await;
    let other = foreign(&world);
    let reasons = [FailReason::TargetWrite, FailReason::ManifestCorrupt, FailReason::Other, FailReason::WrongKey];
    for (settled, reason) in (0..).zip(reasons) {
        let start = world.start(settled).await;
        let shipment = world.ship(&start, &whole(), 1 + settled as u8).await;
        let lease = other.claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
        let mine = world.hydrator().claim(DISK, start.cycle, Generation(1)).await;
        assert_eq!(code(mine), ErrorCode::NoSuchDisk, "at {reason:?}");
        other.verdict(DISK, start.cycle, shipment.failed(lease, reason)).await.unwrap();
        assert!(world.next(settled, Some(start.cycle.0)).await.verdict.is_some());
    }
    let start = world.start(reasons.len() as u64).await;
    world.ship(&start, &whole(), 9).await;
    world.hydrator().claim(DISK, start.cycle, Generation(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_nothing_proves_is_believed_here_and_told_as_it_came() {
    for proof in [None, Some(Digest([0; 32]))] {
        let world = World::new().await;
        world.register().await;
        let other = foreign(&world);
        let start = world.start(0).await;
        let shipment = world.ship(&start, &whole(), 1).await;
        let lease = other.claim(DISK, start.cycle, Generation(1)).await.unwrap().lease;
        let honest = shipment.verified(lease);
        let outcome = Outcome::Verified { target_digest: shipment.digest, whole_disk: shipment.whole_disk, proof };
        other.verdict(DISK, start.cycle, VerdictRequest { outcome, ..honest }).await.unwrap();
        assert_eq!(world.phase().await, DiskPhase::InStep);
        assert_eq!(world.operator().cycles(DISK, 1).await.unwrap()[0].state, CycleState::Verified);
        // The agent is told no better proof than was given, and judges it.
        let Some(Verdict::Verified { cycle, proof: told, .. }) = world.next(0, Some(1)).await.verdict else {
            panic!("no verdict")
        };
        assert_eq!((cycle, told), (CycleNo(1), proof));
        let delta = world.start(1).await;
        world.ship(&delta, &planned(0, 10), 2).await;
        assert_eq!(world.hydrator().work(WorkRequest::default()).await.unwrap().work.len(), 0, "it keeps the disk");
    }
}
