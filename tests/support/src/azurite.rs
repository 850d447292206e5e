//! Azurite, Microsoft's emulator of Azure's blob service, as a process of the test's own.

use crate::npm_package;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The last version that runs on node 20. It lists every API version up to its own release, hence `skipApiVersionCheck`.
const VERSION: &str = "3.35.0";
/// The account that every emulator has (learn.microsoft.com, "Use the Azurite emulator"); its key is no secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running Azurite with one empty container; killed, and its data deleted, on drop.
#[derive(Debug)]
pub struct Azurite {
    /// The account's address, such as `http://127.0.0.1:35651/devstoreaccount1`.
    pub endpoint: String,
    /// The account's name.
    pub account: String,
    /// The account's shared key, in base64.
    pub key: String,
    /// The container's name.
    pub container: String,
    port: u16,
    data: TempDir,
    process: Option<Child>,
}

impl Azurite {
    /// Starts one on a free port of 127.0.0.1 and makes the container `sluice`.
    pub fn start() -> Self {
        let data = TempDir::new().expect("a temporary folder for Azurite");
        let (process, port) = spawn(data.path(), 0);
        let azurite = Self {
            endpoint: format!("http://127.0.0.1:{port}/{ACCOUNT}"),
            account: ACCOUNT.to_owned(),
            key: KEY.to_owned(),
            container: "sluice".to_owned(),
            port,
            data,
            process: Some(process),
        };
        azurite.create_container(&azurite.container);
        azurite
    }

    /// Settings for `sluice_cache_store::StoreOptions`, which reach this service.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        let named = [("account_name", &self.account), ("access_key", &self.key), ("endpoint", &self.endpoint)];
        named.map(|(name, value)| (name, value.clone()))
    }

    /// Environment variables that make a program reach this service as its Azure account.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let names = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT"];
        let values = self.settings();
        std::array::from_fn(|i| (names[i], values[i].1.clone()))
    }

    /// The URL of the container as a cache store.
    pub fn url(&self) -> String {
        format!("az://{}", self.container)
    }

    /// Ends the process; the data stays for [`Azurite::start_again`]. By SIGTERM: Azurite writes its index every few
    /// seconds only, so a kill would lose blobs that it has confirmed, which the real service does not.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }

    /// Starts it again after [`Azurite::stop`], on the same port and data.
    pub fn start_again(&mut self) {
        self.stop();
        self.process = Some(spawn(self.data.path(), self.port).0);
    }

    /// Makes one more container.
    pub fn create_container(&self, name: &str) {
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
        let date = date.expect("today has a date of four digits in its year");
        let version = "2021-08-06";
        // Shared Key, version 2015-02-21 and later: twelve header lines, then x-ms- headers, then account and path.
        let headers = format!("x-ms-date:{date}\nx-ms-version:{version}\n");
        let resource = format!("/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container");
        let to_sign = format!("PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}{resource}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).expect("the key is base64"));
        let signature = STANDARD.encode(hmac::sign(&key, to_sign.as_bytes()));
        let request = format!(
            "PUT /{ACCOUNT}/{name}?restype=container HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nx-ms-date: {date}\r\n\
             x-ms-version: {version}\r\nAuthorization: SharedKey {ACCOUNT}:{signature}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            self.port
        );
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).expect("Azurite takes connections");
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        connection.write_all(request.as_bytes()).expect("Azurite takes a request");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("Azurite answers");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 201"), "creating container {name} at Azurite: {answer}");
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Starts the process and waits until it says where it listens; port 0 is a free one.
fn spawn(data: &Path, port: u16) -> (Child, u16) {
    let script = npm_package("azurite", VERSION).join("dist/src/blob/main.js");
    let mut node = Command::new("node");
    node.arg(script).arg("--location").arg(data).args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
    node.args(["--loose", "--skipApiVersionCheck", "--disableTelemetry"]);
    node.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = node.spawn().unwrap_or_else(|e| panic!("Azurite needs node (apt install nodejs): {e}"));
    let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, address) = line.split_once("successfully listens on http://127.0.0.1:")?;
        address.trim().parse().ok()
    });
    let Some(port) = found else {
        let _ = child.kill();
        panic!("Azurite ended before it listened: {:?}", child.wait());
    };
    // A line for every request follows; the pipe must not fill up.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (child, port)
}
