use super::*;
use crate::identity::{PeerName, Role};
use crate::pki::{Authority, Pair};
use jiff::{Timestamp, ToSpan};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fs;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

struct World {
    dir: TempDir,
    authority: Authority,
    server: TlsServer,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (authority, _) = Authority::create("test", Timestamp::now()).unwrap();
        let server = authority.issue_server(&["localhost".to_owned()], Timestamp::now(), 10).unwrap();
        fs::write(dir.path().join("cert"), &server.certificate_pem).unwrap();
        fs::write(dir.path().join("key"), &server.key_pem).unwrap();
        fs::write(dir.path().join("ca"), authority.certificate_pem()).unwrap();
        fs::write(dir.path().join("revoked"), "# nobody\n").unwrap();
        let server = TlsServer::open(&files(&dir)).unwrap();
        Self { dir, authority, server }
    }

    fn agent(&self) -> Pair {
        issue(&self.authority, Timestamp::now(), 10)
    }

    /// What both ends find when a client with this certificate connects and sends a word.
    async fn connect(&self, pair: Option<&Pair>) -> (Result<Identity, Refusal>, Result<(), io::Error>) {
        self.connect_with(pair, &[&TLS13]).await
    }

    async fn connect_with(
        &self,
        pair: Option<&Pair>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (Result<Identity, Refusal>, Result<(), io::Error>) {
        let (near, far) = duplex(64 << 10);
        let client = client(&self.authority, pair, versions);
        tokio::join!(serve(&self.server, far), talk(client, near))
    }
}

fn files(dir: &TempDir) -> TlsFiles {
    let at = |name: &str| dir.path().join(name);
    TlsFiles { certificate: at("cert"), key: at("key"), authorities: at("ca"), revoked: at("revoked") }
}

fn issue(authority: &Authority, from: Timestamp, days: u32) -> Pair {
    let name: PeerName = "web-1".parse().unwrap();
    authority.issue_client(Role::Agent, &name, from, days).unwrap()
}

fn days(days: i64) -> Timestamp {
    Timestamp::now() + (days * 24).hours()
}

fn client(
    trusted: &Authority,
    pair: Option<&Pair>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

async fn serve(server: &TlsServer, io: DuplexStream) -> Result<Identity, Refusal> {
    let (mut stream, identity) = server.accept(io).await?;
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    Ok(identity)
}

async fn talk(client: TlsConnector, io: DuplexStream) -> Result<(), io::Error> {
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), io).await?;
    let mut word = String::new();
    stream.read_to_string(&mut word).await?;
    assert_eq!(word, "hello");
    Ok(())
}

#[tokio::test]
async fn a_client_of_the_authority_is_let_in_and_known_by_name() {
    let world = World::new();
    let pair = world.agent();
    for version in [&TLS13, &TLS12] {
        let (identity, heard) = world.connect_with(Some(&pair), &[version]).await;
        let identity = identity.unwrap();
        assert_eq!(identity.to_string(), "agent web-1");
        assert_eq!(identity.fingerprint, pair.fingerprint);
        heard.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_let_in_without_a_good_certificate() {
    let world = World::new();
    let (stranger, _) = Authority::create("test", Timestamp::now()).unwrap();
    let own = Pair {
        certificate_pem: fs::read_to_string(world.dir.path().join("cert")).unwrap(),
        key_pem: fs::read_to_string(world.dir.path().join("key")).unwrap(),
        fingerprint: Fingerprint::of(b""),
    };
    let cases = [
        (None, "no client certificate"),
        (Some(issue(&stranger, Timestamp::now(), 10)), "authority that this appliance does not know"),
        (Some(issue(&world.authority, days(-20), 10)), "has expired"),
        (Some(issue(&world.authority, days(20), 10)), "not valid yet"),
        (Some(own), "not one for a client"),
    ];
    for (pair, expected) in cases {
        let (identity, heard) = world.connect(pair.as_ref()).await;
        let refusal = identity.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal} should say: {expected}");
        assert!(heard.is_err(), "the client must hear of it: {expected}");
    }
}

#[tokio::test]
async fn a_revocation_counts_at_once_also_for_open_connections() {
    let world = World::new();
    let (good, bad) = (world.agent(), world.agent());
    let identity = world.connect(Some(&bad)).await.0.unwrap();
    world.server.check(&identity).unwrap();

    let list = world.dir.path().join("revoked");
    fs::write(&list, format!("{} # stolen laptop\n", bad.fingerprint)).unwrap();
    assert!(matches!(world.server.check(&identity), Err(Refusal::Revoked)));
    let (refused, heard) = world.connect(Some(&bad)).await;
    assert!(matches!(refused, Err(Refusal::Revoked)), "{refused:?}");
    assert!(heard.unwrap_err().to_string().to_lowercase().contains("revoked"));
    world.connect(Some(&good)).await.0.unwrap();

    // A list that can't be read leaves the last good one in force.
    fs::write(&list, "what is this\n").unwrap();
    assert!(world.server.check(&identity).is_err());
    fs::remove_file(&list).unwrap();
    assert!(world.server.check(&identity).is_err());
    fs::write(&list, "").unwrap();
    world.server.check(&identity).unwrap();
}

#[tokio::test]
async fn a_session_is_never_resumed() {
    let world = World::new();
    let pair = world.agent();
    let connector = client(&world.authority, Some(&pair), &[&TLS13, &TLS12]);
    for _ in 0..2 {
        let (near, far) = duplex(64 << 10);
        let connect = async {
            let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), near).await.unwrap();
            let mut word = String::new();
            stream.read_to_string(&mut word).await.unwrap();
            stream.get_ref().1.handshake_kind()
        };
        let (identity, kind) = tokio::join!(serve(&world.server, far), connect);
        identity.unwrap();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let world = World::new();
    let (mut near, far) = duplex(64 << 10);
    near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let refusal = world.server.accept(far).await.err().unwrap();
    assert!(matches!(refusal, Refusal::Handshake(_)), "{refusal}");
}

#[test]
fn unusable_files_are_named() {
    let world = World::new();
    let error = |break_it: &dyn Fn(&Path)| {
        let dir = TempDir::new().unwrap();
        for name in ["cert", "key", "ca", "revoked"] {
            fs::copy(world.dir.path().join(name), dir.path().join(name)).unwrap();
        }
        break_it(dir.path());
        TlsServer::open(&files(&dir)).err().unwrap().to_string()
    };
    assert!(error(&|dir| fs::remove_file(dir.join("cert")).unwrap()).contains("/cert: "));
    assert!(error(&|dir| fs::write(dir.join("key"), "").unwrap()).contains("/key: "));
    assert!(error(&|dir| fs::write(dir.join("ca"), "").unwrap()).contains("/ca: "));
    assert!(error(&|dir| fs::remove_file(dir.join("revoked")).unwrap()).contains("an empty file is an empty list"));
    assert!(error(&|dir| fs::write(dir.join("revoked"), "\n\nxyz").unwrap()).contains("line 3"));
    let other = world.agent().key_pem;
    assert!(error(&|dir| fs::write(dir.join("key"), &other).unwrap()).contains("/cert: "));
}
