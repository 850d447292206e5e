//! How much of a long fat link is used.

use crate::bench::Plan;
use crate::disk::Disk;
use crate::proxy::{Link, Proxy};
use crate::report::{Measured, Side};
use crate::three::{NEVER_MS, Three, end_ms, now_ms};
use anyhow::{Context, Result, ensure};
use sluice_proto::DiskId;
use std::time::Duration;

/// There and back.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// 200 Mbit/s.
const BYTES_PER_SECOND: f64 = 25e6;
/// Seconds at the beginning that are not counted: registering, the first read, the first segments.
const WARM_UP: f64 = 3.0;
/// Between two looks: short enough that a copy of half a second is seen, too.
const LOOK: Duration = Duration::from_millis(50);
/// So many looks make a second of the plot.
const LOOKS_A_SECOND: usize = 20;

/// Runs it: a disk of random bytes, as large as it takes to keep the link busy for the plan's seconds.
pub fn run(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let seconds = plan.seconds(45);
    let bytes = (BYTES_PER_SECOND * seconds as f64) as u64 & !0xf_ffff;
    let disk = Disk::with_noise(plan, bytes)?;
    let megabits = BYTES_PER_SECOND * 8.0 / 1e6;
    measured.note(format!("{}, three processes; {megabits:.0} Mbit/s and 100 ms round trip", disk.holds));
    measured.note("used: sealed bytes that the appliance has stored, over time and limit, from the third second on");
    let mut drawn = None;
    for _ in 0..plan.rounds(5) {
        disk.warm()?;
        let near = once(plan, &disk, None, measured)?;
        disk.warm()?;
        let far =
            once(plan, &disk, Some(Link { round_trip: ROUND_TRIP, bytes_per_second: BYTES_PER_SECOND }), measured)?;
        measured.add("without the proxy: sent", "MB/s", near.rate / 1e6);
        measured.add("through the proxy: sent", "MB/s", far.rate / 1e6);
        measured.add("part of the link that is used", "x", far.rate / BYTES_PER_SECOND);
        measured.add("the same with what TLS and HTTP add", "x", far.on_the_wire / BYTES_PER_SECOND);
        measured.add("the whole cycle's bytes over its time and the limit", "x", far.whole / BYTES_PER_SECOND);
        drawn = Some(far.over_time);
    }
    measured.promise("5", "part of the link that is used", Side::AtLeast, 0.9);
    let lines = vec![("sent", drawn.unwrap_or_default())];
    measured.lines("link", "Through 200 Mbit/s and 100 ms, MB/s", "MB/s", lines, Some(BYTES_PER_SECOND / 1e6));
    Ok(())
}

struct Run {
    /// Sealed bytes a second, in steady state.
    rate: f64,
    /// Bytes a second that left the link.
    on_the_wire: f64,
    /// Sealed bytes a second, from the cycle's begin to its verdict.
    whole: f64,
    /// MB/s that the link passed, by second.
    over_time: Vec<(f64, f64)>,
}

/// What has come so far.
#[derive(Clone, Copy)]
struct Look {
    seconds: f64,
    sealed: u64,
    passed: u64,
}

fn once(plan: &Plan, disk: &Disk, link: Option<Link>, measured: &mut Measured) -> Result<Run> {
    let mut three = Three::prepare(plan, &[disk.path()], "vhd", NEVER_MS)?;
    let mut proxy = None;
    if let Some(link) = link {
        three.lead_agent(|address| {
            let started = Proxy::start(address, link)?;
            let address = started.address();
            proxy = Some(started);
            Ok(address)
        })?;
    }
    let before = three.usage();
    let start = three.start_agent();
    let id = three.cluster().operator().only_disk();
    let looks = watch(&mut three, id, start, proxy.as_ref())?;
    let (_, cycle) = three.wait_verified(1, 0)?.remove(0);
    let whole = (end_ms(&cycle)? - cycle.start_ms as i64) as f64 / 1000.0;
    let who = if link.is_some() { "sluice, through the proxy" } else { "sluice, without the proxy" };
    three.add_usage(measured, who, whole, before);
    let total = cycle.bytes_sent.0;
    // Up to where all was sent; what comes after that is the target's time, not the link's.
    let busy: Vec<Look> = looks.into_iter().filter(|look| look.sealed < total).collect();
    let last = *busy.last().context("bytes were sent")?;
    let first = busy.iter().find(|look| look.seconds >= WARM_UP.min(last.seconds / 2.0)).copied().unwrap_or(last);
    let over = |of: fn(&Look) -> u64| (of(&last) - of(&first)) as f64 / (last.seconds - first.seconds).max(1e-3);
    let step = |pair: &[Look]| {
        let passed = (pair[1].passed - pair[0].passed) as f64 / 1e6;
        (pair[1].seconds, passed / (pair[1].seconds - pair[0].seconds).max(1e-3))
    };
    let by_second: Vec<Look> = busy.iter().copied().step_by(LOOKS_A_SECOND).collect();
    Ok(Run {
        rate: over(|look| look.sealed),
        on_the_wire: over(|look| look.passed),
        whole: total as f64 / whole,
        over_time: by_second.windows(2).map(step).collect(),
    })
}

/// Looks again and again until all is sent.
fn watch(three: &mut Three, disk: DiskId, start: i64, proxy: Option<&Proxy>) -> Result<Vec<Look>> {
    let mut looks = Vec::new();
    loop {
        // sleep: how often is looked is part of the measurement.
        std::thread::sleep(LOOK);
        three.all_run()?;
        let cycles = three.cluster().operator().cycles(disk);
        let first = cycles.last();
        looks.push(Look {
            seconds: (now_ms() - start) as f64 / 1000.0,
            sealed: first.map_or(0, |cycle| cycle.bytes_sent.0),
            passed: proxy.map_or(0, Proxy::passed),
        });
        if first.is_some_and(|cycle| cycle.state.is_end()) {
            ensure!(looks.len() > 2, "the cycle ended before it was looked at");
            return Ok(looks);
        }
    }
}
