//! Agent, appliance and hydrator, put together in one process.

use super::Args;
use super::prepare::Prepared;
use super::turnstile::{Event, Turnstile};
use crate::outcome::Refusal;
use crate::progress;
use sluice_agent::Workers;
use sluice_agent::capture::{CaptureOptions, Counts};
use sluice_agent::disk::DiskError;
use sluice_agent::protect::{Protected, Protection};
use sluice_agent::service::signing_key;
use sluice_agent::tracker::ebpf;
use sluice_appliance::identity::PeerName;
use sluice_appliance::repository::SqliteRepository;
use sluice_appliance::service::{LocalAgent, LocalHydrator, LocalOperator, Ports, Service, Settings};
use sluice_appliance::throttle::{Limits, Throttle};
use sluice_cache_store::{CacheStore, StoreOptions, WindowStore};
use sluice_client::OperatorApi;
use sluice_hydrator::targets::LocalTargets;
use sluice_hydrator::{Environment, Hydrator, keys, progress::Progress};
use sluice_platform::durable;
use sluice_platform::lock::StateLock;
use sluice_platform::system::{OsEntropy, SystemClock};
use sluice_proto::cycle::TrackerKind;
use sluice_proto::header::Suite;
use sluice_proto::keys::HydratorKey;
use sluice_proto::wire::PolicyView;
use sluice_proto::{ByteCount, DiskId};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Everything that runs.
pub struct Parts {
    /// The disk.
    pub disk: DiskId,
    /// Its size.
    pub size: ByteCount,
    /// The tracker that was chosen.
    pub tracker: TrackerKind,
    /// What the agent counts.
    pub counts: Arc<Counts>,
    /// How far the hydrator has come.
    pub progress: Progress,
    /// Asks the appliance.
    pub operator: LocalOperator,
    /// Lets cycles begin.
    pub turnstile: Arc<Turnstile>,
    /// What happens.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// The agent.
    pub agent: JoinHandle<Result<(), DiskError>>,
    hydrator: JoinHandle<()>,
    stop: watch::Sender<bool>,
    service: Service,
    repository: SqliteRepository,
    window: Option<Arc<WindowStore>>,
    _locks: (StateLock, StateLock),
}

/// Puts it together and sets it going.
pub async fn assemble(args: &Args, prepared: Prepared, policy: PolicyView) -> Result<Parts, Refusal> {
    let state = &prepared.state;
    let (store, window) = open_store(args, state).await?;
    let plain = window.is_some();
    let repository = SqliteRepository::open(&state.join("appliance.db")).await.map_err(Refusal::of)?;
    let service = start_service(&repository, store.clone(), plain).await?;
    let operator = LocalOperator::new(service.clone(), name()?);
    operator.set_policy(policy).await.map_err(Refusal::of)?;
    let key = hydrator_key(&state.join("hydrator.key"))?;
    let (stop, stopped) = watch::channel(false);
    let permits = if args.follow { u64::MAX } else { 1 };
    let (turnstile, events) = Turnstile::new(LocalAgent::new(service.clone(), name()?), permits);
    let protected = protect(args, &prepared, key.public(), plain, turnstile.clone(), stopped.clone())?;
    let Protected { agent, disk, size, tracker, remarks, counts, lock } = protected;
    remarks.iter().for_each(progress::say);
    turnstile.watch_counts(counts.clone());
    let (environment, progress) = environment(&prepared, store, key, plain)?;
    let hydrator = Hydrator::new(environment, Arc::new(LocalHydrator::new(service.clone(), name()?)));
    Ok(Parts {
        disk,
        size,
        tracker,
        counts,
        progress,
        operator,
        turnstile,
        events,
        agent: tokio::spawn(agent.run()),
        hydrator: tokio::spawn(hydrator.run(stopped)),
        stop,
        service,
        repository,
        window,
        _locks: (prepared.lock, lock),
    })
}

impl Parts {
    /// Ends everything. What is under way is left to be taken up again.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        let patience = std::time::Duration::from_secs(1);
        if !self.agent.is_finished() && tokio::time::timeout(patience, &mut self.agent).await.is_err() {
            self.agent.abort();
        }
        if tokio::time::timeout(patience, &mut self.hydrator).await.is_err() {
            self.hydrator.abort();
        }
        // What can't be deleted now is deleted at the next start.
        drop(tokio::time::timeout(patience * 10, self.service.tidied()).await);
        if let Some(window) = &self.window
            && let Err(error) = window.settle().await
        {
            progress::say(format!("what was on its way is shipped again by the next run: {error}"));
        }
        self.repository.close().await;
    }
}

