//! Follows the cycles as an operator would, through the appliance's API.

use super::cluster::{Cluster, LIMIT};
use crate::outcome::Refusal;
use crate::progress::{Bar, say};
use crate::report::CycleReport;
use crate::units;
use sluice_appliance::throttle::Rate;
use sluice_client::OperatorApi;
use sluice_platform::system::SystemClock;
use sluice_proto::cycle::{CycleKind, State};
use sluice_proto::env::Clock;
use sluice_proto::wire::{CycleView, DiskView};
use sluice_proto::{CycleNo, DiskId, SECTOR_BYTES};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often is looked.
const TICK: Duration = Duration::from_millis(150);
/// The longest that nothing may happen.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long the agent may take to log a cycle that the appliance knows to have ended.
const LOG_PATIENCE: Duration = Duration::from_secs(10);
/// Cycles that are asked for at once.
const CYCLES: u32 = 1000;

/// What has been seen so far.
pub struct Watch<'a> {
    cluster: &'a mut Cluster,
    rounds: u64,
    disk: Option<DiskId>,
    ended: BTreeMap<CycleNo, CycleView>,
    bar: Option<Bar>,
    /// The last sign of life, and when it was given.
    last: (u64, Instant),
}

impl<'a> Watch<'a> {
    /// Nothing seen yet.
    pub fn new(cluster: &'a mut Cluster, rounds: u64) -> Self {
        Self { cluster, rounds, disk: None, ended: BTreeMap::new(), bar: None, last: (0, Instant::now()) }
    }

    /// Watches until all cycles but the final one are verified.
    pub async fn until_rest(&mut self) -> Result<(), Refusal> {
        let before_last = self.rounds - 1;
        let mut paused = false;
        self.until(async |watch, newest| {
            if !paused && newest.is_some_and(|cycle| cycle.cycle.0 >= before_last) {
                watch.cluster.pause_schedule().await?;
                paused = true;
            }
            Ok(watch.verified() >= before_last)
        })
        .await
    }

    /// Orders the final cycle, watches it, and reports on all of them.
    pub async fn finish(mut self) -> Result<Vec<CycleReport>, Refusal> {
        if let Some(disk) = self.disk {
            self.cluster.operator.order_final(disk, true).await.map_err(Refusal::of)?;
        }
        self.until(async |watch, _| {
            Ok(watch.ended.values().any(|c| c.kind == CycleKind::Final && c.state == State::Verified))
        })
        .await?;
        let end = Instant::now() + LOG_PATIENCE;
        let read = loop {
            let read = bytes_read(&self.cluster.agent_log());
            if self.ended.keys().all(|cycle| read.contains_key(&cycle.0)) || Instant::now() >= end {
                break read;
            }
            tokio::time::sleep(TICK).await;
        };
        let report = |(cycle, view): (&CycleNo, &CycleView)| {
            CycleReport::new(view, read.get(&cycle.0).copied().unwrap_or_default())
        };
        Ok(self.ended.iter().map(report).collect())
    }

    fn verified(&self) -> u64 {
        self.ended.values().filter(|c| c.state == State::Verified).count() as u64
    }

    /// Looks again and again until `done`.
    async fn until(
        &mut self,
        mut done: impl AsyncFnMut(&mut Self, Option<CycleView>) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.cluster.check()?;
            let disks = self.cluster.operator.disks().await.map_err(Refusal::of)?;
            let newest = match disks.first() {
                Some(disk) => self.look(disk).await?,
                None => None,
            };
            if done(self, newest).await? {
                self.bar = None;
                return Ok(());
            }
            if self.last.1.elapsed() > PATIENCE {
                let text = format!("nothing has happened for {} s", PATIENCE.as_secs());
                return Err(Refusal::new(text));
            }
        }
    }

    async fn look(&mut self, disk: &DiskView) -> Result<Option<CycleView>, Refusal> {
        self.disk = Some(disk.disk);
        let Some(newest) = &disk.cycle else { return Ok(None) };
        self.alive(newest);
        let last_ended = if newest.state.is_end() { newest.cycle.0 } else { newest.cycle.0.saturating_sub(1) };
        if self.ended.last_key_value().map_or(0, |(cycle, _)| cycle.0) < last_ended {
            let cycles = self.cluster.operator.cycles(disk.disk, CYCLES).await.map_err(Refusal::of)?;
            for view in cycles.into_iter().rev().filter(|view| view.state.is_end()) {
                if let Entry::Vacant(place) = self.ended.entry(view.cycle) {
                    say(line(&view));
                    place.insert(view);
                }
            }
        }
        self.draw(newest);
        Ok(Some(newest.clone()))
    }

    fn alive(&mut self, newest: &CycleView) {
        let sign = newest.bytes_sent.0 + newest.cycle.0 + newest.state as u64;
        if sign != self.last.0 {
            self.last = (sign, Instant::now());
        }
    }

    fn draw(&mut self, newest: &CycleView) {
        if newest.state.is_end() {
            self.bar = None;
            return;
        }
        let bar = self.bar.get_or_insert_with(|| Bar::new("cycle"));
        let (what, done) = match newest.state {
            State::Planned | State::Capturing => ("plans", 0),
            State::Shipping => ("ships", newest.sectors_stored.0),
            _ => ("is written and read back", newest.sectors_stored.0),
        };
        bar.restart(&format!("cycle {} ({})", newest.cycle, newest.kind));
        bar.set(done * SECTOR_BYTES, newest.sectors.0 * SECTOR_BYTES);
        bar.note(format!("{what}, {} sent{}", units::bytes(newest.bytes_sent.0), link(newest)));
    }
}

/// Says where the link is what the others wait for.
fn link(cycle: &CycleView) -> &'static str {
    let limit = LIMIT.parse::<Rate>().map_or(u64::MAX, |rate| rate.bits() / 8);
    let elapsed_ms = SystemClock.unix_ms().saturating_sub(cycle.start_ms).max(1);
    let rate = cycle.bytes_sent.0.saturating_mul(1000) / elapsed_ms;
    let busy = cycle.state == State::Shipping && rate >= limit / 10 * 8;
    if busy { " (waits for the link)" } else { "" }
}

fn line(view: &CycleView) -> String {
    let report = CycleReport::new(view, 0);
    let how = match &report.error {
        None => "verified".to_owned(),
        Some(error) => format!("FAILED: {error}"),
    };
    format!(
        "cycle {} ({}): {} sectors, {} sent in {:.2} s: {how}",
        view.cycle,
        view.kind,
        view.sectors,
        units::bytes(view.bytes_sent.0),
        report.seconds
    )
}

/// From the agent's log: it writes a line with `cycle=` and `bytes_read=` for each cycle that has ended.
fn bytes_read(log: &str) -> BTreeMap<u64, u64> {
    let field = |line: &str, name: &str| -> Option<u64> {
        let from = line.find(name)? + name.len();
        let digits: String = line[from..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    log.lines().filter_map(|line| Some((field(line, " cycle=")?, field(line, " bytes_read=")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_log_tells_what_was_read() {
        let log =
            "INFO x: cycle verified disk=ab cycle=2 kind=delta bytes_read=4096 bytes_sent=9\nWARN other cycle=3\n";
        assert_eq!(bytes_read(log), BTreeMap::from([(2, 4096)]));
    }
}
