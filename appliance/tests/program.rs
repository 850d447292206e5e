//! `sluice-appliance` as a process: set up by its own commands, run, killed, run again.

use sluice_client::{ClientFiles, ClientOptions, HttpsClient, OperatorApi};
use sluice_test_support::Azurite;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-appliance"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A running appliance; killed on drop.
struct Running {
    child: Child,
    endpoint: String,
}

impl Running {
    fn start(dir: &Path, environment: &[(&str, String)]) -> Self {
        let config = dir.join("appliance.toml");
        let mut command = program();
        command.args(["run", "--config", text(&config)]);
        let mut child = command.envs(environment.iter().map(|(name, value)| (name, value))).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.strip_prefix("listening on ") else {
            let mut errors = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
            panic!("{line:?} {errors}");
        };
        let port = address.trim().rsplit(':').next().unwrap();
        Self { endpoint: format!("https://localhost:{port}"), child }
    }

    fn client(&self, dir: &Path) -> HttpsClient {
        let folder = dir.join("issued/operator-admin");
        let files = ClientFiles {
            authority: folder.join("ca.pem"),
            certificate: folder.join("operator.pem"),
            key: folder.join("operator-key.pem"),
        };
        HttpsClient::new(&self.endpoint, &files, ClientOptions::default()).unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn init(dir: &Path, more: &[&str]) {
    let args = ["init", "--dir", text(dir), "--listen", "127.0.0.1:0"];
    let made = ended(&[&args, more].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn what_was_set_survives_a_kill_and_sigterm_ends_it_orderly() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir, &[]);
    let mut first = Running::start(dir, &[]);
    let client = first.client(dir);
    assert_eq!(client.disks().await.unwrap(), []);
    let mut policy = client.policy().await.unwrap();
    policy.limit = Some("20Mbit/s".to_owned());
    client.set_policy(policy.clone()).await.unwrap();

    let second = ended(&["run", "--config", text(&dir.join("appliance.toml"))]);
    let error = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(error.contains(text(&dir.join("state"))), "{error}");

    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let mut again = Running::start(dir, &[]);
    assert_eq!(again.client(dir).policy().await.unwrap(), policy);
    again.signal("-TERM");
    assert_eq!(again.child.wait().unwrap().code(), Some(0));
    assert!(!dir.join("state/appliance.db-wal").exists(), "an orderly end leaves a whole file");
}

#[tokio::test]
async fn a_revoked_certificate_is_locked_out_of_its_open_connection() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir, &[]);
    let running = Running::start(dir, &[]);
    let client = running.client(dir);
    client.disks().await.unwrap();
    let certificate = dir.join("issued/operator-admin/operator.pem");
    assert!(ended(&["revoke", "--dir", text(dir), text(&certificate)]).status.success());
    client.disks().await.unwrap_err();
}

#[tokio::test]
async fn azure_credentials_come_from_the_environment_and_wrong_ones_stop_the_start() {
    let azurite = Azurite::start();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir, &["--cache", &format!("{}/appliance", azurite.url())]);
    let running = Running::start(dir, &azurite.environment());
    assert_eq!(running.client(dir).disks().await.unwrap(), []);
    drop(running);

    let mut wrong = azurite.environment();
    wrong[1].1 = "d3Jvbmcta2V5LXdyb25nLWtleQ==".to_owned();
    let mut command = program();
    command.args(["run", "--config", text(&dir.join("appliance.toml"))]);
    let refused = command.envs(wrong.clone()).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("container sluice/appliance") && error.contains("check the credentials"), "{error}");
    assert!(!error.contains(&wrong[1].1), "{error}");
}

#[tokio::test]
async fn an_appliance_waits_for_a_cache_store_that_is_away() {
    let mut azurite = Azurite::start();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    init(dir, &["--cache", &format!("{}/appliance", azurite.url())]);
    azurite.stop();
    let config = dir.join("appliance.toml");
    let mut command = program();
    command.args(["run", "--config", text(&config)]).envs(azurite.environment());
    let mut child = command.spawn().unwrap();
    // It says what it waits for, and ends at once where it is told to.
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits =
        errors.find(|line| line.as_ref().is_ok_and(|line| line.contains("as soon as its cache store"))).unwrap();
    assert!(waits.unwrap().contains("unavailable"));
    assert_eq!(child.try_wait().unwrap(), None);
    azurite.start_again();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
