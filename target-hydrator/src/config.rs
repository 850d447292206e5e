//! The hydrator's configuration file.

use crate::formats::Format;
use crate::targets::{LocalTargets, Place, asks_the_kernel};
use serde::{Deserialize, Deserializer};
use sluice_cache_store::StoreOptions;
use sluice_proto::DiskId;
use sluice_proto::env::{Clock, Entropy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file. Unknown keys are refused, so that a typing error is no silent default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The hydrator's key file, as `sluice-hydrator init` makes it.
    pub key: PathBuf,
    /// Where segments of a remote cache store are kept until they are applied.
    pub spool: PathBuf,
    /// The way to the appliance.
    pub appliance: Appliance,
    /// The cache store that the appliance fills.
    pub cache: Cache,
    /// Where the targets of disks go that have none of their own.
    pub targets: Option<Folder>,
    /// Targets of single disks.
    #[serde(default, rename = "target")]
    pub single: Vec<Single>,
}

/// The way to the appliance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// For example `https://appliance.example:9443`.
    pub endpoint: String,
    /// The certificate authority that the appliance's certificate must come from (PEM file).
    pub ca: PathBuf,
    /// This hydrator's certificate (PEM file), from `sluice-appliance issue-cert`.
    pub cert: PathBuf,
    /// Its key (PEM file, readable by its owner alone).
    pub key: PathBuf,
}

/// The cache store.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// For example `file:///var/lib/sluice/cache`, `az://container` or `s3://bucket`.
    pub url: String,
    /// Settings of the store by name, such as `account_name`. Secrets are better kept in the environment.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.settings.keys().collect();
        f.debug_struct("Cache").field("url", &self.url).field("settings", &names).finish()
    }
}

/// A folder for targets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The folder.
    pub folder: PathBuf,
    /// The format of new targets; `vhd` if none is given.
    #[serde(default = "default_format", deserialize_with = "format")]
    pub format: Format,
}

/// The target of one disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Single {
    /// The disk's id.
    pub disk: DiskId,
    /// The image's file or a block device.
    pub path: PathBuf,
    /// The image's format; by the file's suffix if none is given.
    #[serde(default, deserialize_with = "maybe_format")]
    pub format: Option<Format>,
    /// Where the target's state is kept; in `PATH.sluice` if none is given, which a block device can't have.
    pub state: Option<PathBuf>,
    /// Whether a file or device that is there already may be overwritten at the first cycle.
    #[serde(default)]
    pub overwrite: bool,
}

impl Single {
    fn place(&self) -> Place {
        let format = self.format.or_else(|| Format::from_suffix(&self.path).ok()).unwrap_or(Format::Raw);
        let (path, state) = (self.path.clone(), self.state.clone());
        Place { path, format, state, overwrite: self.overwrite, source: None }
    }
}

fn default_format() -> Format {
    Format::Vhd
}

fn format<'de, D: Deserializer<'de>>(d: D) -> Result<Format, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}

fn maybe_format<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Format>, D::Error> {
    format(d).map(Some)
}

