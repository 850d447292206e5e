//! The three configuration files, and the list of revoked certificates.

use sluice_appliance::tls;
use sluice_platform::system::{OsEntropy, SystemClock};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The first byte chooses the program, or the list; the rest is its file.
pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match (choice, choice % 3) {
        // Added later: other numbers mean what they did when the corpus was begun.
        (3, _) => revoked(text),
        (_, 0) => agent(text),
        (_, 1) => hydrator(text),
        _ => appliance(text),
    }
}

/// From a file, as some checks come behind its text. It is in memory, where there is a file system for that.
fn agent(text: &str) {
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (folder, path) = PATH.get_or_init(|| {
        let folder = crate::folder();
        let path = folder.path().join("agent.toml");
        (folder, path)
    });
    std::fs::write(path, text).expect("a file of our own");
    let Ok(config) = sluice_agent::config::Config::load(path) else { return };
    let way = &config.appliance;
    for named in [&config.state, &way.ca, &way.cert, &way.key] {
        assert!(named.is_absolute() || named.starts_with(folder.path()), "{named:?} is where the agent is started");
    }
    let protections: Vec<_> = config.protections().collect();
    assert!(!protections.is_empty(), "an agent without a disk");
    assert_eq!(protections.len(), config.disks.len());
    for (protection, disk) in protections.iter().zip(&config.disks) {
        assert!(protection.capture.uploads > 0 && protection.capture.buffers > 0);
        assert!(protection.state.starts_with(config.state.join("disks")), "{:?} leads out of the folder", disk.source);
        let name = protection.state.file_name().map(|name| name.to_string_lossy().into_owned());
        assert!(name.is_some_and(|name| !name.contains('/') && name != ".."));
    }
}

fn hydrator(text: &str) {
    let Ok(config) = sluice_hydrator::config::Config::parse(text) else { return };
    let targets = config.local_targets(Arc::new(SystemClock), Arc::new(OsEntropy::new()));
    assert_eq!(targets.named.len(), config.single.len());
    assert_eq!(config.store_options().settings, config.cache.settings);
}

fn appliance(text: &str) {
    let Ok(config) = sluice_appliance::config::Config::parse(text) else { return };
    let limits = config.limits().expect("it was parsed before");
    assert_eq!(limits.windows.len(), config.settings().policy.windows.len());
    let policy = config.settings().policy;
    assert!(policy.min_interval_ms >= 1000 && policy.max_interval_ms >= policy.min_interval_ms);
    assert!(config.http_limits().connections_max > 0);
    drop((config.tls_files(), config.store_options()));
}

/// Whoever is on the list is written as one line, by which he is on it again.
fn revoked(text: &str) {
    let Ok(list) = tls::revoked_in(text) else { return };
    let again: String = list.iter().map(|fingerprint| format!("{fingerprint}\n")).collect();
    assert_eq!(tls::revoked_in(&again).expect("our own list"), list);
    assert!(list.len() <= text.lines().count(), "more certificates than lines");
}

/// A full file of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let agent = r#"state = "s"
hydrator_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
pins = "/p"
level = -3
[appliance]
endpoint = "https://localhost:9443"
ca = "ca.pem"
cert = "agent.pem"
key = "agent.key"
connections = 3
[[disk]]
source = "/dev/vda"
name = "a"
[[disk]]
source = "/dev/vdb"
tracker = "scan"
"#;
    let hydrator = r#"key = "k"
spool = "s"
[appliance]
endpoint = "https://a:1"
ca = "ca.pem"
cert = "c.pem"
key = "k.pem"
[cache]
url = "file:///c"
[cache.settings]
account_name = "x"
[targets]
folder = "/srv"
format = "vhd"
[[target]]
disk = "0b0e2c1e-5d55-4b62-8a4b-1f1f0d7a3a11"
path = "/dev/x"
format = "raw"
state = "/s"
overwrite = true
"#;
    let appliance = r#"state = "s"
[server]
listen = "127.0.0.1:9443"
certificate = "c.pem"
key = "k.pem"
authorities = "a.pem"
revoked = "r"
connections_max = 10
connections_per_peer_max = 2
[cache]
url = "file:///c"
[cache.settings]
account_name = "x"
[schedule]
slots = 2
min_interval = "1h"
max_interval = "12h"
[throttle]
limit = "200Mbit/s"
timezone = "UTC"
[[throttle.window]]
when = "Mon-Fri 08:00-18:00"
limit = "20MB/s"
[scrub]
interval = "168h"
rate = "1.5GiB/s"
"#;
    let plain = "06".repeat(32);
    let colons = ["AB"; 32].join(":");
    let revoked = format!("# who, when and why\n{plain} # web-1\n\n  {colons}\r\n");
    (0_u8..).zip([agent, hydrator, appliance, &revoked]).map(|(i, text)| [&[i][..], text.as_bytes()].concat()).collect()
}
