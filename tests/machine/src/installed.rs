//! An agent that is installed as a program file of its own, and upgraded in place.

use sluice_e2e::NEVER_MS;
use sluice_proto::DiskId;
use sluice_test_support::cluster::{Cluster, Part, Setup};
use sluice_test_support::command::run;
use sluice_test_support::devices::text;
use sluice_test_support::program::sluice;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How an agent comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is asked to.
    Asked,
    /// It is killed.
    Killed,
}

/// A cluster's agent, run from a file that is replaced by an upgrade. Killed on drop.
#[derive(Debug)]
pub struct Installed {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Installed {
    /// Starts a cluster around `source` whose agent is installed in `folder`, with cycles only where they are asked for;
    /// waits for the first. The cluster, its agent, the disk, and the number of that cycle.
    pub fn in_step(source: &Path, folder: &Path) -> (Cluster, Self, DiskId, u64) {
        let mut cluster = Cluster::prepare(Setup::of(source));
        cluster.start_part(Part::Appliance);
        cluster.operator().wait_ready();
        cluster.operator().set_policy(NEVER_MS, None);
        cluster.start_part(Part::Hydrator);
        let agent = Self::start(&cluster, folder);
        let id = cluster.operator().only_disk();
        let first = cluster.operator().wait_verified(id, 1).cycle.0;
        (cluster, agent, id, first)
    }

    /// Installs it in `folder` and starts it, with the configuration that `cluster` made for its agent.
    fn start(cluster: &Cluster, folder: &Path) -> Self {
        let program = folder.join("installed-agent");
        // By another process: while this one has it open for writing, a child that another thread starts has so too, and
        // the kernel refuses to run it.
        run("cp", &[text(sluice()), text(&program)]);
        let mut agent = Self {
            program,
            config: cluster.config(Part::Agent),
            log: folder.join("installed-agent.log"),
            process: None,
        };
        agent.resume();
        agent
    }

    /// Ends it.
    pub fn end(&mut self, end: End) {
        let mut process = self.process.take().expect("it runs");
        if end == End::Killed {
            let _ = process.kill();
            let _ = process.wait();
            return;
        }
        run("kill", &["-TERM", &process.id().to_string()]);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = process.try_wait().expect("a child can be asked for") {
                assert_eq!(status.code(), Some(0), "it ends well:\n{}", self.words());
                return;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.words());
            // sleep: a child that ends without being waited for can only be asked again
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it again.
    pub fn resume(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log for the agent");
        let mut command = Command::new(&self.program);
        command.args(["agent", "run", "--config"]).arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null());
        let spawned = command.stderr(log).spawn();
        self.process = Some(spawned.unwrap_or_else(|e| panic!("{}: {e}", self.program.display())));
    }

    /// Puts a file of other bytes in the program's place, as a package manager does: aside, then renamed.
    pub fn replace(&mut self) {
        let new = self.program.with_extension("new");
        run("cp", &[text(&self.program), text(&new)]);
        // What follows an ELF file's last section is not looked at.
        run("sh", &["-c", "printf another >> \"$0\"", text(&new)]);
        run("mv", &["--force", text(&new), text(&self.program)]);
    }

    /// What it has said.
    pub fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the installed agent:\n{}", self.words());
        }
    }
}