/// The configuration could not be used. The text names the file, the line and the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a configuration file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// It can't be read, a key is unknown, missing or has a wrong value, or a block device is to be a target and has no
    /// place for its state.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = sluice_platform::durable::read_file_limited(path, FILE_BYTES_MAX);
        let bytes = bytes.map_err(|e| ConfigError(format!("configuration: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigError(format!("{} is not text", path.display())))?;
        let mut config = Self::parse(&text).map_err(|e| ConfigError(format!("{}: {e}", path.display())))?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        for place in config.single.iter().map(Single::place) {
            place.state_folder().map_err(|e| ConfigError(format!("{}: {e}", path.display())))?;
        }
        Ok(config)
    }

    /// Reads the configuration from its text.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError(sluice_cache_store::wrong_at(text, &e)))?;
        let mut seen = BTreeMap::new();
        for single in &config.single {
            if seen.insert(single.disk, ()).is_some() {
                return Err(ConfigError(format!("[[target]]: disk {} stands there twice", single.disk)));
            }
            if single.format.is_none() {
                Format::from_suffix(&single.path).map_err(|e| ConfigError(format!("[[target]]: {e}")))?;
            }
        }
        if config.single.is_empty() && config.targets.is_none() {
            let text = "no target: add [targets] with a folder, or a [[target]] for each disk";
            return Err(ConfigError(text.to_owned()));
        }
        Ok(config)
    }

    fn resolve(&mut self, base: &Path) {
        let fixed = [&mut self.key, &mut self.spool];
        let appliance = [&mut self.appliance.ca, &mut self.appliance.cert, &mut self.appliance.key];
        let folder = self.targets.iter_mut().map(|t| &mut t.folder);
        let single = self.single.iter_mut().flat_map(|t| std::iter::once(&mut t.path).chain(&mut t.state));
        for path in fixed.into_iter().chain(appliance).chain(folder).chain(single) {
            *path = base.join(&*path);
        }
    }

    /// The targets that it names.
    pub fn local_targets(&self, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> LocalTargets {
        LocalTargets {
            named: self.single.iter().map(|single| (single.disk, single.place())).collect(),
            any: None,
            folder: self.targets.as_ref().map(|t| (t.folder.clone(), t.format)),
            clock,
            entropy,
            medium_of: asks_the_kernel(),
        }
    }

    /// How the cache store is reached.
    pub fn store_options(&self) -> StoreOptions {
        StoreOptions { settings: self.cache.settings.clone(), ..StoreOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn the_file_that_init_writes_is_read() {
        let config = Config::parse(crate::init::CONFIG).expect("valid");
        assert_eq!(config.targets.expect("a folder").format, Format::Vhd);
        // What stands in comments is valid too.
        let full: String =
            crate::init::CONFIG.lines().map(|l| l.strip_prefix("#: ").unwrap_or(l).to_owned() + "\n").collect();
        let config = Config::parse(&full).expect("valid");
        assert_eq!(config.single.len(), 1);
        assert_eq!(config.cache.settings.len(), 1);
    }

    #[test]
    fn errors_name_the_key() {
        let good = crate::init::CONFIG;
        assert!(error(&good.replace("spool =", "spoool =")).contains("spoool"));
        assert!(error(&good.replace("endpoint =", "endpiont =")).contains("endpiont"));
        assert!(error(&good.replace("format = \"vhd\"", "format = \"vdh\"")).contains("unknown format \"vdh\""));
        assert!(error(&good.replace("key = \"hydrator.key\"", "")).contains("missing field `key`"));
        assert!(error(good.split("[targets]").next().expect("a part")).contains("no target"));
        let twice = "[[target]]\ndisk = \"0b0e2c1e-5d55-4b62-8a4b-1f1f0d7a3a11\"\npath = \"a.vhd\"\n";
        assert!(error(&format!("{good}\n{twice}{twice}")).contains("stands there twice"));
        assert!(error(&format!("{good}\n{}", twice.replace("a.vhd", "a.xyz"))).contains("a.xyz"));
        assert!(error(&format!("{good}\n{}", twice.replace("0b0e", "zzzz"))).contains("not a disk id"));
    }

    #[test]
    fn paths_are_relative_to_the_file_and_secrets_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hydrator.toml");
        std::fs::write(&path, format!("{}\n[cache.settings]\naccess_key = \"hush\"\n", crate::init::CONFIG))
            .expect("written");
        let config = Config::load(&path).expect("valid");
        assert_eq!(config.key, folder.path().join("hydrator.key"));
        assert!(!format!("{config:?}").contains("hush"));
        // A device's state may not lie next to it, in memory.
        let single =
            "[[target]]\ndisk = \"0b0e2c1e-5d55-4b62-8a4b-1f1f0d7a3a11\"\nformat = \"raw\"\npath = \"/dev/vdz\"\n";
        std::fs::write(&path, format!("{}\n{single}", crate::init::CONFIG)).expect("written");
        let error = Config::load(&path).expect_err("no place for its state").to_string();
        assert!(error.contains("hydrator.toml") && error.contains("state = \"/var/lib/sluice/dev-vdz\""), "{error}");
        std::fs::write(&path, format!("{}\n{single}state = \"vdz\"\n", crate::init::CONFIG)).expect("written");
        let config = Config::load(&path).expect("valid");
        assert_eq!(config.single[0].state, Some(folder.path().join("vdz")));
        let error = Config::load(&folder.path().join("none.toml")).expect_err("missing").to_string();
        assert!(error.contains("none.toml"), "{error}");
    }
}
