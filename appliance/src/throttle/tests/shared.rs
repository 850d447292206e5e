//! The throttle for tasks, under a clock that tokio winds.

use super::super::{Limits, Throttle};
use jiff::tz::TimeZone;
use sluice_proto::DiskId;
use sluice_proto::env::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Wall-clock time that goes with tokio's, from Wednesday 2026-07-01 07:59:50 UTC.
struct TestClock(Instant);

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        1_782_892_790_000 + self.0.elapsed().as_millis() as u64
    }
}

fn throttle(usual: &str, windows: &[(&str, &str)]) -> Throttle {
    let limits = Limits::parse(Some(usual), windows.iter().copied(), TimeZone::UTC).unwrap();
    Throttle::new(limits, Arc::new(TestClock(Instant::now())))
}

const A: DiskId = DiskId([1; 16]);
const B: DiskId = DiskId([2; 16]);

#[tokio::test(start_paused = true)]
async fn bytes_pass_at_the_rate() {
    let throttle = throttle("8Mbit/s", &[]);
    let start = Instant::now();
    for _ in 0..100 {
        throttle.acquire(A, 100_000).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!((9.8..10.1).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn unlimited_and_nothing_never_wait() {
    let throttle = throttle("unlimited", &[]);
    let start = Instant::now();
    throttle.acquire(A, u64::MAX).await;
    throttle.acquire(B, 1 << 40).await;
    throttle.set_limits(Limits::parse(Some("0"), [], TimeZone::UTC).unwrap());
    throttle.acquire(A, 0).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_window_takes_hold_while_they_wait() {
    // Ten seconds until the window begins: 10 MB before it, then 1 MB each ten seconds.
    let throttle = throttle("8Mbit/s", &[("Mon-Fri 08:00-18:00", "800kbit/s")]);
    let start = Instant::now();
    throttle.acquire(A, 11_000_000).await;
    let seconds = start.elapsed().as_secs_f64();
    assert!((19.0..21.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_feel_new_limits_at_once() {
    let throttle = throttle("8kbit/s", &[]);
    let start = Instant::now();
    let waiting = tokio::spawn({
        let throttle = throttle.clone();
        async move { throttle.acquire(A, 100_000_000).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    throttle.set_limits(Limits::default());
    waiting.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn eight_tasks_of_one_disk_get_no_more_than_one_of_another() {
    let throttle = throttle("800Mbit/s", &[]);
    let piece = throttle.piece_bytes();
    assert_eq!(piece, 1_000_000);
    let taken = Arc::new([std::sync::atomic::AtomicU64::new(0), std::sync::atomic::AtomicU64::new(0)]);
    let mut tasks = tokio::task::JoinSet::new();
    for (i, disk, bytes) in (0..8).map(|_| (0, A, piece)).chain([(1, B, piece)]) {
        let (throttle, taken) = (throttle.clone(), Arc::clone(&taken));
        tasks.spawn(async move {
            loop {
                throttle.acquire(disk, bytes).await;
                taken[i].fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    tasks.shutdown().await;
    let taken = [0, 1].map(|i| taken[i].load(std::sync::atomic::Ordering::Relaxed));
    let ratio = taken[0] as f64 / taken[1] as f64;
    assert!((0.97..1.03).contains(&ratio), "{taken:?}");
    assert!((1_970_000_000..=2_010_000_000).contains(&taken.iter().sum::<u64>()), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_holds_nobody_up() {
    let throttle = throttle("8kbit/s", &[]);
    let gave_up = tokio::time::timeout(Duration::from_secs(1), throttle.acquire(A, 1 << 40)).await;
    assert!(gave_up.is_err());
    let start = Instant::now();
    throttle.acquire(A, 1_000).await;
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
}
