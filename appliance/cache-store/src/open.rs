//! From a URL and settings to a store.

use crate::folder::Folder;
use crate::object::{FolderBackend, ObjectCache};
use crate::{CacheStore, StoreError, StoreErrorKind, key};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How a store is reached, beyond its URL.
#[derive(Clone)]
pub struct StoreOptions {
    /// How failed requests are made again, before the caller hears of it.
    pub retries: Retries,
    /// The longest that one request may take, its body included. Bounds how slow a line may be: 8 MiB in this time.
    pub request_timeout: Duration,
    /// The longest that a connection may take to stand.
    pub connect_timeout: Duration,
    /// Settings of the backend by `object_store`'s names (`account_name`, `access_key`, `sas_key`, `endpoint`,
    /// `use_emulator`, `region`, `allow_http` and so on). They go before environment variables. Some are secrets.
    pub settings: BTreeMap<String, String>,
    /// Whether the backend's environment variables (`AZURE_*`, `AWS_*`) are read.
    pub environment: bool,
}

/// How often and how long a failed request is made again: exponential back-off with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first; 0 for none.
    pub count_max: usize,
    /// No try starts later than this after the first one.
    pub time_max: Duration,
    /// The wait before the first repetition.
    pub wait_first: Duration,
    /// The longest wait between two tries.
    pub wait_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            count_max: 10,
            time_max: Duration::from_secs(120),
            wait_first: Duration::from_millis(200),
            wait_max: Duration::from_secs(15),
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            retries: Retries::default(),
            request_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            settings: BTreeMap::new(),
            environment: true,
        }
    }
}

/// Shows the names of settings, never their values.
impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("retries", &self.retries)
            .field("request_timeout", &self.request_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .field("environment", &self.environment)
            .finish()
    }
}

/// Opens the store at `url`: `file:///folder` (created where missing), `az://container[/prefix]`, `s3://bucket[/prefix]`.
/// Nothing is asked of a remote store yet; [`CacheStore::check`] does that.
pub fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn CacheStore>, StoreError> {
    let parsed = Url::parse(url).map_err(|e| {
        let hint = if url.starts_with('/') { " (a folder is written as file:///folder)" } else { "" };
        bad(format!("{} is not a URL{hint}", shown(url))).with_source(e)
    })?;
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        // Not shown: what stands there is likely to be a key or a SAS token.
        return Err(bad("a store's URL holds no user, password or query; give keys as settings or in the environment"));
    }
    match parsed.scheme() {
        "file" => open_folder(&parsed, options),
        "az" => open_azure(&parsed, options),
        "s3" => open_s3(&parsed, options),
        other => Err(bad(format!("{other}:// is no store that Sluice knows; file:///, az:// and s3:// are"))),
    }
}

fn open_folder(url: &Url, options: &StoreOptions) -> Result<Arc<dyn CacheStore>, StoreError> {
    if let Some(name) = options.settings.keys().next() {
        return Err(bad(format!("unknown setting {name:?}: a folder takes none")));
    }
    let path = url.to_file_path().map_err(|()| bad(format!("{url} names no folder of this host: file:///folder")))?;
    let folder = Folder::create(&path)?;
    let description = format!("folder {}", folder.path().display());
    let opened = || {
        LocalFileSystem::new_with_prefix(folder.path())
            .map_err(|e| StoreError::from_object_store(e, format!("opening {description}")))
    };
    let (store, unflushed) = (opened()?.with_fsync(true), opened()?.with_fsync(false));
    let backend = FolderBackend { folder, unflushed: Arc::new(unflushed) };
    Ok(Arc::new(ObjectCache::new(Arc::new(store), Some(backend), description)))
}

