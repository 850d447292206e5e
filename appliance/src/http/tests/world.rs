//! A port with its own authority, and clients of all kinds.

use crate::http::{HttpLimits, Port, serve};
use crate::identity::{PeerName, Role};
use crate::pki::{Authority, Pair};
use crate::service::tests::fixture::{self, DISK, Shipment, asks, registration, whole};
use crate::tls::{TlsFiles, TlsServer};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use sluice_client::{AgentApi, ClientFiles, ClientOptions, HttpsClient};
use sluice_proto::Generation;
use sluice_proto::wire::Start;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) struct Site {
    pub(super) service: fixture::World,
    pub(super) authority: Authority,
    pub(super) address: SocketAddr,
    tls: TlsServer,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    pub(super) served: Option<JoinHandle<()>>,
}

/// Limits that a test need not wait long for.
pub(super) fn quick() -> HttpLimits {
    HttpLimits {
        handshake_time: Duration::from_millis(700),
        header_time: Duration::from_millis(700),
        body_stall_time: Duration::from_millis(700),
        stop_time: Duration::from_secs(5),
        ..HttpLimits::default()
    }
}

impl Site {
    pub(super) async fn new() -> Self {
        Self::with(HttpLimits::default()).await
    }

    pub(super) async fn with(limits: HttpLimits) -> Self {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (authority, _) = Authority::create("test", Timestamp::now()).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = authority.issue_server(&names, Timestamp::now(), 10).unwrap();
        std::fs::write(at("cert"), &own.certificate_pem).unwrap();
        std::fs::write(at("key"), &own.key_pem).unwrap();
        std::fs::write(at("ca"), authority.certificate_pem()).unwrap();
        std::fs::write(at("revoked"), "# nobody\n").unwrap();
        let files = TlsFiles { certificate: at("cert"), key: at("key"), authorities: at("ca"), revoked: at("revoked") };
        let tls = TlsServer::open(&files).unwrap();
        let service = fixture::World::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, tls.clone(), service.service.clone(), limits, async {
            let _ = stopped.await;
        });
        let served = Some(tokio::spawn(serving));
        Self { service, authority, address, tls, dir, stop: Some(stop), served }
    }

    /// What another port of the same appliance shares, to be asked without a connection, until the sender is dropped.
    pub(super) fn port(&self, limits: HttpLimits) -> (Arc<Port>, watch::Sender<bool>) {
        let (stopping, stopped) = watch::channel(false);
        (Port::new(self.service.service.clone(), self.tls.clone(), limits, stopped), stopping)
    }

    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub(super) fn issue(&self, role: Role, name: &str) -> Pair {
        let name: PeerName = name.parse().unwrap();
        self.authority.issue_client(role, &name, Timestamp::now(), 10).unwrap()
    }

    pub(super) fn revoke(&self, pair: &Pair) {
        std::fs::write(self.dir.path().join("revoked"), format!("{}\n", pair.fingerprint)).unwrap();
    }

    fn written(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    pub(super) fn client(&self, role: Role, name: &str) -> HttpsClient {
        self.client_of(&self.issue(role, name))
    }

    pub(super) fn client_of(&self, pair: &Pair) -> HttpsClient {
        self.client_at(&format!("https://localhost:{}", self.address.port()), pair, self.authority.certificate_pem())
    }

    pub(super) fn client_at(&self, endpoint: &str, pair: &Pair, authority_pem: &str) -> HttpsClient {
        let files = ClientFiles {
            authority: self.written(&format!("{}.ca", pair.fingerprint), authority_pem),
            certificate: self.written(&format!("{}.cert", pair.fingerprint), &pair.certificate_pem),
            key: self.written(&format!("{}.key", pair.fingerprint), &pair.key_pem),
        };
        HttpsClient::new(endpoint, &files, ClientOptions::default()).unwrap()
    }

    pub(super) fn agent(&self) -> HttpsClient {
        self.client(Role::Agent, "web-1")
    }

    pub(super) fn hydrator(&self) -> HttpsClient {
        self.client(Role::Hydrator, "main")
    }

    pub(super) fn operator(&self) -> HttpsClient {
        self.client(Role::Operator, "anna")
    }

    /// A connection on which a test writes what it likes.
    pub(super) async fn raw(&self, pair: &Pair) -> TlsStream<TcpStream> {
        self.raw_with(Some(pair), &[&TLS13]).await.unwrap()
    }

    pub(super) async fn raw_with(
        &self,
        pair: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let tcp = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }
}

/// Registers the disk, and is told to begin its first cycle.
pub(super) async fn begun(agent: &HttpsClient) -> Start {
    agent.register(DISK, registration(DISK, Generation(1))).await.unwrap();
    agent.next(DISK, asks(0, None, 0)).await.unwrap().start.unwrap()
}

/// The same, and opens it: it brings the whole disk.
pub(super) async fn opened(agent: &HttpsClient) -> (Start, Shipment) {
    let start = begun(agent).await;
    let shipment = Shipment::new(&start, &whole(), 1);
    agent.open(DISK, start.cycle, shipment.open.clone()).await.unwrap();
    (start, shipment)
}

/// Sends bytes and reads until the port closes the connection; gives what it said.
pub(super) async fn talk(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> String {
    // The port may close while bytes are still on their way to it.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

/// The head of a request with these headers.
pub(super) fn head(request: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{request} HTTP/1.1\r\nhost: localhost\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text + "\r\n"
}