/// The only name that anybody has here.
fn name() -> Result<PeerName, Refusal> {
    "local".parse().map_err(Refusal::of)
}

/// Memory for what waits between agent and hydrator where no cache store was asked for: some batches of the hydrator's, one
/// that arrives, one that is written and one that is read back.
const WINDOW_BYTES: u64 = 192 << 20;

/// The cache store; and the window before it where what is in it never leaves this process.
async fn open_store(args: &Args, state: &Path) -> Result<(Arc<dyn CacheStore>, Option<Arc<WindowStore>>), Refusal> {
    let url = match &args.cache {
        Some(url) => url.clone(),
        None => folder_url(&state.join("cache"))?,
    };
    let store = sluice_cache_store::open(&url, &StoreOptions::default()).map_err(|e| Refusal::at("--cache", e))?;
    store.check().await.map_err(|e| Refusal::at("the cache store", e))?;
    if args.cache.is_some() {
        return Ok((store, None));
    }
    let window = Arc::new(WindowStore::new(store, WINDOW_BYTES));
    Ok((window.clone(), Some(window)))
}

fn folder_url(folder: &Path) -> Result<String, Refusal> {
    let whole = std::path::absolute(folder).map_err(|e| Refusal::at(folder.display(), e))?;
    let url = url::Url::from_file_path(&whole);
    url.map(String::from).map_err(|()| Refusal::new(format!("{} can't be written as a URL", whole.display())))
}

async fn start_service(
    repository: &SqliteRepository,
    store: Arc<dyn CacheStore>,
    plain: bool,
) -> Result<Service, Refusal> {
    let clock = Arc::new(SystemClock);
    let throttle = Throttle::new(Limits::default(), clock.clone());
    let ports = Ports { repository: Arc::new(repository.clone()), store, clock, throttle };
    Service::start(ports, Settings { allow_plain: plain, ..Settings::default() }).await.map_err(Refusal::of)
}

fn hydrator_key(path: &Path) -> Result<HydratorKey, Refusal> {
    match path.exists() {
        true => keys::load(path),
        false => keys::create(path),
    }
    .map_err(Refusal::of)
}

fn protect(
    args: &Args,
    prepared: &Prepared,
    hydrator: &[u8],
    plain: bool,
    api: Arc<Turnstile>,
    stop: watch::Receiver<bool>,
) -> Result<Protected, Refusal> {
    let folder = prepared.state.join("agent");
    durable::create_folder(&folder).map_err(Refusal::of)?;
    let entropy = Arc::new(OsEntropy::new());
    let signer = signing_key(&prepared.state, &*entropy).map_err(Refusal::new)?;
    let suite = if plain { Suite::Plain } else { Suite::Aes256Gcm };
    let protection = Protection {
        source: prepared.source.clone(),
        name: Some(args.source.display().to_string()),
        state: folder,
        unnamed: Vec::new(),
        tracker: args.tracker.0,
        pins: ebpf::default_folder(),
        hydrator: hydrator.to_vec(),
        capture: CaptureOptions { suite, ..CaptureOptions::default() },
    };
    if prepared.is_other_medium {
        protection.adopt().map_err(|e| Refusal::at(format_args!("source {}", args.source.display()), e))?;
    }
    let protected = protection.start(api, Workers::per_processor(), entropy, &signer, stop);
    protected.map_err(|e| Refusal::at(format_args!("source {}", args.source.display()), e))
}

fn environment(
    prepared: &Prepared,
    store: Arc<dyn CacheStore>,
    key: HydratorKey,
    plain: bool,
) -> Result<(Environment, Progress), Refusal> {
    let targets = LocalTargets::one(prepared.place.clone(), Arc::new(SystemClock), Arc::new(OsEntropy::new()));
    let spool = prepared.state.join("spool");
    let mut environment = Environment::open(store, &spool, key, Arc::new(targets)).map_err(Refusal::of)?;
    environment.allow_plain = plain;
    let progress = environment.progress.clone();
    Ok((environment, progress))
}
