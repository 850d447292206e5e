//! `sluice-appliance init` and its kin: the authority, certificates, the configuration.

use crate::config::TEMPLATE;
use crate::identity::{BadIdentity, Fingerprint, PeerName, Role};
use crate::pki::{Authority, Pair, PkiError};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluice_platform::durable::{self, Access, FileError};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The configuration's name in the folder.
pub const CONFIG_NAME: &str = "appliance.toml";
/// The port that the configuration names unless told otherwise.
pub const PORT: u16 = 9443;
/// The largest PEM file that is read, in bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

const AUTHORITY: &str = "tls/ca.pem";
const AUTHORITY_KEY: &str = "tls/ca-key.pem";
const SERVER: &str = "tls/server.pem";
const SERVER_KEY: &str = "tls/server-key.pem";
const REVOKED: &str = "tls/revoked";
const REVOKED_TEXT: &str =
    "# Fingerprints (SHA-256) of certificates that are let in no more, one a line. In force when saved.\n";

/// What `init` is to make.
#[derive(Clone, Debug)]
pub struct Init {
    /// The folder.
    pub dir: PathBuf,
    /// Host names and addresses that clients connect to; of this host for none.
    pub names: Vec<String>,
    /// Where the appliance listens.
    pub listen: std::net::SocketAddr,
    /// The cache store's URL; the folder's own `cache` for none.
    pub cache: Option<String>,
    /// Replace what is there.
    pub force: bool,
}

/// What `init` made.
#[derive(Debug)]
pub struct Made {
    /// The configuration file.
    pub config: PathBuf,
    /// The names in the appliance's certificate.
    pub names: Vec<String>,
    /// The first operator's files.
    pub operator: Issued,
}

/// Where an issued certificate lies.
#[derive(Debug)]
pub struct Issued {
    /// The folder with `ca.pem`, `ROLE.pem` and `ROLE-key.pem`.
    pub folder: PathBuf,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
}

/// It could not be done. Where files were there already, nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// Files would be overwritten.
    #[error("{} is there already, so nothing was written; --force replaces it, and whoever holds what it replaces is locked out", .0.display())]
    Exists(PathBuf),
    /// Certificates could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was given is neither a certificate's file nor a fingerprint.
    #[error("{0:?} is neither a certificate's PEM file nor a fingerprint: {1}")]
    NotACertificate(String, BadIdentity),
}

/// Makes the authority, the appliance's certificate, one for an operator named `admin`, and the configuration.
pub fn init(wish: &Init, now: Timestamp) -> Result<Made, InitError> {
    let at = |name: &str| wish.dir.join(name);
    let config = at(CONFIG_NAME);
    let fixed = [AUTHORITY, AUTHORITY_KEY, SERVER, SERVER_KEY, REVOKED].map(at);
    let admin = Certificate::new(Role::Operator, "admin".parse().map_err(PkiError::from)?, wish.force);
    let issued = admin.folder(&wish.dir);
    if let Some(there) = fixed.iter().chain([&config, &issued]).find(|path| path.exists()).filter(|_| !wish.force) {
        return Err(InitError::Exists(there.clone()));
    }
    let names = if wish.names.is_empty() { own_names() } else { wish.names.clone() };
    let (authority, authority_pair) = Authority::create(names.last().map_or("appliance", String::as_str), now)?;
    let server = authority.issue_server(&names, now, crate::pki::ISSUED_DAYS)?;
    durable::create_folder(&at("tls"))?;
    write_pair(&at(AUTHORITY), &at(AUTHORITY_KEY), &authority_pair)?;
    write_pair(&at(SERVER), &at(SERVER_KEY), &server)?;
    durable::write_file(&at(REVOKED), REVOKED_TEXT.as_bytes(), Access::Owner)?;
    let cache = match &wish.cache {
        Some(url) => url.clone(),
        None => format!("file://{}/cache", folder_in_url(&wish.dir)),
    };
    let operator = issue(&wish.dir, &admin, now)?;
    let text = TEMPLATE.replace("{listen}", &wish.listen.to_string()).replace("{cache}", &cache);
    durable::write_file(&config, text.as_bytes(), Access::Owner)?;
    Ok(Made { config, names, operator })
}

