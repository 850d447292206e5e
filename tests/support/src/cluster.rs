//! Agent, appliance and hydrator as three processes that speak over TLS, each with a certificate of its own, and the eyes
//! and hands of an operator.

mod config;
mod operator;

pub use operator::Operator;

use crate::program::Sluice;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `sluice agent`.
    Agent,
    /// `sluice appliance`.
    Appliance,
    /// `sluice hydrator`.
    Hydrator,
}

impl Part {
    /// All three, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Appliance, Self::Hydrator, Self::Agent];

    /// The subcommand that it is.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Appliance => "appliance",
            Self::Hydrator => "hydrator",
        }
    }
}

/// What a cluster is to do.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The sources, with the tracker of each (`ebpf` or `scan`).
    pub sources: Vec<(PathBuf, &'static str)>,
    /// The format of the targets, as `[targets]` takes it.
    pub format: &'static str,
    /// The cache store's URL; a folder of the cluster's own if none.
    pub cache: Option<String>,
    /// What else the processes find in their environment, such as the store's credentials.
    pub environment: Vec<(&'static str, String)>,
    /// Where the targets go; a folder of the cluster's own if none.
    pub targets: Option<PathBuf>,
}

impl Setup {
    /// One source, tracked by eBPF, to a fixed VHD, over a folder.
    pub fn of(source: &Path) -> Self {
        Self {
            sources: vec![(source.to_owned(), "ebpf")],
            format: "vhd",
            cache: None,
            environment: Vec::new(),
            targets: None,
        }
    }
}

/// Three running processes. Killed on drop; what they pinned and wrote goes too.
#[derive(Debug)]
pub struct Cluster {
    processes: [Option<Sluice>; 3],
    operator: Operator,
    setup: Setup,
    /// What one part alone finds in its environment.
    environments: [Vec<(&'static str, String)>; 3],
    pins: PathBuf,
    folder: TempDir,
}

impl Cluster {
    /// Makes keys, certificates and configurations, and starts all three.
    pub fn start(setup: Setup) -> Self {
        let mut cluster = Self::prepare(setup);
        Part::ALL.into_iter().for_each(|part| cluster.start_part(part));
        cluster
    }

    /// Makes keys, certificates and configurations, and starts nothing yet.
    pub fn prepare(setup: Setup) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let name = folder.path().file_name().expect("a folder's name").to_string_lossy().replace('.', "");
        let pins = Path::new("/sys/fs/bpf/sluice").join(format!("test-{name}"));
        let files = config::write(folder.path(), &pins, &setup);
        let operator = Operator::new(&files.endpoint, &files.operator);
        Self { processes: [None, None, None], operator, setup, environments: Default::default(), pins, folder }
    }

    /// What a part finds in its environment besides what all three do, from its next start on.
    pub fn set_environment(&mut self, part: Part, environment: Vec<(&'static str, String)>) {
        self.environments[part as usize] = environment;
    }

    /// Starts one that does not run.
    pub fn start_part(&mut self, part: Part) {
        let config = self.config(part);
        let arguments = [part.word(), "run", "--config", crate::devices::text(&config)];
        let environment = [&self.setup.environment[..], &self.environments[part as usize]].concat();
        let started = Sluice::start(&arguments, &environment);
        assert!(self.processes[part as usize].replace(started).is_none(), "{part:?} runs already");
    }

    /// One that runs.
    pub fn part(&self, part: Part) -> &Sluice {
        self.processes[part as usize].as_ref().unwrap_or_else(|| panic!("{part:?} does not run"))
    }

    /// True from a part's start until it is taken or killed.
    pub fn is_started(&self, part: Part) -> bool {
        self.processes[part as usize].is_some()
    }

    /// True while a part runs: it was started, and has not ended by itself.
    pub fn runs(&mut self, part: Part) -> bool {
        self.processes[part as usize].as_mut().is_some_and(Sluice::runs)
    }

    /// Takes one that runs out of the cluster, to wait for its end.
    pub fn take(&mut self, part: Part) -> Sluice {
        self.processes[part as usize].take().unwrap_or_else(|| panic!("{part:?} does not run"))
    }

    /// Kills one as a power cut would.
    pub fn kill(&mut self, part: Part) {
        self.take(part).kill();
    }

    /// The operator's view of it.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The configuration file of a part.
    pub fn config(&self, part: Part) -> PathBuf {
        self.folder.path().join(part.word()).join(format!("{}.toml", part.word()))
    }

    /// The folder that the cluster's own files lie in: `agent`, `appliance`, `hydrator`, `cache`, `targets`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the cache store, where it is one.
    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// The targets' folder.
    pub fn targets(&self) -> PathBuf {
        self.setup.targets.clone().unwrap_or_else(|| self.folder.path().join("targets"))
    }

    /// The target of a disk by its id.
    pub fn target(&self, disk: sluice_proto::DiskId) -> PathBuf {
        let disk = disk.to_string();
        let entries = std::fs::read_dir(self.targets()).expect("the targets' folder");
        let names = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(&disk));
        let found = entries.flatten().map(|entry| entry.path()).find(|path| path.is_file() && names(path));
        found.unwrap_or_else(|| panic!("disk {disk} has no target in {}", self.targets().display()))
    }

    /// Registers a newer generation of a disk at the appliance, with the rights and the signature of the cluster's agent,
    /// as another copy of that agent would.
    pub fn register_newer_generation(&self, disk: sluice_proto::DiskId, generation: sluice_proto::Generation) {
        let agent = self.folder.path().join("agent");
        let files = config::files(&self.folder.path().join("appliance"), "agent", "test");
        let text = std::fs::read_to_string(agent.join("agent.toml")).expect("the agent's configuration");
        let key = text.lines().find_map(|line| line.strip_prefix("hydrator_key = ")).expect("the hydrator's key");
        let hydrator = sluice_proto::keys::public_key_from_text(key.trim_matches('"')).expect("a key");
        let seed = std::fs::read(agent.join("state/signing.key")).expect("the agent's signing key");
        let signer = sluice_proto::keys::SigningKey::from_seed(&seed.try_into().expect("32 bytes"));
        let data_key = sluice_proto::keys::DataKey::new([7; 32]);
        let envelope = sluice_proto::keys::KeyEnvelope::wrap(&data_key, disk, generation, &hydrator, &signer);
        self.operator.register(&files, disk, generation, envelope.expect("an envelope"));
    }

    /// Ends all three in good order; panics where one does not end well.
    pub fn end(mut self) {
        for part in [Part::Agent, Part::Hydrator, Part::Appliance] {
            let ended = self.take(part).terminate();
            assert_eq!(ended.code(), Some(0), "{part:?}: {}\n{}", ended.status, ended.stderr);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The processes first: an agent that still ran would pin again.
        self.processes = [None, None, None];
        drop(std::fs::remove_dir_all(&self.pins));
    }
}
