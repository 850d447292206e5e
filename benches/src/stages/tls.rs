//! A TLS 1.3 connection over loopback, both ends of which are worked by one thread.

use anyhow::{Context, Result, anyhow};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// What is handed to TLS at once: a record.
const RECORD: usize = 16 << 10;
/// A name for a certificate that nobody else sees.
const NAME: &str = "bench.invalid";

/// The connection, by the library and the provider that agent and appliance use.
pub struct Tls {
    client: ClientConnection,
    server: ServerConnection,
    from: TcpStream,
    to: TcpStream,
    received: Vec<u8>,
}

impl Tls {
    /// A new one, hands shaken.
    pub fn connect() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("a certificate")?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|e| anyhow!("{e}"))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let provider = Arc::new(default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut server = ServerConnection::new(Arc::new(server))?;
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(NAME)?)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut from = TcpStream::connect(listener.local_addr()?)?;
        let (mut to, _) = listener.accept()?;
        from.set_nodelay(true)?;
        std::thread::scope(|scope| -> Result<()> {
            let other = scope.spawn(|| server.complete_io(&mut to));
            client.complete_io(&mut from)?;
            other.join().map_err(|_| anyhow!("the handshake failed"))??;
            Ok(())
        })?;
        Ok(Self { client, server, from, to, received: Vec::new() })
    }

    /// Sends bytes from one end to the other.
    pub fn carry(&mut self, bytes: &[u8]) -> Result<()> {
        self.received.resize(bytes.len(), 0);
        let mut got = 0;
        for record in bytes.chunks(RECORD) {
            self.client.writer().write_all(record)?;
            while self.client.wants_write() {
                self.client.write_tls(&mut self.from)?;
            }
            let due = got + record.len();
            while got < due {
                self.server.read_tls(&mut self.to)?;
                let plain = self.server.process_new_packets()?.plaintext_bytes_to_read();
                self.server.reader().read_exact(&mut self.received[got..got + plain])?;
                got += plain;
            }
        }
        Ok(())
    }
}
