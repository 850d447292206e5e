//! Random requests, many at once, against a plain vector.

use super::*;
use proptest::prelude::*;

/// The disk's size: small, so that requests meet often.
const BYTES: u64 = 256 << 10;

#[derive(Debug, Clone)]
enum Step {
    Write {
        offset: u64,
        len: usize,
        fill: u8,
    },
    Zero {
        offset: u64,
        len: u64,
        free: bool,
    },
    Read {
        offset: u64,
        len: usize,
    },
    /// Pages that lie `stride` pages apart.
    WriteParts {
        first: u64,
        stride: u64,
        count: u64,
        fill: u8,
    },
    ReadParts {
        first: u64,
        stride: u64,
        count: u64,
    },
    Sync,
}

const PAGE: u64 = 4096;

/// Where such pages are, as far as they are on the disk: the place and the bytes of the buffer.
fn pages(first: u64, stride: u64, count: u64) -> Vec<Part> {
    let places = (0..count).map(|i| (first + i * stride) * PAGE).take_while(|offset| offset + PAGE <= BYTES);
    places.zip(0..).map(|(offset, i)| Part { offset, range: i * PAGE as usize..(i + 1) * PAGE as usize }).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Mostly whole sectors, as the program uses it; some at any byte.
    let place = prop_oneof![
        4 => (0..BYTES / 512, 1..64u64).prop_map(|(at, n)| (at * 512, n * 512)),
        1 => (0..BYTES, 1..9_000u64),
    ];
    let place = place.prop_map(|(offset, len)| (offset, len.min(BYTES - offset)));
    let step = (place, 0..13u8, 1..255u8).prop_map(|((offset, len), what, fill)| match what {
        0..5 => Step::Write { offset, len: len as usize, fill },
        5 => Step::Zero { offset, len, free: true },
        6 => Step::Zero { offset, len, free: false },
        7 => Step::Sync,
        8 | 9 => Step::WriteParts { first: offset / PAGE, stride: len / PAGE % 4 + 1, count: len / 512, fill },
        10 => Step::ReadParts { first: offset / PAGE, stride: len / PAGE % 4 + 1, count: len / 512 },
        _ => Step::Read { offset, len: len as usize },
    });
    // Batches: those in one are under way at the same time.
    prop::collection::vec(step, 1..40)
}

/// Sends all writes of a batch at once without waiting in between; the order in which they were asked for decides.
async fn apply(disk: &DirectFile, batch: &[Step], model: &mut [u8]) {
    let mut under_way: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for step in batch {
        match *step {
            Step::Write { offset, len, fill } => {
                model[offset as usize..offset as usize + len].fill(fill);
                under_way.push(Box::pin(async move {
                    let buf = AlignedBuf::from_slice(&vec![fill; len]);
                    disk.write_at(offset, buf, 0..len).await.1.expect("writes");
                }));
            }
            Step::Zero { offset, len, free } => {
                model[offset as usize..(offset + len) as usize].fill(0);
                under_way.push(Box::pin(async move {
                    let result = match free {
                        true => disk.punch_hole(offset, len).await,
                        false => disk.zero_range(offset, len).await,
                    };
                    result.expect("zeroes");
                }));
            }
            Step::Sync => under_way.push(Box::pin(async { disk.sync_data().await.expect("flushes") })),
            Step::WriteParts { first, stride, count, fill } => {
                let parts = pages(first, stride, count);
                for part in &parts {
                    model[part.offset as usize..(part.offset + PAGE) as usize].fill(fill);
                }
                under_way.push(Box::pin(async move {
                    let buf = AlignedBuf::from_slice(&vec![fill; parts.len() * PAGE as usize]);
                    disk.write_parts(parts, buf).await.1.expect("writes");
                }));
            }
            Step::Read { .. } | Step::ReadParts { .. } => {}
        }
    }
    // Polled once in their order, so that they are sent in their order; then all are waited for.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    under_way.retain_mut(|future| future.as_mut().poll(&mut context).is_pending());
    for future in under_way {
        future.await;
    }
    for step in batch {
        if let Step::Read { offset, len } = *step {
            let (buf, result) = disk.read_at(offset, AlignedBuf::new(len), len).await;
            result.expect("reads");
            assert!(buf[..] == model[offset as usize..offset as usize + len], "{offset}+{len}");
        }
        if let Step::ReadParts { first, stride, count } = *step {
            let parts = pages(first, stride, count);
            let (buf, result) = disk.read_parts(parts.clone(), AlignedBuf::zeroed(parts.len() * PAGE as usize)).await;
            result.expect("reads");
            for Part { offset, range } in parts {
                assert!(buf[range] == model[offset as usize..(offset + PAGE) as usize], "{offset}");
            }
        }
    }
}

#[test]
fn any_requests_leave_what_a_plain_vector_would_hold() {
    let disks = disks(BYTES);
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() };
    proptest!(config, |(batch in steps())| {
        for disk in &disks {
            // Goes on from what the last batch left, as another reader sees it.
            let mut model = std::fs::read(disk.path()).expect("read");
            prop_assert_eq!(model.len() as u64, BYTES);
            blocking::wait(apply(disk, &batch, &mut model));
            prop_assert!(read(disk, 0, BYTES as usize) == model, "{:?}", disk);
        }
    });
}

#[test]
fn writes_to_one_unit_from_many_tasks_lose_nothing() {
    for disk in disks(64 << 10) {
        // Each writes its own 512 bytes of the same few units, all at once, many more than there are slots.
        let mut futures: Vec<_> = (0..128u64)
            .map(|i| {
                let disk: &DirectFile = &disk;
                Box::pin(async move {
                    let buf = AlignedBuf::from_slice(&[i as u8 | 1; 512]);
                    disk.write_at(i * 512, buf, 0..512).await.1.expect("writes");
                })
            })
            .collect();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        futures.retain_mut(|future| future.as_mut().poll(&mut context).is_pending());
        for future in futures {
            blocking::wait(future);
        }
        let expected: Vec<u8> = (0..128u64).flat_map(|i| [i as u8 | 1; 512]).collect();
        assert!(read(&disk, 0, 64 << 10) == expected, "{disk:?}");
    }
}
