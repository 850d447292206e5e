//! Disks whose data key is wrapped for another hydrator.

use super::*;
use sluice_proto::keys::HydratorKey;
use sluice_proto::{ByteCount, SectorBitmap};

#[tokio::test(start_paused = true)]
async fn a_disk_of_another_hydrator_is_left_to_it_for_a_while() {
    let folder = tempfile::tempdir().expect("a folder");
    let targets = local(place(folder.path().join("target"), Format::Raw));
    let mut source = Source::new(SIZE, 90, Arc::new(MemoryStore::new()));
    let shipped = source.ship(CycleKind::Initial, 1, SectorBitmap::full(ByteCount(SIZE).sectors_ceil()), None).await;
    let api: Arc<FakeApi> = Arc::default();
    let mine = environment(&source, targets.clone());
    let mut hydrator = Hydrator::new(mine.clone(), api.clone());
    hydrator.hand_out(vec![shipped.work.clone()]);
    assert_eq!(hydrator.disks.len(), 1);

    let other = Environment { key: Arc::new(HydratorKey::generate().expect("a pair")), ..mine };
    let mut hydrator = Hydrator::new(other, api);
    for _ in 0..2 {
        hydrator.hand_out(vec![shipped.work.clone()]);
        assert!(hydrator.disks.is_empty(), "claimed before the one that it is for can come");
        tokio::time::advance(LEFT_TO_OTHERS / 2).await;
    }
    // Somebody else had claimed it, and it is shown again: it has all the time again.
    hydrator.hand_out(Vec::new());
    hydrator.hand_out(vec![shipped.work.clone()]);
    assert!(hydrator.disks.is_empty());
    tokio::time::advance(LEFT_TO_OTHERS).await;
    hydrator.hand_out(vec![shipped.work]);
    assert_eq!(hydrator.disks.len(), 1, "nobody says what is wrong with it");
}
