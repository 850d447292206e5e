//! Agent, appliance and hydrator as three processes, each of which is looked at.

use crate::bench::Plan;
use crate::measure::{Cost, cpu_seconds, note_command, peak_mib};
use crate::report::Measured;
use anyhow::{Context, Result, bail, ensure};
use sluice_proto::DiskId;
use sluice_proto::cycle::{CycleKind, State};
use sluice_proto::wire::CycleView;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Cycles begin on order only: the schedule's own would take an hour.
pub const NEVER_MS: u64 = 3_600_000;
/// Between two looks. Seldom: whoever asks takes CPU time from what is measured.
const LOOK: Duration = Duration::from_millis(100);

/// A cluster, and the folder of its targets.
#[derive(Debug)]
pub struct Three {
    cluster: Cluster,
    // Deleted when nobody writes to them any more.
    _targets: TempDir,
}

impl Three {
    /// Keys, certificates and configurations for these sources; appliance and hydrator run, the agent does not yet.
    /// Cycles have pauses of `interval_ms`.
    pub fn prepare(plan: &Plan, sources: &[&Path], format: &'static str, interval_ms: u64) -> Result<Self> {
        let targets = tempfile::Builder::new().prefix("targets-").tempdir_in(&plan.folder)?;
        let setup = Setup {
            sources: sources.iter().map(|source| ((*source).to_owned(), "ebpf")).collect(),
            format,
            cache: None,
            environment: Vec::new(),
            targets: Some(targets.path().to_owned()),
        };
        let mut cluster = Cluster::prepare(setup);
        cluster.start_part(Part::Appliance);
        cluster.operator().wait_ready();
        cluster.operator().set_policy(interval_ms, None);
        cluster.start_part(Part::Hydrator);
        Part::ALL.iter().for_each(|part| note_command(&format!("sluice {0} run --config {0}.toml", part.word())));
        Ok(Self { cluster, _targets: targets })
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Leads the agent, which does not run, to the appliance by another address; the appliance's own.
    pub fn lead_agent(&self, by: impl FnOnce(SocketAddr) -> Result<SocketAddr>) -> Result<()> {
        let file = self.cluster.config(Part::Agent);
        let config = std::fs::read_to_string(&file)?;
        let endpoint = config.lines().find_map(|line| line.strip_prefix("endpoint = \"https://"));
        let address = endpoint.context("the agent's way to the appliance")?.trim_end_matches('"');
        let other = by(address.parse()?)?;
        Ok(std::fs::write(&file, config.replace(address, &other.to_string()))?)
    }

    /// Gives the agent, which does not run, one more disk.
    pub fn add_source(&self, source: &Path) -> Result<()> {
        let file = self.cluster.config(Part::Agent);
        let mut config = std::fs::read_to_string(&file)?;
        config.push_str(&format!(
            "\n[[disk]]\nsource = \"{}\"\nname = \"added\"\ntracker = \"ebpf\"\n",
            source.display()
        ));
        Ok(std::fs::write(&file, config)?)
    }

    /// Starts the agent; when that was, in milliseconds since 1970.
    pub fn start_agent(&mut self) -> i64 {
        let now = now_ms();
        self.cluster.start_part(Part::Agent);
        now
    }

    /// Ends the agent in good order.
    pub fn stop_agent(&mut self) -> Result<()> {
        let ended = self.cluster.take(Part::Agent).terminate();
        ensure!(ended.code() == Some(0), "the agent: {}\n{}", ended.status, ended.stderr);
        Ok(())
    }

    /// Waits until so many disks have a cycle behind `after` that ended; these cycles, all of them verified.
    pub fn wait_verified(&mut self, disks: usize, after: u64) -> Result<Vec<(DiskId, CycleView)>> {
        loop {
            // sleep: waits for what other processes do.
            std::thread::sleep(LOOK);
            self.all_run()?;
            let views = self.cluster.operator().disks();
            let reached =
                |cycle: &CycleView| cycle.cycle.0 > after && (cycle.state.is_end() || cycle.cycle.0 > after + 1);
            let there: Vec<_> = views.iter().filter(|view| view.cycle.as_ref().is_some_and(reached)).collect();
            if there.len() < disks {
                continue;
            }
            let mut ended = Vec::new();
            for view in there {
                let cycles = self.cluster.operator().cycles(view.disk);
                let found = cycles.into_iter().rev().find(|cycle| cycle.cycle.0 > after && cycle.state.is_end());
                ended.extend(found.map(|cycle| (view.disk, cycle)));
            }
            if let Some((disk, failed)) = ended.iter().find(|(_, cycle)| cycle.state != State::Verified) {
                bail!("disk {disk}: {failed:?}");
            }
            if ended.len() >= disks {
                return Ok(ended);
            }
        }
    }

    /// True while the first cycle of a disk is under way.
    pub fn initial_runs(&self, disk: DiskId) -> bool {
        let newest = self.cluster.operator().cycles(disk).into_iter().next();
        newest.is_none_or(|cycle| cycle.kind == CycleKind::Initial && !cycle.state.is_end())
    }

    /// Orders a cycle of a disk in step and waits for its verdict: how long that took from the order on, in seconds,
    /// and the cycle.
    pub fn cycle_on_order(&mut self, disk: DiskId) -> Result<(f64, CycleView)> {
        let last = self.newest(disk)?.cycle.0;
        let before = now_ms();
        self.cluster.operator().sync_now(disk);
        loop {
            // sleep: waits for what other processes do.
            std::thread::sleep(Duration::from_millis(20));
            self.all_run()?;
            let newest = self.newest(disk)?;
            if newest.cycle.0 > last && newest.state.is_end() {
                ensure!(newest.state == State::Verified && newest.kind == CycleKind::Delta, "{newest:?}");
                let end = newest.end_ms.context("a cycle that ended has an end")? as i64;
                return Ok(((end - before) as f64 / 1000.0, newest));
            }
        }
    }

    /// Waits until a disk has nothing to do: its initial cycle and the delta right behind it are verified.
    pub fn wait_in_step(&mut self, disks: usize) -> Result<Vec<DiskId>> {
        self.wait_verified(disks, 0)?;
        let ended = self.wait_verified(disks, 1)?;
        Ok(ended.into_iter().map(|(disk, _)| disk).collect())
    }

    /// The newest cycle of a disk.
    pub fn newest(&self, disk: DiskId) -> Result<CycleView> {
        self.cluster.operator().cycles(disk).into_iter().next().context("there is a cycle")
    }

    /// An error unless all that were started still run.
    pub fn all_run(&mut self) -> Result<()> {
        for part in Part::ALL {
            if self.cluster.is_started(part) && !self.cluster.runs(part) {
                bail!("the {} ended by itself:\n{}", part.word(), self.cluster.part(part).tail());
            }
        }
        Ok(())
    }

    /// CPU seconds of each part so far, and its peak of memory in MiB, in the order of [`Part::ALL`].
    pub fn usage(&self) -> [(f64, f64); 3] {
        Part::ALL.map(|part| {
            if !self.cluster.is_started(part) {
                return (0.0, 0.0);
            }
            let process = self.cluster.part(part).id();
            (cpu_seconds(process).unwrap_or(0.0), peak_mib(process).unwrap_or(0.0))
        })
    }

    /// Adds rows of what each part has cost since `before`; the sum, with `wall`.
    pub fn add_usage(&self, measured: &mut Measured, who: &str, wall: f64, before: [(f64, f64); 3]) -> Cost {
        let mut cost = Cost { wall, cpu: 0.0, peak_mib: 0.0 };
        for ((part, (cpu, peak)), (cpu_before, _)) in Part::ALL.into_iter().zip(self.usage()).zip(before) {
            measured.add(&format!("{who}, {}: CPU", part.word()), "s", cpu - cpu_before);
            measured.add(&format!("{who}, {}: peak memory", part.word()), "MiB", peak);
            cost.cpu += cpu - cpu_before;
            cost.peak_mib += peak;
        }
        cost
    }
}

/// When a cycle's verdict was there, in milliseconds since 1970.
pub fn end_ms(cycle: &CycleView) -> Result<i64> {
    Ok(cycle.end_ms.context("a cycle that ended has an end")? as i64)
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
