//! Keys, certificates and configuration files of a cluster, made as an operator would make them.

use super::{Part, Setup};
use crate::devices::text;
use crate::program::Sluice;
use sluice_client::ClientFiles;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

/// What the cluster itself needs of what was made.
pub(super) struct Files {
    /// The appliance's address.
    pub endpoint: String,
    /// An operator's certificate.
    pub operator: ClientFiles,
}

/// Makes everything in `folder`, which exists.
pub(super) fn write(folder: &Path, pins: &Path, setup: &Setup) -> Files {
    let at = |part: Part| folder.join(part.word());
    let port = free_port();
    let endpoint = format!("https://127.0.0.1:{port}");
    let cache = setup.cache.clone().unwrap_or_else(|| format!("file://{}", text(&folder.join("cache"))));
    let appliance = at(Part::Appliance);
    let listen = format!("127.0.0.1:{port}");
    Sluice::must(&["appliance", "init", "--dir", text(&appliance), "--listen", &listen, "--cache", &cache]);
    let issued = |role: &str, name: &str| {
        Sluice::must(&["appliance", "issue-cert", "--dir", text(&appliance), "--role", role, "--name", name]);
        files(&appliance, role, name)
    };

    let hydrator = at(Part::Hydrator);
    let public = Sluice::must(&["hydrator", "init", "--dir", text(&hydrator)]).stdout;
    let targets = setup.targets.clone().unwrap_or_else(|| folder.join("targets"));
    fs::create_dir_all(&targets).unwrap_or_else(|e| panic!("{}: {e}", targets.display()));
    let config = format!(
        "key = \"hydrator.key\"\nspool = \"spool\"\n{}\n[cache]\nurl = \"{cache}\"\n\n[targets]\nfolder = \"{}\"\nformat = \"{}\"\n",
        way(&endpoint, &issued("hydrator", "test")),
        text(&targets),
        setup.format,
    );
    put(&hydrator.join("hydrator.toml"), &config);

    let agent = at(Part::Agent);
    fs::create_dir_all(&agent).unwrap_or_else(|e| panic!("{}: {e}", agent.display()));
    let mut config = format!(
        "state = \"{}\"\nhydrator_key = \"{}\"\npins = \"{}\"\n{}",
        text(&agent.join("state")),
        public.trim(),
        text(pins),
        way(&endpoint, &issued("agent", "test")),
    );
    for (i, (source, tracker)) in setup.sources.iter().enumerate() {
        // Writing to a string can't fail.
        let _ =
            write!(config, "\n[[disk]]\nsource = \"{}\"\nname = \"disk-{i}\"\ntracker = \"{tracker}\"\n", text(source));
    }
    put(&agent.join("agent.toml"), &config);
    Files { endpoint, operator: issued("operator", "test") }
}

/// The files of an issued certificate.
pub(super) fn files(appliance: &Path, role: &str, name: &str) -> ClientFiles {
    let folder = appliance.join(format!("issued/{role}-{name}"));
    let at = |name: String| -> PathBuf { folder.join(name) };
    ClientFiles {
        authority: at("ca.pem".to_owned()),
        certificate: at(format!("{role}.pem")),
        key: at(format!("{role}-key.pem")),
    }
}

fn way(endpoint: &str, files: &ClientFiles) -> String {
    let [ca, cert, key] = [&files.authority, &files.certificate, &files.key].map(|path| text(path));
    format!("\n[appliance]\nendpoint = \"{endpoint}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n")
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A port that nobody has, and that the kernel gives to nobody by itself: an appliance that is started again needs the
/// same one.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 500) as u16 * 20;
    loop {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
