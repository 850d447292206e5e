use super::*;
use crate::config::Config;
use crate::identity::Identity;
use crate::tls::TlsServer;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn wish(dir: &Path) -> Init {
    Init { dir: dir.to_owned(), names: Vec::new(), listen: "127.0.0.1:0".parse().unwrap(), cache: None, force: false }
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            found.push((entry.path(), fs::read(entry.path()).unwrap(), mode));
        }
    }
    found.sort();
    found
}

#[test]
fn what_init_makes_is_complete_private_and_usable() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("etc sluice");
    let made = init(&wish(&dir), Timestamp::now()).unwrap();
    assert!(made.names.starts_with(&["localhost".to_owned(), "127.0.0.1".to_owned()]));
    let made_files = files(&dir);
    assert_eq!(made_files.len(), 9);
    for (path, _, mode) in &made_files {
        assert_eq!(*mode, 0o600, "{}", path.display());
    }
    let config = Config::load(&made.config).unwrap();
    TlsServer::open(&config.tls_files()).unwrap();
    let store = sluice_cache_store::open(&config.cache.url, &config.store_options()).unwrap();
    assert_eq!(store.describe(), format!("folder {}", dir.join("cache").display()));
    let operator = fs::read(made.operator.folder.join("operator.pem")).unwrap();
    let identity = Identity::of_certificate(&CertificateDer::from_pem_slice(&operator).unwrap()).unwrap();
    assert_eq!(identity.to_string(), "operator admin");
    assert_eq!(identity.fingerprint, made.operator.fingerprint);
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    init(&wish(dir.path()), Timestamp::now()).unwrap();
    let before = files(dir.path());
    let error = init(&wish(dir.path()), Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("ca.pem") && error.contains("--force"), "{error}");
    assert_eq!(files(dir.path()), before);
    init(&Init { force: true, ..wish(dir.path()) }, Timestamp::now()).unwrap();
    let after = files(dir.path());
    assert_eq!(after.len(), before.len());
    assert_ne!(after, before);
}

#[test]
fn certificates_are_issued_once_and_can_be_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(&wish(dir), Timestamp::now()).unwrap();
    let certificate = Certificate::new(Role::Agent, "web-1".parse().unwrap(), false);
    let issued = issue(dir, &certificate, Timestamp::now()).unwrap();
    assert_eq!(issued.folder, dir.join("issued/agent-web-1"));
    for name in ["ca.pem", "agent.pem", "agent-key.pem"] {
        assert!(issued.folder.join(name).is_file(), "{name}");
    }
    assert!(matches!(issue(dir, &certificate, Timestamp::now()), Err(InitError::Exists(_))));
    let elsewhere = Certificate { out: Some(dir.join("there")), ..certificate };
    let other = issue(dir, &elsewhere, Timestamp::now()).unwrap();

    let pem = issued.folder.join("agent.pem");
    assert_eq!(revoke(dir, pem.to_str().unwrap()).unwrap(), issued.fingerprint);
    assert_eq!(revoke(dir, &other.fingerprint.to_string()).unwrap(), other.fingerprint);
    revoke(dir, &other.fingerprint.to_string()).unwrap();
    let list = fs::read_to_string(dir.join("tls/revoked")).unwrap();
    assert_eq!(list.lines().count(), 3, "{list}");
    let error = revoke(dir, "no/such/file").unwrap_err().to_string();
    assert!(error.contains("no/such/file") && error.contains("fingerprint"), "{error}");
}

#[test]
fn a_new_server_certificate_has_the_names_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    init(&wish(dir.path()), Timestamp::now()).unwrap();
    issue_server(dir.path(), &["sluice.example".to_owned()], 30, Timestamp::now()).unwrap();
    let pem = fs::read(dir.path().join(SERVER)).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let names = x509_parser::parse_x509_certificate(&der).unwrap().1;
    let names = format!("{:?}", names.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("sluice.example") && !names.contains("localhost"), "{names}");
}

#[test]
fn without_an_authority_nothing_is_issued() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(Role::Agent, "a".parse().unwrap(), false);
    let error = issue(dir.path(), &certificate, Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("tls/ca.pem"), "{error}");
}

/// As it is where whoever takes the appliance over must not issue certificates.
#[test]
fn the_authoritys_key_may_be_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, key) = (folder.path().join("appliance"), folder.path().join("kept.pem"));
    let made = init(&wish(&dir), Timestamp::now()).unwrap();
    durable::rename_file(&dir.join(AUTHORITY_KEY), &key).unwrap();
    let certificate = Certificate::new(Role::Agent, "web-1".parse().unwrap(), false);
    let error = issue(&dir, &certificate, Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("ca-key.pem"), "{error}");
    issue_server(&dir, &[], 30, Timestamp::now()).unwrap_err();
    // All else goes on without it.
    TlsServer::open(&Config::load(&made.config).unwrap().tls_files()).unwrap();
    revoke(&dir, dir.join("issued/operator-admin/operator.pem").to_str().unwrap()).unwrap();
    durable::rename_file(&key, &dir.join(AUTHORITY_KEY)).unwrap();
    issue(&dir, &certificate, Timestamp::now()).unwrap();
    issue_server(&dir, &[], 30, Timestamp::now()).unwrap();
    for (path, _, mode) in files(&dir) {
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}
