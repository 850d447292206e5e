//! What a round plays on: three processes, two disks, a proxy on each way, a small cache and small targets.

use crate::counts::Counts;
use crate::plan::{FAKETIME, Plan, Store};
use crate::proxy::Proxy;
use crate::sources::{GROWTH_BYTES, Source};
use nix::sys::signal::Signal;
use sluice_crash::Noise;
use sluice_test_support::Azurite;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::devices::text;
use sluice_test_support::mounts::SmallDisk;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Room in the cache: for several cycles.
const CACHE_BYTES: u64 = 192 << 20;
/// Room for the targets: for both disks in any format and size.
const TARGETS_BYTES: u64 = (640 << 20) + 2 * GROWTH_BYTES;
/// A process that was just started checks its store before it listens for signals, for as long as that takes.
const LISTENS_AFTER: Duration = Duration::from_secs(15);
/// Lines of a process's log that a failure shows, its predecessors' included.
const TAIL_LINES: usize = 60;

/// Everything that faults are done to.
#[derive(Debug)]
pub struct Scene {
    // Dropped in this order: processes before what they use.
    pub cluster: Cluster,
    /// Those of [`LINKS`](crate::plan::LINKS) that there are: where the cache is a folder nothing leads to it.
    pub links: Vec<Proxy>,
    pub azurite: Option<Azurite>,
    /// Where the cache is a folder.
    pub cache: Option<SmallDisk>,
    pub targets: SmallDisk,
    pub sources: [Source; 2],
    /// Whose clock can be stepped, and the file that says by how much.
    pub clock: Option<(Part, PathBuf)>,
    pub counts: Counts,
    /// The keys of the objects in which a bit was flipped.
    pub flipped: Vec<String>,
    /// What processes printed that are gone.
    past: [Vec<String>; 3],
    /// When each was last started.
    started: [Instant; 3],
    _folder: TempDir,
}

