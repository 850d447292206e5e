//! How old the newest verified data is while much is written, and how much may be written.

use crate::bench::Plan;
use crate::churn::Churn;
use crate::disk::{Disk, LARGE};
use crate::report::{Measured, Side};
use crate::stats::percentile;
use crate::three::{Three, end_ms, now_ms};
use anyhow::{Result, ensure};
use sluice_proto::DiskId;
use sluice_proto::cycle::State;

/// Between two looks at the age, in milliseconds.
const LOOK_MS: usize = 20;
/// The pause between two cycles.
const INTERVAL_MS: u64 = 1000;
/// The age that must not be exceeded, by more than one look in a hundred.
const AGE_MAX: f64 = 5.0;
/// What churn must come to of its rate, or else it was not that churn.
const ACHIEVED_MIN: f64 = 0.97;
/// The search ends where what holds and what does not are this near.
const NEAR: f64 = 1.08;
/// Where the search begins and ends, in bytes a second.
const RATES: (u64, u64) = (25_000_000, 400_000_000);

/// Runs it: the promised churn, once, for its whole time; then the search for the highest.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    // No machine's disk lies on the one that it is replicated to.
    let disk = Disk::in_memory(plan.disk_bytes)?;
    let mut scene = Scene::start(plan, &disk)?;
    measured
        .note(format!("{}; three processes, pauses of 1 s; writes of 256 KiB of random bytes all over it", disk.holds));
    measured
        .note("age: from the beginning of the newest verified cycle, before its swap, to now; looked at every 20 ms");
    let seconds = plan.seconds(300);
    let before = scene.three.usage();
    let told = scene.churn(plan, plan.churn_bytes, seconds)?;
    scene.three.add_usage(measured, "sluice", seconds as f64, before);
    let megabytes = plan.churn_bytes as f64 / 1e6;
    let at = format!("at {megabytes:.0} MB/s for {seconds} s");
    measured.add(&format!("{at}: written"), "MB/s", told.rate / 1e6);
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("most", 1.0)] {
        measured.add(&format!("{at}: age, {name}"), "s", percentile(&told.ages(), part));
    }
    measured.add(&format!("{at}: a cycle lasts, median"), "s", percentile(&told.lasted, 0.5));
    measured.add(&format!("{at}: a cycle lasts, most"), "s", percentile(&told.lasted, 1.0));
    measured.promise("4", &format!("{at}: age, p99"), Side::AtMost, AGE_MAX);
    measured.lines(
        "rpo",
        &format!("Age of the newest verified data {at}, seconds"),
        "s",
        vec![("age", told.over_time.clone())],
        Some(AGE_MAX),
    );
    if plan.search {
        let known = plan.churn_bytes as f64;
        let known = if told.holds(known) { (known, f64::INFINITY) } else { (RATES.0 as f64 / 2.0, known) };
        search(plan, &mut scene, seconds, known, measured)?;
    }
    Ok(())
}

/// From what is known to hold and what is known not to: doubles until it does not hold, halves the distance, and confirms
/// what holds over the whole time.
fn search(plan: &Plan, scene: &mut Scene<'_>, seconds: u64, known: (f64, f64), measured: &mut Measured) -> Result<()> {
    let probe = (seconds / 5).clamp(2, 60);
    let (mut holds, mut fails) = known;
    while fails / holds > NEAR && holds < RATES.1 as f64 {
        let rate = if fails.is_infinite() { holds * 2.0 } else { (holds * fails).sqrt() };
        let told = scene.churn(plan, rate as u64, probe)?;
        measured.note(format!("for {probe} s at {:.0} MB/s: {}", rate / 1e6, told.say()));
        if told.holds(rate) {
            holds = rate
        } else {
            fails = rate
        }
        if fails <= RATES.0 as f64 {
            measured.note(format!("not even {} MB/s hold", RATES.0 / 1_000_000));
            return Ok(());
        }
    }
    // What holds for a minute may be too much in the long run.
    for _ in 0..4 {
        let told = scene.churn(plan, holds as u64, seconds)?;
        measured.note(format!("for {seconds} s at {:.0} MB/s: {}", holds / 1e6, told.say()));
        if told.holds(holds) {
            measured.add(&format!("the highest churn that holds for {seconds} s"), "MB/s", holds / 1e6);
            measured.add("the age at it, p99", "s", percentile(&told.ages(), 0.99));
            return Ok(());
        }
        holds *= 0.92;
    }
    measured.note("what held in probes did not hold in the long run, nor did what is a quarter less");
    Ok(())
}

