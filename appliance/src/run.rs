//! `sluice-appliance run`: the parts put together, until a signal ends it.

use crate::config::Config;
use crate::http;
use crate::repository::SqliteRepository;
use crate::service::{Ports, Service, StartError};
use crate::throttle::Throttle;
use crate::tls::TlsServer;
use sluice_cache_store::{CacheStore, StoreError};
use sluice_platform::lock::StateLock;
use sluice_platform::system::SystemClock;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The database's name in the state folder.
const DATABASE: &str = "appliance.db";
/// Unfinished puts in a cache folder that are older than this are a crash's, not those of a hydrator at work.
const UNFINISHED_AGE: Duration = Duration::from_secs(3600);
/// Between two tries to start while the cache store is away.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Runs the appliance until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    raise_open_files();
    sluice_platform::durable::create_folder(&config.state)?;
    let _lock = StateLock::take(&config.state)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), Box<dyn Error>> {
    let tls = TlsServer::open(&config.tls_files())?;
    let store = sluice_cache_store::open(&config.cache.url, &config.store_options())?;
    let repository = SqliteRepository::open(&config.state.join(DATABASE)).await?;
    let clock = Arc::new(SystemClock);
    let throttle = Throttle::new(config.limits()?, clock.clone());
    let ports = Ports { repository: Arc::new(repository.clone()), store, clock, throttle };
    // One for all of its life, so that no signal falls in between.
    let mut end = std::pin::pin!(end_signal());
    let service = tokio::select! {
        biased;
        () = &mut end => {
            repository.close().await;
            return Ok(());
        }
        started = start(&ports, config) => started?,
    };
    let address = config.server.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|e| format!("can't listen on {address}: {e}; another program may use the port"))?;
    let address = listener.local_addr()?;
    // For whoever started this with port 0, and to know when it is ready. Gone output is nobody's loss.
    let _ = writeln!(std::io::stdout(), "listening on {address}");
    tracing::info!(%address, cache = %config.cache.url, "the appliance is ready");
    http::serve(listener, tls, service, config.http_limits(), end).await;
    repository.close().await;
    tracing::info!("the appliance has ended");
    Ok(())
}

/// Starts the service; as long as the cache store is away, again and again.
async fn start(ports: &Ports, config: &Config) -> Result<Service, StartError> {
    loop {
        let started = match tidy_store(&*ports.store).await {
            Ok(()) => Service::start(ports.clone(), config.settings()).await,
            Err(error) => Err(error.into()),
        };
        match started {
            Err(StartError::Store(error)) if error.is_retryable() => {
                tracing::warn!(%error, "the appliance starts as soon as its cache store can be reached");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            started => return started,
        }
    }
}

/// Swept before it is checked: leavings may be what fills it.
async fn tidy_store(store: &dyn CacheStore) -> Result<(), StoreError> {
    let swept = store.sweep_unfinished(UNFINISHED_AGE).await?;
    if swept > 0 {
        tracing::info!(count = swept, store = %store.describe(), "cache store: leavings of a crash were removed");
    }
    sluice_cache_store::check_at_start(store).await
}

/// As many open files as this process may have: each connection is one.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most).map(|()| most));
    match raised {
        Ok(most) => tracing::debug!(most, "open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files could not be raised"),
    }
}

async fn end_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be received, so the appliance ends at once");
        return;
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending; what is under way goes on at the next start");
}
