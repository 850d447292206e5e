//! An agent that is down while its disk is written to as fast as the machine can. An hour's writes come in less time: what
//! matters to the tracker is how many there are, and `SLUICE_DOWN_WRITES` says how many.

use sluice_e2e::{Format, assert_equal};
use sluice_machine::{End, Installed, Written, assert_delta};
use sluice_test_support::command::{is_root, run};
use sluice_test_support::devices::{Loop, text};
use std::time::Instant;

/// Writes while it is down, unless the environment says otherwise.
const WRITES: u64 = 500_000;
/// They fall into this part of the disk: 32 MiB from 64 MiB on.
const REGION: (u64, u64) = (64 << 20, 32 << 20);

#[test]
fn an_agent_is_down_under_load() {
    if !is_root("an_agent_is_down_under_load") {
        return;
    }
    let writes = std::env::var("SLUICE_DOWN_WRITES").map_or(WRITES, |text| text.parse().expect("a number of writes"));
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Loop::new(folder.path(), "disk", 128 << 20, 512);
    let (cluster, mut agent, id, mut last) = Installed::in_step(disk.path(), folder.path());
    let operator = cluster.operator();
    let written = Written::to(disk.path());
    for (end, count) in [(End::Asked, writes), (End::Killed, writes / 4)] {
        agent.end(end);
        let (before, start) = (written.writes(), Instant::now());
        write(&disk, count);
        let took = start.elapsed().as_secs_f64();
        let done = written.writes() - before;
        eprintln!("{done} writes in {took:.1} s while the agent was down ({end:?})");
        assert!(done >= count, "direct writes are not merged: {done}");
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
fn write(disk: &Loop, count: u64) {
    let region = [format!("--offset={}", REGION.0), format!("--size={}", REGION.1)];
    // Each of two jobs does its share of the writes.
    let jobs = [format!("--io_size={}", count.div_ceil(2) * 512), format!("--filename={}", text(disk.path()))];
    let how = ["--name=sectors", "--rw=randwrite", "--bs=512", "--direct=1", "--ioengine=libaio", "--iodepth=32"];
    let more = ["--numjobs=2", "--norandommap", "--output-format=terse"];
    let arguments: Vec<&str> =
        how.into_iter().chain(more).chain(region.iter().chain(&jobs).map(String::as_str)).collect();
    run("fio", &arguments);
}
