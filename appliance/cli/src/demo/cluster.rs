//! The three processes: their keys, certificates and configurations, as an operator would make them.

use super::stage::Stage;
use crate::outcome::Refusal;
use crate::processes::{Part, Process};
use sluice_appliance::identity::Role;
use sluice_appliance::init::{Certificate, Init, Issued, init, issue};
use sluice_client::{ClientFiles, ClientOptions, HttpsClient, OperatorApi};
use sluice_hydrator::keys;
use sluice_platform::durable::{self, Access};
use sluice_proto::wire::PolicyView;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What the appliance lets in: enough to be watched, and little enough to be noticed.
pub const LIMIT: &str = "400Mbit/s";
/// The pause between two deltas while the show goes on.
const PAUSE_MS: u64 = 2000;
/// And when no further one shall begin by itself.
const NEVER_MS: u64 = 12 * 3_600_000;

/// The three processes and an operator's client.
pub struct Cluster {
    /// In the order in which they are to end.
    processes: Vec<Process>,
    /// Asks the appliance.
    pub operator: HttpsClient,
    address: SocketAddr,
    folder: PathBuf,
}

impl Cluster {
    /// Makes what they need, and starts them.
    pub async fn start(stage: &Stage) -> Result<Self, Refusal> {
        let folder = stage.folder().to_path_buf();
        let now = jiff::Timestamp::now();
        let at = folder.join("appliance");
        let wish = Init {
            dir: at.clone(),
            names: vec!["localhost".into(), "127.0.0.1".into()],
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            cache: Some(folder_url(&folder.join("cache"))?),
            force: false,
        };
        let made = init(&wish, now).map_err(Refusal::of)?;
        let certificate = |role| -> Result<Issued, Refusal> {
            let name = "demo".parse().map_err(Refusal::of)?;
            issue(&at, &Certificate::new(role, name, false), now).map_err(Refusal::of)
        };
        let mut appliance = spawn(Part::Appliance, &made.config, &folder)?;
        let address = listening(&mut appliance)?;
        let endpoint = format!("https://{address}");
        let operator = client(&endpoint, &made.operator.folder)?;
        operator.set_policy(policy(PAUSE_MS)).await.map_err(Refusal::of)?;
        let config = hydrator_config(stage, &endpoint, &certificate(Role::Hydrator)?.folder)?;
        let hydrator = spawn(Part::Hydrator, &config, &folder)?;
        let config = agent_config(stage, &endpoint, &certificate(Role::Agent)?.folder)?;
        let agent = spawn(Part::Agent, &config, &folder)?;
        Ok(Self { processes: vec![agent, hydrator, appliance], operator, address, folder })
    }

    /// Who they are, for people.
    pub fn describe(&self) -> String {
        let each: Vec<String> = self.processes.iter().map(|p| format!("{} {}", p.part, p.id())).collect();
        format!("{}; TLS on {}, at most {LIMIT}", each.join(", "), self.address)
    }

    /// From now on no delta begins by itself.
    pub async fn pause_schedule(&self) -> Result<(), Refusal> {
        self.operator.set_policy(policy(NEVER_MS)).await.map_err(Refusal::of)
    }

    /// A process that has ended is the end of the show.
    pub fn check(&mut self) -> Result<(), Refusal> {
        match self.processes.iter_mut().find_map(|p| Some((p.part, p.ended()?))) {
            Some((part, status)) => Err(Refusal::new(format!("the {part} ended by itself: {status}"))),
            None => Ok(()),
        }
    }

    /// What the agent has logged so far.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }
}

fn policy(pause_ms: u64) -> PolicyView {
    PolicyView {
        min_interval_ms: pause_ms,
        max_interval_ms: pause_ms,
        limit: Some(LIMIT.to_owned()),
        ..PolicyView::default()
    }
}

fn spawn(part: Part, config: &Path, folder: &Path) -> Result<Process, Refusal> {
    let log = folder.join(format!("{part}.log"));
    Process::start(part, config, &log).map_err(|e| Refusal::at(format_args!("the {part} can't be started"), e))
}

/// The address that the appliance says it listens on.
fn listening(appliance: &mut Process) -> Result<SocketAddr, Refusal> {
    let mut line = String::new();
    if let Some(stdout) = appliance.stdout() {
        BufReader::new(stdout).read_line(&mut line).map_err(|e| Refusal::at("the appliance", e))?;
    }
    let address = line.trim().strip_prefix("listening on ").and_then(|text| text.parse().ok());
    address.ok_or_else(|| Refusal::new("the appliance does not listen"))
}

fn client(endpoint: &str, folder: &Path) -> Result<HttpsClient, Refusal> {
    let files = ClientFiles {
        authority: folder.join("ca.pem"),
        certificate: folder.join("operator.pem"),
        key: folder.join("operator-key.pem"),
    };
    HttpsClient::new(endpoint, &files, ClientOptions::default()).map_err(Refusal::of)
}

fn hydrator_config(stage: &Stage, endpoint: &str, certificate: &Path) -> Result<PathBuf, Refusal> {
    let folder = stage.folder().join("hydrator");
    for made in [&folder, &stage.targets()] {
        durable::create_folder(made).map_err(Refusal::of)?;
    }
    keys::create(&folder.join("hydrator.key")).map_err(Refusal::of)?;
    let text = format!(
        "key = \"hydrator.key\"\nspool = \"spool\"\n{}\n[cache]\nurl = {:?}\n[targets]\nfolder = {:?}\nformat = \"vhd\"\n",
        way(endpoint, certificate, "hydrator"),
        folder_url(&stage.folder().join("cache"))?,
        stage.targets()
    );
    write(&folder.join("hydrator.toml"), &text)
}

fn agent_config(stage: &Stage, endpoint: &str, certificate: &Path) -> Result<PathBuf, Refusal> {
    let folder = stage.folder().join("agent");
    durable::create_folder(&folder).map_err(Refusal::of)?;
    let key = keys::load(&stage.folder().join("hydrator/hydrator.key")).map_err(Refusal::of)?;
    let tracker = if stage.why_scan().is_some() { "scan" } else { "ebpf" };
    let text = format!(
        "state = {:?}\nhydrator_key = {:?}\npins = {:?}\n{}\n[[disk]]\nsource = {:?}\nname = \"demo\"\ntracker = \"{tracker}\"\n",
        folder,
        keys::public_text(&key),
        stage.pins(),
        way(endpoint, certificate, "agent"),
        stage.source()
    );
    write(&folder.join("agent.toml"), &text)
}

/// The way to the appliance. The demo's paths have no character that TOML writes otherwise than Rust does.
fn way(endpoint: &str, certificate: &Path, role: &str) -> String {
    let at = |name: &str| certificate.join(name);
    format!(
        "[appliance]\nendpoint = {endpoint:?}\nca = {:?}\ncert = {:?}\nkey = {:?}",
        at("ca.pem"),
        at(&format!("{role}.pem")),
        at(&format!("{role}-key.pem"))
    )
}

fn write(path: &Path, text: &str) -> Result<PathBuf, Refusal> {
    durable::write_file(path, text.as_bytes(), Access::Owner).map_err(Refusal::of)?;
    Ok(path.to_path_buf())
}

fn folder_url(folder: &Path) -> Result<String, Refusal> {
    let url = url::Url::from_file_path(folder);
    url.map(String::from).map_err(|()| Refusal::new(format!("{} can't be written as a URL", folder.display())))
}
