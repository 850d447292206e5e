use super::*;
use crate::journal::{Noted, Plan};
use crate::testing::{self, Dice, Fake, Fault, MemDisk, MemRecords};
use sluice_proto::cycle::{CycleKind, TrackerKind};
use sluice_proto::segment::{BlockDecoder, FrameData, Segment, segment_name};
use sluice_proto::stream::block_count;
use sluice_proto::wire::{NextRequest, OpenRequest};
use sluice_proto::{CycleNo, Extent};
use std::collections::BTreeMap;
use std::time::Duration;

/// A disk whose first cycle is planned, ordered and opened.
struct Rig {
    disk: MemDisk,
    api: Arc<Fake>,
    journal: Journal,
}

const CYCLE: CycleNo = CycleNo(1);

async fn rig(disk: MemDisk, planned: SectorBitmap) -> Rig {
    let (api, _) = Fake::new(&disk, &[CycleKind::Delta]);
    let mut journal = testing::journal(&MemRecords::default(), &disk).unwrap();
    let sectors = planned.count();
    journal.begin(Plan::new(CYCLE, CycleKind::Delta, TrackerKind::Ebpf, None), planned).unwrap();
    api.next(testing::DISK, NextRequest::default()).await.unwrap();
    let (kind, tracker) = (CycleKind::Delta, TrackerKind::Ebpf);
    let request = OpenRequest { generation: testing::GENERATION, kind, tracker, sectors, doubt: None, after: None };
    api.open(testing::DISK, CYCLE, request).await.unwrap();
    api.inner.lock().calls = 0;
    Rig { disk, api, journal }
}

impl Rig {
    async fn ship(&mut self, seed: u64) -> Result<(), CaptureError> {
        let capture = testing::capture(&self.disk, &self.api, Suite::Aes256Gcm, seed);
        capture.ship(&mut self.journal, false, |_| ()).await
    }

    /// Opens what the journal says is stored; returns what is where on the disk. Every block must be there once, and the
    /// chaining values must come to the digest of the stream.
    fn shipped(&self) -> (SectorBitmap, Vec<u8>) {
        let (_, planned) = self.journal.plan().unwrap();
        let (mut image, mut sectors, mut next) = (vec![0xaa; self.disk.data().len()], SectorBitmap::new(), 0);
        let mut decoder = BlockDecoder::new(planned.count());
        for stored in self.journal.stored().iter() {
            assert_eq!(stored.first, next, "no gap and no overlap");
            let (_, bytes) = &self.api.inner.lock().segments[&segment_name(BlockNo(stored.first), &stored.salt.0)];
            assert_eq!((Digest::of(bytes), bytes.len() as u64), (stored.hash, stored.len));
            let segment = Segment::parse(bytes).unwrap();
            let key = segment.key(&testing::key());
            for position in 0..segment.blocks() as usize {
                let write = |extent: Extent, data: FrameData<'_>| -> Result<(), FormatError> {
                    let range = extent.start.offset() as usize..extent.end().offset() as usize;
                    match data {
                        FrameData::Bytes(bytes) => image[range].copy_from_slice(bytes),
                        FrameData::Zeros => image[range].fill(0),
                    }
                    sectors.set(extent);
                    Ok(())
                };
                decoder.decode(&segment, &key, position, self.disk.sectors(), write).unwrap();
            }
            next += segment.blocks();
        }
        assert_eq!(next, block_count(planned.count()));
        (sectors, image)
    }

    /// What was shipped is the plan's sectors as the disk holds them, and nothing else.
    fn check(&mut self) {
        let planned = self.journal.plan().unwrap().1.clone();
        let (sectors, image) = self.shipped();
        assert_eq!(sectors, planned);
        let data = self.disk.data();
        let range = |run: Extent| run.start.offset() as usize..run.end().offset() as usize;
        assert!(planned.runs().all(|run| image[range(run)] == data[range(run)]), "as the disk holds them");
        let stream: Vec<u8> = planned.runs().flat_map(|run| data[range(run)].to_vec()).collect();
        assert_eq!(self.journal.digest().unwrap().finish(), Digest::of(&stream));
    }
}