impl Scene {
    /// Builds it, with the writers at work and the processes running.
    pub fn build(plan: &Plan, noise: &mut Noise) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let sources = [Source::ext4(folder.path()), Source::xfs(folder.path(), noise)];
        let tracked = [0, 1].map(|i: usize| (sources[i].disk.path().to_owned(), plan.trackers[i]));
        let targets = SmallDisk::new(TARGETS_BYTES);
        let (mut cache, mut azurite, mut store_link) = (None, None, None);
        let mut setup = Setup {
            sources: tracked.to_vec(),
            format: plan.format.word(),
            cache: None,
            environment: Vec::new(),
            targets: Some(targets.path().to_owned()),
        };
        match plan.store {
            Store::Folder => {
                let small = cache.insert(SmallDisk::new(CACHE_BYTES));
                setup.cache = Some(format!("file://{}", text(small.path())));
            }
            Store::Azurite => {
                let service = azurite.insert(Azurite::start());
                store_link = Some(lead_store_through_proxy(service));
                setup.cache = Some(service.url());
                setup.environment = service.environment().to_vec();
            }
        }
        let mut cluster = Cluster::prepare(setup);
        let links = [Part::Agent, Part::Hydrator].map(|part| lead_through_proxy(&cluster, part));
        let links = links.into_iter().chain(store_link).collect();
        let clock = plan.clock.map(|part| {
            let file = folder.path().join("clock");
            fs::write(&file, "+0").expect("a clock's file");
            cluster.set_environment(part, clock_environment(&file));
            (part, file)
        });
        let past = [const { Vec::new() }; 3];
        let mut scene = Self {
            cluster,
            links,
            azurite,
            cache,
            targets,
            sources,
            clock,
            counts: Counts::default(),
            flipped: Vec::new(),
            past,
            started: [Instant::now(); 3],
            _folder: folder,
        };
        scene.start(Part::Appliance);
        scene.cluster.operator().wait_ready();
        scene.cluster.operator().set_policy(1_000, None);
        scene.start(Part::Hydrator);
        scene.start(Part::Agent);
        scene
    }

    /// Starts a part that is down.
    pub fn start(&mut self, part: Part) {
        if !self.cluster.is_started(part) {
            self.cluster.start_part(part);
            self.started[part as usize] = Instant::now();
        }
    }

    /// Kills a part that is up; `false` if none is.
    pub fn kill(&mut self, part: Part) -> bool {
        if !self.cluster.is_started(part) {
            return false;
        }
        let mut process = self.cluster.take(part);
        let id = process.id();
        process.kill();
        self.counts.kill(part);
        let lines = process.end().stderr;
        self.remember(part, &lines);
        forget_clock(id);
        true
    }

    /// Ends a part in good order; `false` if it is down. Panics if it does not end well.
    pub fn terminate(&mut self, part: Part) -> bool {
        if !self.cluster.is_started(part) {
            return false;
        }
        // Where it is stopped, it could not.
        self.cluster.part(part).signal("CONT");
        let ended = self.cluster.take(part).terminate();
        self.remember(part, &ended.stderr);
        // Before it listens for signals, this one ends it as it would any program.
        let young = self.started[part as usize].elapsed() < LISTENS_AFTER;
        let well = ended.code() == Some(0) || young && ended.status.signal() == Some(Signal::SIGTERM as i32);
        assert!(well, "{part:?} did not end well: {}", ended.status);
        true
    }

    /// Sends a signal to a part that is up; `false` if none is.
    pub fn signal(&mut self, part: Part, name: &str) -> bool {
        let up = self.cluster.is_started(part);
        if up {
            self.cluster.part(part).signal(name);
        }
        up
    }

    /// Panics if a process ended by itself, or the round is to be cut short.
    pub fn watch(&mut self) {
        assert!(!crate::INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        for part in Part::ALL {
            let fine = !self.cluster.is_started(part) || self.cluster.runs(part);
            assert!(fine, "{part:?} ended by itself:\n{}", self.cluster.part(part).tail());
        }
    }

    /// Notes what a process printed. Panics if it had panicked.
    fn remember(&mut self, part: Part, lines: &str) {
        self.counts.add("errors in logs", lines.lines().filter(|line| line.contains("ERROR")).count() as u64);
        self.past[part as usize].extend(lines.lines().map(str::to_owned));
        assert!(!lines.contains("panicked at"), "{part:?} panicked");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for part in Part::ALL {
                let lines = &self.past[part as usize];
                eprintln!("--- what {part:?} printed before it was last started");
                lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).for_each(|line| eprintln!("{line}"));
            }
        }
        for part in Part::ALL {
            if !self.cluster.is_started(part) {
                continue;
            }
            // It prints its own tail when it is dropped.
            let mut process = self.cluster.take(part);
            process.kill();
            forget_clock(process.id());
        }
    }
}

/// Removes what libfaketime keeps for a process, and removes itself only at a good end.
fn forget_clock(process: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        drop(fs::remove_file(format!("/dev/shm/{name}{process}")));
    }
}

/// Puts a proxy between a part and the appliance. The appliance's certificate names 127.0.0.1, whatever the port.
fn lead_through_proxy(cluster: &Cluster, part: Part) -> Proxy {
    let file = cluster.config(part);
    let config = fs::read_to_string(&file).expect("a configuration");
    let line = config.lines().find(|line| line.starts_with("endpoint = ")).expect("a way to the appliance");
    let address = line.trim_start_matches("endpoint = \"https://").trim_end_matches('"');
    let proxy = Proxy::start(address.parse().expect("an address and a port"));
    fs::write(&file, config.replace(address, &proxy.address().to_string())).expect("a configuration");
    proxy
}

/// Puts a proxy between the blob service and all who are told of it from now on.
fn lead_store_through_proxy(service: &mut Azurite) -> Proxy {
    let address = service.endpoint.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let proxy = Proxy::start(address.parse().expect("an address and a port"));
    service.endpoint = service.endpoint.replace(address, &proxy.address().to_string());
    proxy
}

/// Makes a program see the clock that `file` says, through libfaketime. Monotonic clocks are left alone, as a step of the
/// clock leaves them.
fn clock_environment(file: &std::path::Path) -> Vec<(&'static str, String)> {
    let variables = [
        ("LD_PRELOAD", FAKETIME),
        ("FAKETIME_TIMESTAMP_FILE", text(file)),
        ("FAKETIME_CACHE_DURATION", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    variables.map(|(name, value)| (name, value.to_owned())).to_vec()
}
