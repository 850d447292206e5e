//! The running cycle on the screen.

use super::parts::Parts;
use crate::bottleneck::{self, Bottleneck, Sample};
use crate::progress::Bar;
use sluice_appliance::throttle::Limit;
use sluice_hydrator::progress::{DiskProgress, Phase};
use sluice_proto::CycleNo;
use sluice_proto::cycle::CycleKind;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// Bytes that may lie between reading and storing: the block buffers and the segments on their way.
const WINDOW: u64 = 24 << 20;

/// What is known of the running cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub cycle: CycleNo,
    /// Its kind, once it is planned.
    pub kind: Option<CycleKind>,
    /// Its manifest is stored.
    pub committed: bool,
}

/// The bar of one disk.
pub struct Screen {
    bar: Option<Bar>,
    limit: Option<u64>,
    plain: bool,
    /// Bytes sent, and when that was noted.
    sent: (u64, Instant),
    rate: u64,
}

impl Screen {
    /// Nothing on it yet. `limit` is what the command line says; `plain` that nothing is compressed.
    pub fn new(limit: Option<&str>, plain: bool) -> Self {
        let bytes = limit.and_then(|text| text.parse().ok()).and_then(|limit| match limit {
            Limit::Rate(rate) => Some(rate.bits() / 8),
            Limit::Unlimited => None,
        });
        Self { bar: None, limit: bytes, plain, sent: (0, Instant::now()), rate: 0 }
    }

    /// Brings it up to date.
    pub fn draw(&mut self, parts: &Parts, running: Option<Running>) {
        let Some(running) = running else {
            self.bar = None;
            return;
        };
        let sample = self.sample(parts, running);
        let (phase, done, whole) = phase(parts, running);
        let stage = match running.committed {
            true => Some(Bottleneck::TargetWrite),
            false => bottleneck::name(&sample),
        };
        let note = stage.map_or(String::new(), |stage| format!("({})", self.word(stage)));
        let bar = self.bar.get_or_insert_with(|| Bar::new("cycle"));
        bar.restart(&format!("cycle {} {phase}", running.cycle));
        bar.set(done, whole);
        bar.note(note);
    }

    /// Where nothing is compressed, what waits before the store waits for the store.
    fn word(&self, stage: Bottleneck) -> &'static str {
        if self.plain && stage == Bottleneck::Compress { "state folder" } else { stage.name() }
    }

    fn sample(&mut self, parts: &Parts, running: Running) -> Sample {
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let sent = count(&parts.counts.bytes_sent);
        let since = self.sent.1.elapsed();
        if since.as_millis() >= 1000 || sent < self.sent.0 {
            self.rate = (sent.saturating_sub(self.sent.0) as f64 / since.as_secs_f64()) as u64;
            self.sent = (sent, Instant::now());
        }
        let hydrator = hydrator(parts).filter(|p| p.cycle == running.cycle && p.phase == Phase::Writing);
        Sample {
            read: count(&parts.counts.bytes_read),
            stored: count(&parts.counts.bytes_stored),
            written: hydrator.map(|p| p.done.0),
            sent_rate: self.rate,
            limit: self.limit,
            window: WINDOW,
        }
    }
}

fn hydrator(parts: &Parts) -> Option<DiskProgress> {
    parts.progress.watch().borrow().get(&parts.disk).copied()
}

/// What goes on, how many bytes of it are done, and how many there are.
fn phase(parts: &Parts, running: Running) -> (&'static str, u64, u64) {
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let disk = parts.size.0;
    if let Some(at) = hydrator(parts).filter(|p| p.cycle == running.cycle) {
        match at.phase {
            Phase::Comparing => return ("reads target", at.done.0, at.total.0),
            Phase::Checking if running.committed => return ("checks", at.done.0, at.total.0),
            Phase::Writing if running.committed => return ("writes", at.done.0, at.total.0),
            Phase::WholeDisk => return ("reads target", at.done.0, at.total.0),
            _ => {}
        }
    }
    let (planned, compared) = (count(&parts.counts.bytes_planned), count(&parts.counts.bytes_compared));
    match (planned, compared) {
        (0, 1..) => ("compares", compared, disk),
        (0, 0) => ("plans", 0, disk),
        _ => ("copies", count(&parts.counts.bytes_stored), planned),
    }
}
