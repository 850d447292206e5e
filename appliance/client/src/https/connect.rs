//! Connecting to the appliance, and being sure that it is the one.

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The files that a client is known by, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate of the authority that the appliance's certificate must be of.
    pub authority: PathBuf,
    /// This client's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint is not one.
    #[error("{endpoint:?} is not an appliance's address: {wrong}; it is written as https://host:port")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// A file is missing, unreadable or holds nothing of use.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the reader said.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key don't fit, or can't be used so.
    #[error("{}: {source}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
}

/// Makes connections to one appliance.
pub(super) struct Connector {
    address: String,
    pub(super) host: HeaderValue,
    name: ServerName<'static>,
    tls: TlsConnector,
    time_max: Duration,
}

impl Connector {
    pub(super) fn new(endpoint: &str, files: &ClientFiles, time_max: Duration) -> Result<Self, ClientError> {
        let wrong = |wrong| ClientError::Endpoint { endpoint: endpoint.chars().take(200).collect(), wrong };
        let uri: Uri = endpoint.parse().map_err(|_| wrong("it can't be read"))?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it is no https address without a path"));
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let port = uri.port_u16().ok_or_else(|| wrong("it names no port"))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| wrong("its host is no name and no IP address"))?;
        let address = format!("{host}:{port}");
        let header = HeaderValue::from_str(&address).map_err(|_| wrong("its host is no name and no IP address"))?;
        Ok(Self { address, host: header, name, tls: TlsConnector::from(Arc::new(config(files)?)), time_max })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, String> {
        let connecting = async {
            let tcp = TcpStream::connect(&self.address).await.map_err(|e| e.to_string())?;
            // A refusal here costs speed, not sense.
            let _ = tcp.set_nodelay(true);
            self.tls.connect(self.name.clone(), tcp).await.map_err(|e| format!("TLS: {e}"))
        };
        timeout(self.time_max, connecting)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {:?}", self.time_max)))
    }
}

fn config(files: &ClientFiles) -> Result<ClientConfig, ClientError> {
    let unusable = |file: &Path| {
        let file = file.to_owned();
        move |source| ClientError::Unusable { file, source }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.authority)? {
        roots.add(authority).map_err(unusable(&files.authority))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| ClientError::File { file: files.key.clone(), source })?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable(&files.certificate))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .map_err(unusable(&files.certificate))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let failed = |source| ClientError::File { file: file.to_owned(), source };
    let found = CertificateDer::pem_file_iter(file).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    match found.is_empty() {
        true => Err(failed(rustls::pki_types::pem::Error::NoItemsFound)),
        false => Ok(found),
    }
}
