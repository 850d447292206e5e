//! The appliance's configuration file.

use crate::http::HttpLimits;
use crate::service::Settings;
use crate::throttle::{Limits, Rate};
use crate::tls::TlsFiles;
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use sluice_cache_store::StoreOptions;
use sluice_proto::wire::{PolicyView, WindowView};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The configuration that `init` writes, with places for the address and the cache store.
pub(crate) const TEMPLATE: &str = include_str!("config/template.toml");

/// The whole file. Unknown keys are refused, so that a typing error is no silent default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of what must not be forgotten.
    pub state: PathBuf,
    /// The port.
    pub server: Server,
    /// The cache store.
    pub cache: Cache,
    /// When cycles begin, until an operator says otherwise.
    #[serde(default)]
    pub schedule: Schedule,
    /// How much may come in, likewise.
    #[serde(default)]
    pub throttle: ThrottleTable,
    /// Comparing whole disks in the background, likewise.
    #[serde(default)]
    pub scrub: Scrub,
}

/// The port and who may use it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port; port 0 is a free one.
    pub listen: SocketAddr,
    /// The appliance's certificate (PEM file).
    pub certificate: PathBuf,
    /// Its key (PEM file).
    pub key: PathBuf,
    /// The authorities whose clients are let in (PEM file).
    pub authorities: PathBuf,
    /// The list of revoked certificates.
    pub revoked: PathBuf,
    /// Connections in all, at most.
    pub connections_max: Option<NonZeroUsize>,
    /// Connections of one certificate's name, at most.
    pub connections_per_peer_max: Option<NonZeroUsize>,
}

/// The cache store.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// For example `file:///var/lib/sluice/cache`.
    pub url: String,
    /// Settings of the store by name. Some are secrets.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Shows the names of settings, never their values.
impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.settings.keys().collect();
        f.debug_struct("Cache").field("url", &self.url).field("settings", &names).finish()
    }
}

/// When cycles begin.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How many may run at once.
    pub slots: Option<NonZeroUsize>,
    /// The shortest pause between two deltas, in milliseconds; in the file as a time such as `1h`.
    #[serde(default, deserialize_with = "milliseconds")]
    pub min_interval: Option<u64>,
    /// The longest, likewise.
    #[serde(default, deserialize_with = "milliseconds")]
    pub max_interval: Option<u64>,
}

/// How much may come in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleTable {
    /// The limit outside of all windows.
    pub limit: Option<String>,
    /// Whose clock the windows mean.
    pub timezone: Option<String>,
    /// Times of day with limits of their own.
    #[serde(default, rename = "window")]
    pub windows: Vec<WindowView>,
}

/// Comparing whole disks in the background.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    /// How often, in milliseconds; in the file as a time such as `168h`.
    #[serde(default, deserialize_with = "milliseconds")]
    pub interval: Option<u64>,
    /// How fast the disks are read for it.
    #[serde(default, deserialize_with = "rate")]
    pub rate: Option<Rate>,
}

fn milliseconds<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(d)?;
    let time = text.parse::<SignedDuration>().ok().and_then(|time| u64::try_from(time.as_millis()).ok());
    let bad = || serde::de::Error::custom(format!("{text:?} is no length of time: write 30s, 15m, 1h 30m"));
    time.map(Some).ok_or_else(bad)
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Rate>, D::Error> {
    String::deserialize(d)?.parse().map(Some).map_err(serde::de::Error::custom)
}

/// The configuration can't be used. The text names the file, the line and the key, and the keys that are known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a configuration file. Relative paths in it are relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = sluice_platform::durable::read_file_limited(path, FILE_BYTES_MAX);
        let bytes = bytes.map_err(|e| ConfigError(format!("configuration: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigError(format!("{} is not text", path.display())))?;
        let mut config = Self::parse(&text).map_err(|e| ConfigError(format!("{}: {e}", path.display())))?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads the configuration from its text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError(sluice_cache_store::wrong_at(text, &e)))?;
        let policy = config.settings().policy;
        let bounds = (policy.min_interval_ms, policy.max_interval_ms);
        if bounds.0 < 1000 || bounds.1 < bounds.0 {
            let text = "[schedule]: min_interval must be 1s at least, and max_interval no shorter than min_interval";
            return Err(ConfigError(text.to_owned()));
        }
        config.limits().map_err(|e| ConfigError(format!("[throttle]: {}", e.0)))?;
        Ok(config)
    }

    fn resolve(&mut self, base: &Path) {
        let server = &mut self.server;
        let files = [&mut server.certificate, &mut server.key, &mut server.authorities, &mut server.revoked];
        for path in files.into_iter().chain([&mut self.state]) {
            *path = base.join(&*path);
        }
    }

    /// The limits of the throttle, with the time zone that the policy's windows mean.
    pub fn limits(&self) -> Result<Limits, ConfigError> {
        let zone = match self.throttle.timezone.as_deref() {
            None | Some("system") => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                ConfigError(format!("timezone: {name:?} is not known here: write system, UTC or Europe/Berlin"))
            })?,
        };
        let windows = self.throttle.windows.iter().map(|window| (window.when.as_str(), window.limit.as_str()));
        Limits::parse(self.throttle.limit.as_deref(), windows, zone).map_err(|e| ConfigError(e.to_string()))
    }

    /// The service's settings, the policy included.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.slots = self.schedule.slots.unwrap_or(settings.slots);
        settings.policy = PolicyView {
            min_interval_ms: self.schedule.min_interval.unwrap_or(settings.policy.min_interval_ms),
            max_interval_ms: self.schedule.max_interval.unwrap_or(settings.policy.max_interval_ms),
            limit: self.throttle.limit.clone().filter(|limit| limit != "unlimited"),
            windows: self.throttle.windows.clone(),
            scrub_interval_ms: self.scrub.interval,
            scrub_rate: self.scrub.rate.map(|rate| rate.bits() / 8),
        };
        settings
    }

    /// The port's limits.
    pub fn http_limits(&self) -> HttpLimits {
        let mut limits = HttpLimits::default();
        limits.connections_max = self.server.connections_max.map_or(limits.connections_max, NonZeroUsize::get);
        let per_peer = self.server.connections_per_peer_max;
        limits.connections_per_peer_max = per_peer.map_or(limits.connections_per_peer_max, NonZeroUsize::get);
        limits
    }

    /// The files of the appliance's end of TLS.
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.server.certificate.clone(),
            key: self.server.key.clone(),
            authorities: self.server.authorities.clone(),
            revoked: self.server.revoked.clone(),
        }
    }

    /// How the cache store is reached.
    pub fn store_options(&self) -> StoreOptions {
        StoreOptions { settings: self.cache.settings.clone(), ..StoreOptions::default() }
    }
}