/// A disk in step.
struct Scene<'a> {
    disk: &'a Disk,
    three: Three,
    id: DiskId,
    seed: u64,
}

/// What came of some churn.
struct Told {
    /// Bytes a second that were written.
    rate: f64,
    /// Seconds since its beginning, and the age then.
    over_time: Vec<(f64, f64)>,
    /// How long the cycles took that ended in it.
    lasted: Vec<f64>,
}

impl Told {
    fn ages(&self) -> Vec<f64> {
        self.over_time.iter().map(|(_, age)| *age).collect()
    }

    fn holds(&self, rate: f64) -> bool {
        self.rate >= rate * ACHIEVED_MIN && percentile(&self.ages(), 0.99) <= AGE_MAX
    }

    fn say(&self) -> String {
        format!("{:.1} MB/s were written, p99 of the age {:.2} s", self.rate / 1e6, percentile(&self.ages(), 0.99))
    }
}

impl<'a> Scene<'a> {
    fn start(plan: &Plan, disk: &'a Disk) -> Result<Self> {
        let mut three = Three::prepare(plan, &[disk.path()], "vhd", INTERVAL_MS)?;
        three.start_agent();
        let id = three.wait_in_step(1)?.remove(0);
        Ok(Self { disk, three, id, seed: 7 })
    }

    /// Writes at a rate for so long; then waits until all of it is verified, so that the next begins in step.
    fn churn(&mut self, plan: &Plan, bytes_per_second: u64, seconds: u64) -> Result<Told> {
        self.seed += 1;
        let (piece, end, seed) = (LARGE, plan.disk_bytes, self.seed);
        let churn = Churn { bytes_per_second, piece, end, places: end / piece as u64, seconds, seed };
        let start = now_ms();
        let rate = churn.write(self.disk.path(), |_| Ok(()))?;
        let end = now_ms();
        let verified = self.verified_until(start, end)?;
        let newest = |now: i64| verified.iter().filter(|(_, told)| *told <= now).map(|(began, _)| *began).max();
        let look = |now: i64| newest(now).map(|began| ((now - start) as f64 / 1e3, (now - began) as f64 / 1e3));
        let over_time: Vec<_> = (start..=end).step_by(LOOK_MS).filter_map(look).collect();
        let within = verified.iter().filter(|(began, told)| *began >= start && *told <= end);
        let lasted: Vec<f64> = within.map(|(began, told)| (told - began) as f64 / 1000.0).collect();
        ensure!(!over_time.is_empty(), "nothing was verified before or while churn ran");
        Ok(Told { rate, over_time, lasted })
    }

    /// Begin and verdict of the newest cycle that was verified at `start` and of all later ones, up to the first that
    /// began after `end`.
    fn verified_until(&mut self, start: i64, end: i64) -> Result<Vec<(i64, i64)>> {
        loop {
            self.three.all_run()?;
            let cycles = self.three.cluster().operator().cycles(self.id);
            let failed = cycles.iter().find(|cycle| cycle.state == State::Failed && cycle.start_ms as i64 >= start);
            ensure!(failed.is_none(), "a cycle failed under churn: {failed:?}");
            let verified = cycles.iter().filter(|cycle| cycle.state == State::Verified);
            let times =
                verified.map(|cycle| Ok((cycle.start_ms as i64, end_ms(cycle)?))).collect::<Result<Vec<_>>>()?;
            if times.iter().any(|(began, _)| *began > end) {
                let before = times.iter().filter(|(_, told)| *told <= start).max().copied();
                return Ok(times.into_iter().filter(|(_, told)| *told > start).chain(before).collect());
            }
            // sleep: waits for what other processes do.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}
