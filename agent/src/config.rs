//! The agent's configuration file. Relative paths are relative to its folder; a source is named in full.

use crate::capture::CaptureOptions;
use crate::protect::{Protection, TrackerChoice};
use crate::tracker::ebpf;
use serde::{Deserialize, Deserializer};
use sluice_proto::cycle::TrackerKind;
use std::path::{Path, PathBuf};

/// The whole file. Unknown keys are refused, so that a typing error is no silent default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent keeps journals and its signing key.
    pub state: PathBuf,
    /// The hydrator's public key, in base64, as `sluice-hydrator init` prints it.
    #[serde(deserialize_with = "base64_key")]
    pub hydrator_key: Vec<u8>,
    /// The way to the appliance.
    pub appliance: Appliance,
    /// The disks to protect.
    #[serde(rename = "disk")]
    pub disks: Vec<Disk>,
    /// The folder under which trackers are pinned; it lies on a BPF file system.
    #[serde(default = "ebpf::default_folder")]
    pub pins: PathBuf,
    /// zstd's level, 1 to 19 or negative; 1 suits links above 250 MB/s a core.
    #[serde(default = "default_level")]
    pub level: i32,
}

/// The way to the appliance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// For example `https://appliance.example:9443`.
    pub endpoint: String,
    /// The certificate authority that the appliance's certificate must come from (PEM file).
    pub ca: PathBuf,
    /// This agent's certificate (PEM file).
    pub cert: PathBuf,
    /// Its key (PEM file, readable by its owner alone).
    pub key: PathBuf,
    /// Connections kept open for segments.
    #[serde(default = "default_connections")]
    pub connections: usize,
}

/// One disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The block device or raw disk file.
    pub source: PathBuf,
    /// What people call it; the path where none is given.
    pub name: Option<String>,
    /// `auto`, `ebpf` or `scan`.
    #[serde(default, deserialize_with = "tracker")]
    pub tracker: TrackerChoice,
}

fn default_level() -> i32 {
    CaptureOptions::default().level
}

fn default_connections() -> usize {
    CaptureOptions::default().uploads
}

fn base64_key<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(d)?;
    sluice_proto::keys::public_key_from_text(&text).map_err(serde::de::Error::custom)
}

fn tracker<'de, D: Deserializer<'de>>(d: D) -> Result<TrackerChoice, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl std::str::FromStr for TrackerChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ebpf" => Ok(Self::Only(TrackerKind::Ebpf)),
            "scan" => Ok(Self::Only(TrackerKind::Scan)),
            other => Err(format!("unknown tracker {other:?}; auto, ebpf and scan are known")),
        }
    }
}

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    problem: String,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A file that can't be read, with the key and the line at fault.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |problem: String| ConfigError { path: path.to_path_buf(), problem };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let way = &mut config.appliance;
        for named in [&mut config.state, &mut way.ca, &mut way.cert, &mut way.key] {
            *named = folder.join(&*named);
        }
        match config.disks.is_empty() {
            true => Err(fail("no [[disk]] is named; add one with its source".into())),
            false => Ok(config),
        }
    }

    /// What each disk needs to be protected.
    pub fn protections(&self) -> impl Iterator<Item = Protection> + '_ {
        // Memory is for all disks together, as far as that goes: what one may use at full speed is shared among several.
        let (disks, whole) = (self.disks.len().max(1), CaptureOptions::default());
        let uploads = (self.appliance.connections.clamp(1, 16) / disks).max(1);
        let buffers = (whole.buffers / disks).max(2);
        let unnamed = self.unnamed_states();
        self.disks.iter().map(move |disk| Protection {
            source: disk.source.clone(),
            name: disk.name.clone(),
            state: self.state_of(disk),
            unnamed: unnamed.clone(),
            tracker: disk.tracker,
            pins: self.pins.clone(),
            hydrator: self.hydrator_key.clone(),
            capture: CaptureOptions { level: self.level, uploads, buffers, ..CaptureOptions::default() },
        })
    }

    fn state_of(&self, disk: &Disk) -> PathBuf {
        self.state.join("disks").join(folder_name(&disk.source))
    }

    /// The state folders of sources that the configuration does not name, or no more under the name that they had.
    fn unnamed_states(&self) -> Vec<PathBuf> {
        let named: Vec<PathBuf> = self.disks.iter().map(|disk| self.state_of(disk)).collect();
        let found = std::fs::read_dir(self.state.join("disks")).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).filter(|path| !named.contains(path)).collect();
        found.sort();
        found
    }
}

/// The name of a source's state folder: its path with what a file name may not hold made harmless, and a short hash, as
/// two paths may look alike then.
fn folder_name(source: &Path) -> String {
    let text = source.display().to_string();
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let hash = sluice_proto::Digest::of(text.as_bytes()).to_string();
    format!("{}-{}", plain.trim_matches('_'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
state = "/var/lib/sluice-agent"
hydrator_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
[appliance]
endpoint = "https://localhost:9443"
ca = "ca.pem"
cert = "agent.pem"
key = "agent.key"
[[disk]]
source = "/dev/vda"
[[disk]]
source = "/dev/vdb"
tracker = "scan"
"#;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_names_disks_and_the_way_to_the_appliance() {
        let config = load(GOOD).unwrap();
        let disks: Vec<_> = config.protections().collect();
        assert_eq!(disks.len(), 2);
        assert_eq!(disks[0].tracker, TrackerChoice::Auto);
        assert_eq!(disks[1].tracker, TrackerChoice::Only(TrackerKind::Scan));
        assert_ne!(disks[0].state, disks[1].state);
    }

    #[test]
    fn states_of_sources_that_are_named_no_more_are_found() {
        let mut config: Config = toml::from_str(GOOD).unwrap();
        let dir = tempfile::tempdir().unwrap();
        config.state = dir.path().to_owned();
        assert!(config.protections().all(|disk| disk.unnamed.is_empty()), "nothing is there yet");
        let [named, former] =
            ["/dev/vda", "/dev/sda"].map(|path| dir.path().join("disks").join(folder_name(path.as_ref())));
        [&named, &former].into_iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        assert!(config.protections().all(|disk| disk.unnamed == [former.clone()]));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = load(&GOOD.replace("tracker =", "trakcer =")).unwrap_err();
        assert!(error.contains("trakcer") && error.contains("line 13"), "{error}");
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let error = load(&GOOD.replace("AAECAwQF", "")).unwrap_err();
        assert!(error.contains("32 bytes"), "{error}");
    }

    #[test]
    fn a_file_without_disks_says_so() {
        let error = load(GOOD.split("[[disk]]").next().unwrap()).unwrap_err();
        assert!(error.contains("disk"), "{error}");
    }
}