/// Some sectors here and there, and a longer run.
fn scattered(disk: &MemDisk, seed: u64) -> SectorBitmap {
    let (mut dice, sectors) = (Dice::new(seed), disk.sectors().0);
    let mut planned = SectorBitmap::from_extents([Extent::new(sectors / 2, sectors / 2)]);
    for _ in 0..300 {
        planned.set(Extent::new(dice.below(sectors / 2), 1 + dice.below(9)));
    }
    planned.truncate(disk.sectors());
    planned
}

#[tokio::test(start_paused = true)]
async fn ships_the_plan_as_the_disk_holds_it() {
    for size in [100, 1 << 20, (1 << 20) + 1, 9 << 20, (9 << 20) + 700] {
        let disk = MemDisk::filled(size, size);
        for planned in [SectorBitmap::full(disk.sectors()), scattered(&disk, 2), SectorBitmap::new()] {
            let mut rig = rig(disk.clone(), planned).await;
            rig.ship(1).await.unwrap();
            rig.check();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn goes_on_behind_a_cut_at_any_call() {
    for call in 1..=5 {
        for fault in [Fault::LostRequest, Fault::LostAnswer, Fault::Busy] {
            let disk = MemDisk::filled(18 << 20, 4);
            let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
            // Five in a row, so that the tries of one segment are used up; what else is under way arrives.
            let failing = if call == 5 { 1..=20 } else { call..=call };
            rig.api.inner.lock().faults = failing.map(|n| (n, fault)).collect();
            for seed in 1.. {
                rig.disk.take_reads();
                let stored = rig.journal.stored().blocks();
                let result = rig.ship(seed).await;
                let read: u64 = rig.disk.take_reads().iter().map(|e| e.len.0).sum();
                assert!(read <= disk.sectors().0 - stored * 2048, "nothing that is stored is read again");
                match result {
                    Ok(()) => break,
                    Err(error) => assert!(matches!(error, CaptureError::Api(_)) && seed < 9, "{error}"),
                }
            }
            rig.check();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_one_upload_fails_the_others_are_kept() {
    let disk = MemDisk::filled(20 << 20, 4);
    let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
    // The first segment's tries come first in each round of four; it never gets through.
    let first = |n: u64| (n, Fault::LostRequest);
    rig.api.inner.lock().faults = BTreeMap::from([first(1), first(5), first(6), first(7), first(8)]);
    let result = rig.ship(1).await;
    if result.is_err() {
        assert!(rig.journal.stored().len() >= 3, "{:?}", rig.journal.stored());
        rig.ship(2).await.unwrap();
    }
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn fills_gaps_in_the_middle_and_reads_nothing_else() {
    let disk = MemDisk::filled(20 << 20, 6);
    let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
    rig.ship(1).await.unwrap();
    let firsts: Vec<u64> = rig.journal.stored().iter().map(|s| s.first).collect();
    assert!(firsts.len() >= 4, "{firsts:?}");
    // The appliance lost two that do not touch, the last among them.
    let gone = [firsts[1], firsts[firsts.len() - 1]];
    let blocks: u64 = rig.journal.stored().iter().filter(|s| gone.contains(&s.first)).map(|s| s.blocks).sum();
    rig.journal.keep_stored(|s| !gone.contains(&s.first));
    rig.disk.take_reads();
    rig.ship(2).await.unwrap();
    assert_eq!(rig.disk.take_reads().iter().map(|e| e.len.0).sum::<u64>(), blocks * 2048);
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn a_sector_that_can_t_be_read_leaves_what_is_stored() {
    let disk = MemDisk::filled(16 << 20, 6);
    let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
    disk.set_bad(Some(Extent::new(15 * 2048, 1)));
    disk.set_read_delay(Duration::from_millis(100));
    let error = rig.ship(1).await.unwrap_err();
    assert!(matches!(&error, CaptureError::Source(e) if e.detail.contains("sectors 30720..32768")), "{error}");
    assert!(!rig.journal.stored().is_empty());
    disk.set_bad(None);
    rig.ship(2).await.unwrap();
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn uploads_go_on_while_the_source_is_slow() {
    let disk = MemDisk::filled(30 << 20, 8);
    let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
    // A block a second: the first segment is full behind the fourth, and is stored while the fifth is read.
    disk.set_read_delay(Duration::from_secs(1));
    let mut capture = testing::capture(&disk, &rig.api, Suite::Aes256Gcm, 1);
    capture.options.buffers = 1;
    let cut = tokio::time::timeout(Duration::from_millis(4900), capture.ship(&mut rig.journal, false, |_| ())).await;
    assert!(cut.is_err());
    assert_eq!((rig.api.inner.lock().puts, rig.journal.stored().len()), (1, 1), "stored and noted");
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_while_uploads_are_slow_and_no_further_than_allowed() {
    let disk = MemDisk::filled(64 << 20, 8);
    let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
    rig.api.inner.lock().put_delay = Duration::from_secs(3600);
    let capture = testing::capture(&disk, &rig.api, Suite::Aes256Gcm, 1);
    let cut = tokio::time::timeout(Duration::from_secs(60), capture.ship(&mut rig.journal, false, |_| ())).await;
    assert!(cut.is_err());
    let read: u64 = disk.take_reads().iter().map(|e| e.bytes().0).sum();
    // Four segments under way, one that waits, what lies encoded, and what is being read. The hole compresses to nothing.
    let most = (4 + 1) * (4 << 20) + (6 + 1 + 6) * (1 << 20);
    assert!((16 << 20..=most).contains(&read), "{read} bytes");
    assert_eq!(capture.pool.available(), capture.options.buffers, "a wait given up gives the buffers back");
}

#[tokio::test(start_paused = true)]
async fn zeros_are_cut_by_blocks_and_other_segments_by_bytes() {
    let disk = MemDisk::new(40 << 20);
    let mut rig = rig(disk.clone(), SectorBitmap::full(disk.sectors())).await;
    rig.ship(1).await.unwrap();
    assert_eq!(rig.journal.stored().len(), 1, "40 blocks of zeros are one segment");
    rig.check();
}

#[tokio::test(start_paused = true)]
async fn tells_the_digests_of_whole_grains() {
    let disk = MemDisk::filled((3 << 20) + 700, 2);
    let planned = SectorBitmap::from_extents([Extent::new(0, 128), Extent::new(512, 256), Extent::new(6016, 130)]);
    let planned = planned.round_to_grains(disk.sectors());
    let mut rig = rig(disk.clone(), planned).await;
    let capture = testing::capture(&disk, &rig.api, Suite::Aes256Gcm, 1);
    let mut grains = Vec::new();
    capture.ship(&mut rig.journal, true, |block| grains.extend_from_slice(&block.grains)).await.unwrap();
    assert_eq!(grains.iter().map(|(grain, _)| *grain).collect::<Vec<_>>(), [0, 4, 5, 47, 48]);
    let data = disk.data();
    for (grain, digest) in grains {
        let from = grain as usize * 65536;
        let bytes = &data[from..(from + 65536).min(data.len())];
        assert_eq!(digest, sluice_proto::digests::grain_digest(bytes), "grain {grain}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_counted_in_bytes_of_the_plan() {
    // Two blocks and a sector.
    let planned = SectorBitmap::from_extents([Extent::new(0, 4097)]);
    let mut journal = rig(MemDisk::filled(4 << 20, 1), planned.clone()).await.journal;
    for (first, bytes) in [(0, 1 << 20), (2, (1 << 20) + 512)] {
        let cvs = vec![sluice_proto::stream::BlockCv([0; 32])];
        let noted = Noted { cycle: CYCLE, first, len: 1, hash: Digest([0; 32]), salt: Digest([0; 32]), cvs };
        journal.note_stored(noted).unwrap();
        assert_eq!(stored_bytes(&planned, journal.stored()), bytes);
    }
}
