//! State that can't be saved: what nobody would know after a restart is told to nobody.

use super::{SECTORS, initial, verified};
use crate::apply::Claim;
use crate::testkit::{Bench, FakeApi, Then, stored};
use sluice_proto::cycle::CycleKind;
use sluice_proto::{BlockNo, CycleNo, Generation, SectorCount};
use std::sync::Arc;

#[tokio::test(start_paused = true)]
async fn what_was_applied_ahead_counts_once_it_is_noted() {
    let mut bench = Bench::new(SECTORS, 160);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan.clone(), None).await;
    let mut work = bench.source.work(CycleKind::Initial, 1, plan.count(), None);
    work.stored = shipped.manifest.segments.iter().map(stored).collect();
    let mut session = bench.session(&work).await;
    assert_eq!(session.stream(&work, &Claim::unrivalled(&work)).await.expect("written"), Some(Vec::new()));
    bench.faults.fail_state_after(0);
    session.stream(&work, &Claim::unrivalled(&work)).await.expect_err("it can't be noted");
    // The driver tells the appliance this, which lets go of the segments.
    let told = session.ledger().applied_end(CycleNo(1), Generation(1));
    let noted = bench.session(&work).await.ledger().applied_end(CycleNo(1), Generation(1));
    assert_eq!((told, noted), (BlockNo(0), BlockNo(0)));
    bench.faults.set(u64::MAX, Then::Nothing);
    let mut names = 0;
    while let Some(proven) = session.stream(&work, &Claim::unrivalled(&work)).await.expect("no fault") {
        names += proven.len();
    }
    assert_eq!(names, shipped.manifest.segments.len(), "all of it is told in the end");
    drop(session);
    verified(&bench, &shipped).await;
    assert_eq!(bench.target.contents(), bench.source.padded());
}

#[tokio::test(start_paused = true)]
async fn a_comparison_has_its_number_once_that_is_noted() {
    let mut bench = Bench::new(SECTORS, 161);
    let last = initial(&mut bench).await;
    let mut work = bench.source.work(CycleKind::Resync, 2, SectorCount(0), Some(last));
    work.digests_wanted = true;
    let mut session = bench.session(&work).await;
    let api = Arc::new(FakeApi::default());
    bench.faults.fail_state_after(0);
    for _ in 0..2 {
        session.digests(&work, &Claim::of(&api, &work)).await.expect_err("it can't be noted");
        assert_eq!(session.ledger().comparison, None);
    }
    // Nor does the word that the target was compared.
    bench.faults.fail_state_after(1);
    session.digests(&work, &Claim::of(&api, &work)).await.expect_err("it can't be noted");
    assert_eq!(session.ledger().compared, None);
    bench.faults.set(u64::MAX, Then::Nothing);
    session.digests(&work, &Claim::of(&api, &work)).await.expect("compared");
    assert_eq!(session.ledger().compared, Some(CycleNo(2)));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_met_once_that_is_noted() {
    let mut bench = Bench::new(SECTORS, 162);
    let plan = bench.source.full();
    let shipped = bench.source.ship(CycleKind::Initial, 1, plan, None).await;
    let mut session = bench.session(&shipped.work).await;
    bench.faults.fail_state_after(0);
    session.apply(&shipped.work, &Claim::unrivalled(&shipped.work)).await.expect_err("it can't be noted");
    assert_eq!((session.ledger().generation, session.ledger().signer.clone()), (Generation(0), None));
}
