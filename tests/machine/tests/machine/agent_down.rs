//! An agent that is down while its disk is written to. An hour's writes come in less time, as fast as the machine can:
//! what matters to the tracker is how many there are, and `SLUICE_DOWN_WRITES` says how many. `SLUICE_DOWN_MINUTES` keeps
//! the agent down for so many minutes instead, and the disk is written to at a steady rate meanwhile: that shows what time
//! itself does to what the kernel holds, and to appliance and hydrator, which wait for that long.

use sluice_e2e::{Format, assert_equal};
use sluice_machine::{End, Installed, Written, assert_delta};
use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};
use std::time::Instant;

/// Writes while it is down, unless the environment says otherwise.
const WRITES: u64 = 500_000;
/// They fall into this part of the disk: 32 MiB from 64 MiB on.
const REGION: (u64, u64) = (64 << 20, 32 << 20);
/// fio's processes, each of which does its share.
const JOBS: u64 = 2;
/// Writes a second of all of them, where the load is to last: every sector of the region anew within a minute, from which
/// two processors hardly get warm.
const STEADY_IOPS: u64 = 1_500;

/// How long the load goes on while the agent is down.
#[derive(Debug, Clone, Copy)]
enum Down {
    /// For so many writes, as fast as the machine can.
    Writes(u64),
    /// For so many seconds, at [`STEADY_IOPS`].
    Seconds(u64),
}

impl Down {
    fn asked_for() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        match number("SLUICE_DOWN_MINUTES") {
            Some(minutes) => Self::Seconds(60 * minutes),
            None => Self::Writes(number("SLUICE_DOWN_WRITES").unwrap_or(WRITES)),
        }
    }

    fn quarter(self) -> Self {
        match self {
            Self::Writes(count) => Self::Writes(count / 4),
            Self::Seconds(seconds) => Self::Seconds(seconds / 4),
        }
    }

    /// What each of fio's processes is told.
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Writes(count) => vec![format!("--io_size={}", count.div_ceil(JOBS) * 512)],
            Self::Seconds(seconds) => vec![
                "--time_based".to_owned(),
                format!("--runtime={seconds}"),
                format!("--rate_iops={}", STEADY_IOPS / JOBS),
            ],
        }
    }

    /// Writes that there are then at least; a rate is a limit, and promises none in particular.
    fn writes_min(self) -> u64 {
        match self {
            Self::Writes(count) => count,
            Self::Seconds(_) => 1,
        }
    }
}

#[test]
fn an_agent_is_down_under_load() {
    if !is_root("an_agent_is_down_under_load") {
        return;
    }
    let down = Down::asked_for();
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 128 << 20, 512);
    let (cluster, mut agent, id, mut last) = Installed::in_step(disk.path(), folder.path());
    let operator = cluster.operator();
    let written = Written::to(disk.path());
    for (end, down) in [(End::Asked, down), (End::Killed, down.quarter())] {
        agent.end(end);
        eprintln!("the agent is down ({end:?}): {down:?}");
        let (before, start) = (written.writes(), Instant::now());
        write(&disk, down);
        let took = start.elapsed().as_secs_f64();
        let done = written.writes() - before;
        eprintln!("{done} writes in {took:.1} s while the agent was down ({end:?})");
        assert!(done >= down.writes_min(), "direct writes are not merged: {done}");
        agent.resume();
        operator.sync_now(id);
        let next = operator.wait_verified(id, last);
        // Written sector by sector many times over, and marked once each.
        assert_delta(&next, REGION.1 / 512);
        last = next.cycle.0;
        assert_equal(disk.path(), &cluster.target(id), Format::Vhd);
    }
}

/// Direct writes of one sector at random places of the region.
fn write(disk: &Loop, down: Down) {
    let place = [
        format!("--offset={}", REGION.0),
        format!("--size={}", REGION.1),
        format!("--filename={}", text(disk.path())),
        format!("--numjobs={JOBS}"),
    ];
    let how = ["--name=sectors", "--rw=randwrite", "--bs=512", "--direct=1", "--ioengine=libaio", "--iodepth=32"];
    let more = ["--norandommap", "--output-format=terse"];
    let load = down.arguments();
    let arguments: Vec<&str> =
        how.into_iter().chain(more).chain(place.iter().chain(&load).map(String::as_str)).collect();
    run("fio", &arguments);
}
