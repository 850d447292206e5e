//! Somebody who has the appliance was a source himself, with keys of his own, before the true one was there.

use super::{SECTORS, apply, initial, reason, scattered, verified};
use crate::testkit::Bench;
use sluice_proto::cycle::{CycleKind, FailReason};
use sluice_proto::keys::{DataKey, SigningKey};
use sluice_proto::{Generation, SectorBitmap};

#[tokio::test(start_paused = true)]
async fn the_true_source_is_refused_once_an_impostor_was_believed() {
    let mut bench = Bench::new(SECTORS, 170);
    let last = initial(&mut bench).await;
    let impostors = bench.target.contents();

    // The appliance hands out the true one's first copy, or says that it goes on from what is verified.
    let signer = std::mem::replace(&mut bench.source.signer, SigningKey::from_seed(&[99; 32]));
    let key = std::mem::replace(&mut bench.source.key, DataKey::new([98; 32]));
    let plan = bench.source.scribble(&scattered());
    for generation in [1, 2] {
        bench.source.generation = Generation(generation);
        let whole = bench.source.full();
        for (kind, cycle, plan, previous) in [
            (CycleKind::Initial, 1, whole.clone(), None),
            (CycleKind::Initial, 2, whole.clone(), None),
            (CycleKind::Resync, 2, whole, Some(last)),
            (CycleKind::Delta, 2, plan.clone(), Some(last)),
            (CycleKind::Delta, 2, SectorBitmap::new(), Some(last)),
        ] {
            let shipped = bench.source.ship(kind, cycle, plan, previous).await;
            let (why, detail) = reason(&apply(&bench, &shipped).await);
            assert_eq!(why, FailReason::WrongKey, "{kind:?}: {detail}");
            assert!(detail.contains("another agent"), "{kind:?}: {detail}");
            assert_eq!(bench.target.contents(), impostors);
        }
    }

    // It is the first who counts, whoever he is.
    (bench.source.signer, bench.source.key, bench.source.generation) = (signer, key, Generation(1));
    let delta = bench.source.ship(CycleKind::Delta, 2, plan, Some(last)).await;
    verified(&bench, &delta).await;
}