/// A certificate to be issued.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What its holder may do.
    pub role: Role,
    /// Its holder's name.
    pub name: PeerName,
    /// How long it is valid.
    pub days: u32,
    /// The folder to write to; `issued/ROLE-NAME` in the appliance's for none.
    pub out: Option<PathBuf>,
    /// Replace what is there.
    pub force: bool,
}

impl Certificate {
    /// One for the usual time, in the usual place.
    pub fn new(role: Role, name: PeerName, force: bool) -> Self {
        Self { role, name, days: crate::pki::ISSUED_DAYS, out: None, force }
    }

    fn folder(&self, dir: &Path) -> PathBuf {
        self.out.clone().unwrap_or_else(|| dir.join("issued").join(format!("{}-{}", self.role, self.name)))
    }
}

/// Issues a client's certificate by the authority in `dir`.
pub fn issue(dir: &Path, wish: &Certificate, now: Timestamp) -> Result<Issued, InitError> {
    let authority = authority(dir)?;
    let folder = wish.folder(dir);
    let at = |name: String| folder.join(name);
    let [ca, certificate, key] =
        [at("ca.pem".to_owned()), at(format!("{}.pem", wish.role)), at(format!("{}-key.pem", wish.role))];
    if let Some(there) = [&ca, &certificate, &key].into_iter().find(|path| path.exists()).filter(|_| !wish.force) {
        return Err(InitError::Exists(there.clone()));
    }
    let pair = authority.issue_client(wish.role, &wish.name, now, wish.days)?;
    durable::create_folder(&folder)?;
    write_pair(&certificate, &key, &pair)?;
    durable::write_file(&ca, authority.certificate_pem().as_bytes(), Access::Owner)?;
    Ok(Issued { folder, fingerprint: pair.fingerprint })
}

/// Issues the appliance's own certificate anew, for other names or because it is about to expire.
pub fn issue_server(dir: &Path, names: &[String], days: u32, now: Timestamp) -> Result<Vec<String>, InitError> {
    let names = if names.is_empty() { own_names() } else { names.to_vec() };
    let pair = authority(dir)?.issue_server(&names, now, days)?;
    write_pair(&dir.join(SERVER), &dir.join(SERVER_KEY), &pair)?;
    Ok(names)
}

/// Puts a certificate, given by its PEM file or fingerprint, on the list of those that are let in no more.
pub fn revoke(dir: &Path, which: &str) -> Result<Fingerprint, InitError> {
    let fingerprint = match which.parse::<Fingerprint>() {
        Ok(fingerprint) => fingerprint,
        Err(reason) => {
            let bad = || InitError::NotACertificate(which.to_owned(), reason);
            let pem = durable::read_file_if_exists(Path::new(which), PEM_BYTES_MAX)?.ok_or_else(bad)?;
            Fingerprint::of(&CertificateDer::from_pem_slice(&pem).map_err(|_| bad())?)
        }
    };
    let file = dir.join(REVOKED);
    let mut list = read_text(&file)?;
    if !list.is_empty() && !list.ends_with('\n') {
        list.push('\n');
    }
    if !list.contains(&fingerprint.to_string()) {
        list.push_str(&format!("{fingerprint}\n"));
        durable::write_file(&file, list.as_bytes(), Access::Owner)?;
    }
    Ok(fingerprint)
}

fn authority(dir: &Path) -> Result<Authority, InitError> {
    let [certificate, key] = [AUTHORITY, AUTHORITY_KEY].map(|name| read_text(&dir.join(name)));
    Ok(Authority::load(&certificate?, &key?)?)
}

fn read_text(file: &Path) -> Result<String, FileError> {
    Ok(String::from_utf8_lossy(&durable::read_file_limited(file, PEM_BYTES_MAX)?).into_owned())
}

/// The key first: where that fails the certificate that is in force stays.
fn write_pair(certificate: &Path, key: &Path, pair: &Pair) -> Result<(), FileError> {
    durable::write_file(key, pair.key_pem.as_bytes(), Access::Owner)?;
    durable::write_file(certificate, pair.certificate_pem.as_bytes(), Access::Owner)
}

/// What clients on this host and on its network are likely to call it.
fn own_names() -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if !host.is_empty() && host != "localhost" && host.bytes().all(plain) {
        names.push(host);
    }
    names
}

/// The folder's full path as it stands in a URL.
fn folder_in_url(dir: &Path) -> String {
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    full.as_os_str().as_bytes().iter().copied().map(escape).collect()
}