fn open_azure(url: &Url, options: &StoreOptions) -> Result<Arc<dyn CacheStore>, StoreError> {
    let (container, prefix) = place(url)?;
    let start = if options.environment { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
    let mut builder = start.with_container_name(container).with_retry(options.retries.into());
    for (name, value) in &options.settings {
        builder = builder.with_config(setting::<AzureConfigKey>(name, AZURE_SETTINGS)?, value);
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    for (key, value) in client_settings(options, endpoint.as_deref()) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let account = builder.get_config_value(&AzureConfigKey::AccountName);
    let account = account.unwrap_or_else(|| "(the emulator's)".to_owned());
    let description = described("Azure container", container, &prefix, &format!("account {account}"), endpoint);
    let store = builder.build().map_err(|e| cannot_open(e, &description))?;
    Ok(remote(store, &prefix, description))
}

fn open_s3(url: &Url, options: &StoreOptions) -> Result<Arc<dyn CacheStore>, StoreError> {
    let (bucket, prefix) = place(url)?;
    let start = if options.environment { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
    let mut builder = start.with_bucket_name(bucket).with_retry(options.retries.into());
    for (name, value) in &options.settings {
        builder = builder.with_config(setting::<AmazonS3ConfigKey>(name, S3_SETTINGS)?, value);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    for (key, value) in client_settings(options, endpoint.as_deref()) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
    let description = described("S3 bucket", bucket, &prefix, &format!("region {region}"), endpoint);
    let store = builder.build().map_err(|e| cannot_open(e, &description))?;
    Ok(remote(store, &prefix, description))
}

const AZURE_SETTINGS: &str =
    "account_name, access_key, sas_key, endpoint, use_emulator, allow_http, client_id, client_secret, tenant_id";
const S3_SETTINGS: &str = "access_key_id, secret_access_key, session_token, region, endpoint, allow_http, \
     virtual_hosted_style_request, conditional_put";

/// The container or bucket, and the prefix below it, which may be empty.
fn place(url: &Url) -> Result<(&str, String), StoreError> {
    let name = url.host_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| bad(format!("{url} names no container or bucket")))?;
    if url.port().is_some() {
        return Err(bad(format!("{url} has a port; an own address of the service is the setting \"endpoint\"")));
    }
    let prefix = url.path().trim_matches('/').to_owned();
    key::check_prefix(&prefix).map_err(|e| bad(format!("the prefix in {url}")).with_source(e))?;
    Ok((name, prefix))
}

fn setting<K: std::str::FromStr>(name: &str, usual: &str) -> Result<K, StoreError> {
    let lower = name.to_ascii_lowercase();
    lower.parse().map_err(|_| bad(format!("unknown setting {name:?}; the usual ones are: {usual}")))
}

/// Time limits; and http, without TLS, for a service on this very host (an emulator), which no line can be tapped of.
fn client_settings(options: &StoreOptions, endpoint: Option<&str>) -> Vec<(ClientConfigKey, String)> {
    let seconds = |time: Duration| format!("{} seconds", time.as_secs().max(1));
    let mut settings = vec![
        (ClientConfigKey::Timeout, seconds(options.request_timeout)),
        (ClientConfigKey::ConnectTimeout, seconds(options.connect_timeout)),
    ];
    let host = endpoint.and_then(|e| Url::parse(e).ok()).and_then(|e| e.host_str().map(str::to_owned));
    if matches!(host.as_deref(), Some("127.0.0.1" | "localhost" | "[::1]")) {
        settings.push((ClientConfigKey::AllowHttp, "true".to_owned()));
    }
    settings
}

fn described(what: &str, name: &str, prefix: &str, owner: &str, endpoint: Option<String>) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    let at = endpoint.map(|e| format!(" at {e}")).unwrap_or_default();
    format!("{what} {name}{slash}{prefix} ({owner}){at}")
}

fn remote(store: impl ObjectStore, prefix: &str, description: String) -> Arc<dyn CacheStore> {
    let store: Arc<dyn ObjectStore> =
        if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
    Arc::new(ObjectCache::new(store, None, description))
}

fn cannot_open(error: object_store::Error, description: &str) -> StoreError {
    bad(format!("opening {description}")).with_source(error)
}

fn bad(context: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::BadSettings, context)
}

/// A URL as it may be logged: what follows a `?` or stands before an `@` could be a secret.
fn shown(url: &str) -> String {
    let plain = url.split('?').next().unwrap_or_default();
    plain.rsplit('@').next().unwrap_or_default().chars().take(120).collect()
}

impl From<Retries> for RetryConfig {
    fn from(retries: Retries) -> Self {
        let backoff = BackoffConfig { init_backoff: retries.wait_first, max_backoff: retries.wait_max, base: 2.0 };
        Self { backoff, max_retries: retries.count_max, retry_timeout: retries.time_max }
    }
}
